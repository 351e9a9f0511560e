//! Decides the ending of a job after an attempt.

use std::any::Any;
use std::time::Duration;

use crate::driver::{Ending, Failure, FailureReason};
use crate::handler::middleware::EndKind;
use crate::job::outcome::{Outcome, panicked};
use crate::job::payload::Payload;
use crate::job::retry_policy::RetryPolicy;
use crate::worker::attempt::reservations::HeldJob;
use crate::worker::parts::quietly;

/// A job whose kind has no handler here is due again after 10 s, since another worker may have a handler, or a deploy
/// may add one.
const NO_HANDLER_DELAY: Duration = Duration::from_secs(10);

/// The first 8 KiB of an error are kept.
const MAX_ERROR: usize = 8 * 1024;

/// Results of up to 8 MiB are kept; payloads have the same limit.
const LARGEST_RESULT: usize = 8 * 1024 * 1024;

/// The way in which the call of a handler ended.
pub(super) enum HandlerEnd {
    Returned(Outcome),
    Panicked(Box<dyn Any + Send>),
    /// The handler exceeded this timeout and did not stop when asked to.
    TimedOut(Duration),
    /// The handler did not stop before the worker ended.
    GivenUp,
}

impl HandlerEnd {
    pub(super) fn end_kind(&self) -> EndKind {
        match self {
            HandlerEnd::Panicked(_) => EndKind::Panicked,
            HandlerEnd::Returned(Outcome::Snooze(_)) => EndKind::Snoozed,
            _ => EndKind::Released,
        }
    }
}

/// Returns the ending of the job. `failures`: the number of failures before this attempt.
pub(super) fn judge(
    ended: HandlerEnd,
    held: &HeldJob,
    retry_policy: &RetryPolicy,
    failures: u32,
    max_attempts: u32,
) -> Ending {
    let failed = |reason, error: String, delay: Option<Duration>| {
        if held.cancel_requested() {
            return Ending::Cancelled;
        }
        let failure = Failure { reason, error: shorten(error) };
        if failures + 1 >= max_attempts {
            return Ending::Dead(failure);
        }
        Ending::Waiting { delay: delay.unwrap_or_else(|| retry_policy.delay(failures + 1)), failure: Some(failure) }
    };
    // The worker asked the handler to stop, so the handler's error counts as no failure.
    let was_stopped = held.cancellation.is_cancelled() && !held.cancel_requested() && held.timed_out().is_none();
    let too_long = |timeout: Duration| format!("took longer than its timeout of {timeout:?}");
    match ended {
        HandlerEnd::Returned(Outcome::Complete) => Ending::Completed(None),
        HandlerEnd::Returned(Outcome::CompleteWith(result)) => Ending::Completed(within_limit(result)),
        HandlerEnd::Returned(Outcome::Cancel) => Ending::Cancelled,
        HandlerEnd::Returned(Outcome::Dead(error)) => dead(FailureReason::Permanent, error),
        HandlerEnd::Returned(Outcome::Undecodable(error)) => dead(FailureReason::Undecodable, error),
        HandlerEnd::Returned(Outcome::Fail(error)) => match held.timed_out() {
            Some(timeout) => failed(FailureReason::TimedOut, format!("{}: {error}", too_long(timeout)), None),
            None if was_stopped => Ending::Released,
            None => failed(FailureReason::Failed, error, None),
        },
        HandlerEnd::Returned(Outcome::RetryIn(delay, error)) => failed(FailureReason::Failed, error, Some(delay)),
        HandlerEnd::Returned(Outcome::Lost(_)) if was_stopped => Ending::Released,
        HandlerEnd::Returned(Outcome::Lost(error)) => failed(FailureReason::Lost, error, None),
        HandlerEnd::Returned(Outcome::Snooze(_) | Outcome::Release | Outcome::Unhandled) if held.cancel_requested() => {
            Ending::Cancelled
        }
        HandlerEnd::Returned(Outcome::Release) => Ending::Released,
        HandlerEnd::Returned(Outcome::Unhandled) => unhandled(),
        HandlerEnd::Returned(Outcome::Snooze(delay)) => Ending::Waiting { failure: None, delay },
        HandlerEnd::Panicked(panic) => failed(FailureReason::Failed, panicked(&*panic), None),
        HandlerEnd::TimedOut(timeout) => failed(FailureReason::TimedOut, too_long(timeout), None),
        HandlerEnd::GivenUp => Ending::Released,
    }
}

/// Returns the ending of a job whose kind has no handler, and logs it.
pub(super) fn unhandled() -> Ending {
    quietly(|| {
        tracing::warn!(
            name: "job.no_handler", target: "reveille::job", retry_in = ?NO_HANDLER_DELAY,
            "no handler for this kind; releasing the job"
        );
    });
    Ending::Waiting { failure: None, delay: NO_HANDLER_DELAY }
}

/// Returns the result, or `None` if the result is larger than 8 MiB. A larger result would delay all jobs that are
/// settled together with this job. The job is completed either way.
fn within_limit(result: Payload) -> Option<Payload> {
    let size = result.as_bytes().len();
    if size <= LARGEST_RESULT {
        return Some(result);
    }
    quietly(|| {
        let error = format!("the result has {size} bytes, and the limit is {LARGEST_RESULT}");
        tracing::warn!(
            name: "job.result_dropped", target: "reveille::job", error,
            "the job's result is dropped; the job is completed without it"
        );
    });
    None
}

