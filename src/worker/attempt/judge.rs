//! How an attempt ended, and what becomes of its job.

use std::any::Any;
use std::time::Duration;

use crate::driver::{Ending, Failure, FailureReason};
use crate::handler::middleware::EndKind;
use crate::job::outcome::{Outcome, panicked};
use crate::job::payload::Payload;
use crate::job::retry_policy::RetryPolicy;
use crate::worker::attempt::reservations::Hold;
use crate::worker::parts::quietly;

/// No more of an error than this is kept, in bytes.
const MAX_ERROR: usize = 8 * 1024;

/// No larger result is kept, in bytes: 8 MiB, as of payloads.
const LARGEST_RESULT: usize = 8 * 1024 * 1024;

/// How a handler came to its end.
pub(super) enum Ended {
    Returned(Outcome),
    Panicked(Box<dyn Any + Send>),
    TimedOut(Duration),
    GivenUp,
}

impl Ended {
    pub(super) fn how(&self) -> EndKind {
        match self {
            Ended::Panicked(_) => EndKind::Panicked,
            Ended::Returned(Outcome::Snooze(_)) => EndKind::Snoozed,
            _ => EndKind::Released,
        }
    }
}

/// What becomes of the job.
pub(super) fn judge(ended: Ended, hold: &Hold, retry_policy: &RetryPolicy, failures: u32, max_attempts: u32) -> Ending {
    let failed = |reason, error: String, delay: Option<Duration>| {
        if hold.cancel_requested() {
            return Ending::Cancelled;
        }
        let failure = Failure { reason, error: shorten(error) };
        if failures + 1 >= max_attempts {
            return Ending::Dead(failure);
        }
        Ending::Waiting { delay: delay.unwrap_or_else(|| retry_policy.delay(failures + 1)), failure: Some(failure) }
    };
    let too_long = |timeout: Duration| format!("took longer than its timeout of {timeout:?}");
    match ended {
        Ended::Returned(Outcome::Complete) => Ending::Completed(None),
        Ended::Returned(Outcome::CompleteWith(result)) => Ending::Completed(kept(result)),
        Ended::Returned(Outcome::Cancel) => Ending::Cancelled,
        Ended::Returned(Outcome::Dead(error)) => dead(FailureReason::Permanent, error),
        Ended::Returned(Outcome::Undecodable(error)) => dead(FailureReason::Undecodable, error),
        Ended::Returned(Outcome::Fail(error)) => match hold.timed_out() {
            Some(timeout) => failed(FailureReason::TimedOut, format!("{}: {error}", too_long(timeout)), None),
            // The handler was told to stop and did: not its fault.
            None if hold.token.is_cancelled() && !hold.cancel_requested() => released(),
            None => failed(FailureReason::Failed, error, None),
        },
        Ended::Returned(Outcome::RetryIn(delay, error)) => failed(FailureReason::Failed, error, Some(delay)),
        Ended::Returned(Outcome::Snooze(_)) if hold.cancel_requested() => Ending::Cancelled,
        Ended::Returned(Outcome::Snooze(delay)) => Ending::Waiting { failure: None, delay },
        Ended::Panicked(panic) => failed(FailureReason::Failed, panicked(&*panic), None),
        Ended::TimedOut(timeout) => failed(FailureReason::TimedOut, too_long(timeout), None),
        Ended::GivenUp => released(),
    }
}

/// The result, unless it is so large that it would hold up all that is settled with it. The work is done all the same.
fn kept(result: Payload) -> Option<Payload> {
    let size = result.as_bytes().len();
    if size <= LARGEST_RESULT {
        return Some(result);
    }
    quietly(|| {
        let error = format!("its {size} bytes are more than the limit of {LARGEST_RESULT}");
        tracing::warn!(name: "job.result_dropped", target: "reveille::job", error, "the result cannot be kept");
    });
    None
}

pub(super) fn dead(reason: FailureReason, error: String) -> Ending {
    Ending::Dead(Failure { reason, error: shorten(error) })
}

pub(super) fn released() -> Ending {
    Ending::Waiting { failure: None, delay: Duration::ZERO }
}