pub(super) fn dead(reason: FailureReason, error: String) -> Ending {
    Ending::Dead(Failure { reason, error: shorten(error) })
}

/// Makes an error storable: replaces NUL characters, which Postgres refuses, and cuts the error after 8 KiB. All added
/// characters are ASCII, since a database may have an encoding without others.
fn shorten(error: String) -> String {
    let mut error = if error.contains('\0') { error.replace('\0', "?") } else { error };
    if error.len() > MAX_ERROR {
        let end = (0..=MAX_ERROR).rev().find(|&end| error.is_char_boundary(end)).unwrap_or_default();
        error.truncate(end);
        error.push_str("...");
    }
    error
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::handler::StopReason;
    use crate::job::Reservation;
    use crate::worker::attempt::reservations::HeldJobs;

    fn held_job() -> Arc<HeldJob> {
        HeldJobs::default()
            .take(Reservation { id: 1, worker: 1, attempt: 1, reserved_at: SystemTime::UNIX_EPOCH, hint: 0 }, false)
    }

    fn judged(outcome: Outcome, failures: u32) -> Ending {
        judge(HandlerEnd::Returned(outcome), &held_job(), &RetryPolicy::fixed(Duration::from_secs(9)), failures, 3)
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
    fn a_retry_with_its_own_delay_counts_as_a_failure() {
        let Ending::Waiting { failure: Some(_), delay } =
            judged(Outcome::RetryIn(Duration::from_secs(1), "x".into()), 0)
        else {
            panic!("the job does not wait for its retry")
        };
        assert_eq!(delay, Duration::from_secs(1));
        assert!(matches!(judged(Outcome::RetryIn(Duration::from_secs(1), "x".into()), 2), Ending::Dead(_)));
    }

    #[test]
    fn a_snooze_at_the_last_attempt_is_no_failure() {
        let delay = Duration::from_secs(60);
        assert_eq!(judged(Outcome::Snooze(delay), 2), Ending::Waiting { failure: None, delay });
    }

    #[test]
    fn a_handler_that_stops_when_asked_to_has_not_failed() {
        let held = held_job();
        held.stop(StopReason::Shutdown);
        let fail = HandlerEnd::Returned(Outcome::Fail("stopped".into()));
        assert_eq!(judge(fail, &held, &RetryPolicy::default(), 0, 1), Ending::Released);
        let lost = HandlerEnd::Returned(Outcome::Lost("its process died".into()));
        assert_eq!(judge(lost, &held, &RetryPolicy::default(), 0, 1), Ending::Released);
    }

    #[test]
    fn a_lost_attempt_fails_and_a_released_one_does_not() {
        let Ending::Dead(Failure { reason, .. }) = judged(Outcome::Lost("its process died".into()), 2) else {
            panic!("the job is not dead")
        };
        assert_eq!(reason, FailureReason::Lost);
        assert_eq!(judged(Outcome::Release, 2), Ending::Released);
        assert_eq!(judged(Outcome::Unhandled, 2), Ending::Waiting { failure: None, delay: NO_HANDLER_DELAY });
    }

    #[test]
    fn a_handler_that_stops_at_its_timeout_fails_unless_it_completes() {
        let held = held_job();
        held.time_out(Duration::from_secs(2));
        let judged = |outcome| judge(HandlerEnd::Returned(outcome), &held, &RetryPolicy::default(), 0, 1);
        let error = "took longer than its timeout of 2s: stopped".into();
        let failure = Failure { reason: FailureReason::TimedOut, error };
        assert_eq!(judged(Outcome::Fail("stopped".into())), Ending::Dead(failure));
        assert_eq!(judged(Outcome::Complete), Ending::Completed(None));
    }

    #[test]
    fn a_job_that_fails_after_a_cancel_request_is_cancelled() {
        let held_jobs = HeldJobs::default();
        let held = held_jobs.take(held_job().reservation, false);
        held_jobs.cancel(1);
        for outcome in [Outcome::Fail("x".into()), Outcome::Snooze(Duration::ZERO), Outcome::Cancel] {
            assert_eq!(judge(HandlerEnd::Returned(outcome), &held, &RetryPolicy::default(), 0, 9), Ending::Cancelled);
        }
        let done = judge(HandlerEnd::Returned(Outcome::Complete), &held, &RetryPolicy::default(), 0, 9);
        assert_eq!(done, Ending::Completed(None), "a completed job stays completed");
    }

    #[test]
    fn an_error_is_made_storable() {
        assert_eq!(shorten("a\0b".into()), "a?b");
        let long = shorten("é".repeat(MAX_ERROR));
        assert!(long.len() <= MAX_ERROR + 3 && long.ends_with("é..."));
    }

    #[test]
    fn a_job_completes_without_a_result_that_is_too_large() {
        let of = |bytes: usize| Outcome::CompleteWith(Payload::encode(&"x".repeat(bytes - 2)).unwrap());
        assert!(matches!(judged(of(LARGEST_RESULT), 0), Ending::Completed(Some(_))));
        assert_eq!(judged(of(LARGEST_RESULT + 1), 0), Ending::Completed(None));
    }

    #[test]
    fn a_result_is_kept_unchanged() {
        let result = Payload::encode(&7).unwrap();
        assert_eq!(judged(Outcome::CompleteWith(result.clone()), 0), Ending::Completed(Some(result)));
    }
}