/// As Postgres can store it: without NULs, and of bounded length.
fn shorten(error: String) -> String {
    let mut error = if error.contains('\0') { error.replace('\0', "\u{fffd}") } else { error };
    if error.len() > MAX_ERROR {
        let end = (0..=MAX_ERROR).rev().find(|&end| error.is_char_boundary(end)).unwrap_or_default();
        error.truncate(end);
        error.push('…');
    }
    error
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::job::Reservation;
    use crate::worker::attempt::reservations::Held;

    fn hold() -> Arc<Hold> {
        Held::default()
            .take(Reservation { id: 1, worker: 1, attempt: 1, reserved_at: SystemTime::UNIX_EPOCH, hint: 0 }, false)
    }

    fn judged(outcome: Outcome, failures: u32) -> Ending {
        judge(Ended::Returned(outcome), &hold(), &RetryPolicy::fixed(Duration::from_secs(9)), failures, 3)
    }

    #[test]
    fn a_failure_is_retried_by_the_policy_until_the_last_attempt() {
        let failure = Failure { reason: FailureReason::Failed, error: "no".into() };
        let waiting = Ending::Waiting { failure: Some(failure.clone()), delay: Duration::from_secs(9) };
        assert_eq!(judged(Outcome::Fail("no".into()), 0), waiting);
        assert_eq!(judged(Outcome::Fail("no".into()), 1), waiting);
        assert_eq!(judged(Outcome::Fail("no".into()), 2), Ending::Dead(failure));
    }

    #[test]
    fn a_retry_at_a_time_of_its_own_counts_as_a_failure_too() {
        let Ending::Waiting { failure: Some(_), delay } =
            judged(Outcome::RetryIn(Duration::from_secs(1), "x".into()), 0)
        else {
            panic!("it waits")
        };
        assert_eq!(delay, Duration::from_secs(1));
        assert!(matches!(judged(Outcome::RetryIn(Duration::from_secs(1), "x".into()), 2), Ending::Dead(_)));
    }

    #[test]
    fn a_snooze_is_no_failure_however_late() {
        let delay = Duration::from_secs(60);
        assert_eq!(judged(Outcome::Snooze(delay), 2), Ending::Waiting { failure: None, delay });
    }

    #[test]
    fn a_handler_that_stops_because_it_was_told_to_has_not_failed() {
        let hold = hold();
        hold.stop();
        let fail = Ended::Returned(Outcome::Fail("stopped".into()));
        assert_eq!(judge(fail, &hold, &RetryPolicy::default(), 0, 1), released());
    }

    #[test]
    fn a_handler_that_stops_at_its_timeout_has_failed_of_it_and_one_that_is_done_is_done() {
        let hold = hold();
        hold.time_out(Duration::from_secs(2));
        let judged = |outcome| judge(Ended::Returned(outcome), &hold, &RetryPolicy::default(), 0, 1);
        let error = "took longer than its timeout of 2s: stopped".into();
        let failure = Failure { reason: FailureReason::TimedOut, error };
        assert_eq!(judged(Outcome::Fail("stopped".into())), Ending::Dead(failure));
        assert_eq!(judged(Outcome::Complete), Ending::Completed(None));
    }

    #[test]
    fn a_job_that_fails_after_its_cancelling_was_asked_for_is_cancelled() {
        let held = Held::default();
        let hold = held.take(hold().reservation, false);
        held.cancel(1);
        for outcome in [Outcome::Fail("x".into()), Outcome::Snooze(Duration::ZERO), Outcome::Cancel] {
            assert_eq!(judge(Ended::Returned(outcome), &hold, &RetryPolicy::default(), 0, 9), Ending::Cancelled);
        }
        let done = judge(Ended::Returned(Outcome::Complete), &hold, &RetryPolicy::default(), 0, 9);
        assert_eq!(done, Ending::Completed(None), "what is done is done");
    }

    #[test]
    fn an_error_is_made_storable() {
        assert_eq!(shorten("a\0b".into()), "a\u{fffd}b");
        let long = shorten("é".repeat(MAX_ERROR));
        assert!(long.len() <= MAX_ERROR + '…'.len_utf8() && long.ends_with('…'));
    }

    #[test]
    fn a_result_that_is_too_large_is_not_kept_and_the_job_is_done() {
        let of = |bytes: usize| Outcome::CompleteWith(Payload::encode(&"x".repeat(bytes - 2)).unwrap());
        assert!(matches!(judged(of(LARGEST_RESULT), 0), Ending::Completed(Some(_))));
        assert_eq!(judged(of(LARGEST_RESULT + 1), 0), Ending::Completed(None));
    }

    #[test]
    fn a_result_is_kept_as_it_is() {
        let result = crate::job::payload::Payload::encode(&7).unwrap();
        assert_eq!(judged(Outcome::CompleteWith(result.clone()), 0), Ending::Completed(Some(result)));
    }
}
