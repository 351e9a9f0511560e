//! One attempt at one job: decode, run, and judge how it ended.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field};

use crate::driver::{Driver, Ending, Failure, Reason, Settlement};
use crate::enqueue::in_handler_of;
use crate::handler::extract::{Context, States};
use crate::handler::middleware::{AttemptEnd, How, Middlewares};
use crate::handler::{Handlers, Registered};
use crate::job::outcome::{Outcome, panicked};
use crate::job::retry_policy::RetryPolicy;
use crate::job::{Reservation, ReservedJob};
use crate::worker::attempt::reservations::{Held, Hold};
use crate::worker::backoff::{Backoff, Comeback};
use crate::worker::parts::{Parts, quietly};

pub(crate) mod reservations;
pub(crate) mod settle;

/// How long a job waits that nobody here has a handler for: another worker may, or a deploy may be under way.
const NO_HANDLER_DELAY: Duration = Duration::from_secs(10);

/// How soon to ask again whether a transaction has ended: at first, and at most.
const UNDER_WAY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));

/// How long a handler that was told to stop at its timeout has to clean up before it is dropped: as long as its timeout, and at most
/// this.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// No more of an error than this is kept, in bytes.
const MAX_ERROR: usize = 8 * 1024;

/// Makes attempts.
pub(crate) struct Attempts {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) middlewares: Arc<Middlewares>,
    pub(crate) states: Arc<States>,
    pub(crate) held: Arc<Held>,
    /// Whether the jobs are stored anywhere: not in a test that makes one attempt at a job of its own.
    pub(crate) is_stored: bool,
    /// For jobs of which neither they nor their kind say one.
    pub(crate) timeout: Option<Duration>,
    /// Tripped when what still runs is to be given up.
    pub(crate) give_up: CancellationToken,
    pub(crate) comeback: Comeback,
    pub(crate) parts: Parts,
}

impl Attempts {
    /// From here on the job is known to be held.
    pub(crate) fn hold(&self, job: &ReservedJob) -> Arc<Hold> {
        self.held.take(job.reservation, job.cancel_requested)
    }

    /// Makes one; returns how it is to be recorded. A panic of anything but its handler and middlewares breaks the worker, and
    /// the job goes back.
    pub(crate) async fn make(&self, job: ReservedJob, hold: Arc<Hold>) -> Settlement {
        let (reservation, waited, started) = (job.reservation, job.waited(), Instant::now());
        let making = async {
            let span = span_of(&job);
            let begun = std::panic::catch_unwind(AssertUnwindSafe(|| self.middlewares.span(&job, &span)));
            self.run(job, begun, &hold).instrument(span).await
        };
        let ending = AssertUnwindSafe(making).catch_unwind().await.unwrap_or_else(|panic| {
            hold.end();
            self.parts.broke_by_panic("an attempt", &*panic);
            released()
        });
        Settlement { reservation, ending, waited, ran: started.elapsed() }
    }

    /// `begun`: whether all middlewares have taken notice without a panic.
    async fn run(&self, job: ReservedJob, begun: std::thread::Result<()>, hold: &Hold) -> Ending {
        let started = Instant::now();
        let handler = match self.find_handler(&job, hold) {
            Ok(handler) => handler,
            Err(ending) => {
                self.middlewares.ended(&AttemptEnd::of(&job, &ending, How::Released, Duration::ZERO));
                return ending;
            }
        };
        let timeout = job.timeout.or(handler.timeout).or(self.timeout);
        let context = Context::new(
            Arc::clone(&self.driver),
            job,
            self.is_stored,
            timeout,
            hold.token.clone(),
            Arc::clone(&self.states),
        );
        quietly(|| tracing::debug!(name: "job.started", target: "reveille::job", "started"));
        hold.begin(timeout);
        let mut ended = match begun {
            Ok(()) => self.call(handler, &context, hold).await,
            Err(panic) => Ended::Panicked(panic),
        };
        hold.end();
        context.close_progress().await;
        let mut recorded = None;
        if let Some(transaction) = context.completed_in() {
            if self.is_recorded(&transaction, hold).await {
                recorded = Some(Ending::Recorded(context.job().queue.clone()));
            } else if let Ended::Returned(Outcome::Complete | Outcome::CompleteWith(_)) = ended {
                ended = Ended::Returned(Outcome::Fail("the transaction that completed it was rolled back".into()));
            }
        }
        let how = ended.how();
        let ending = recorded.unwrap_or_else(|| {
            judge(ended, hold, &handler.retry_policy, context.job().failures, context.job().max_attempts)
        });
        quietly(|| log(&ending));
        self.middlewares.ended(&AttemptEnd::of(context.job(), &ending, how, started.elapsed()));
        ending
    }

    /// The handler, or what becomes of a job that is not to begin.
    fn find_handler(&self, job: &ReservedJob, hold: &Hold) -> Result<&Registered, Ending> {
        if hold.cancel_requested() {
            return Err(Ending::Cancelled);
        }
        // It is no longer this worker's, or is to be given back.
        if hold.token.is_cancelled() {
            return Err(released());
        }
        if let Some(error) = &job.undecodable {
            let ending = dead(Reason::Undecodable, error.clone());
            quietly(|| log(&ending));
            return Err(ending);
        }
        self.handlers.get(&job.kind).ok_or_else(|| {
            quietly(|| {
                tracing::warn!(
                    name: "job.no_handler", target: "reveille::job", retry_in = ?NO_HANDLER_DELAY,
                    "no handler for this kind; putting the job back"
                );
            });
            Ending::Waiting { failure: None, delay: NO_HANDLER_DELAY }
        })
    }

    /// Waits for the end of a transaction in which the job was completed; whether it was committed.
    async fn is_recorded(&self, transaction: &str, hold: &Hold) -> bool {
        let mut backoff = Backoff::new("learn whether a job's transaction was committed", &self.comeback);
        let mut delay = UNDER_WAY.0;
        loop {
            match self.driver.is_recorded(transaction, &hold.reservation).await {
                Ok(Some(recorded)) => return recorded,
                Ok(None) => {
                    // Dropped a moment ago, or handed on to somebody who has still to end it.
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(UNDER_WAY.1);
                }
                Err(error) if error.is_unavailable() => backoff.failed(&error).over().await,
                // A server that does not know the transaction, as after a fail-over: the fence will tell.
                Err(error) => {
                    tracing::warn!(
                        name: "job.completion_unknown", target: "reveille::job", %error,
                        "cannot learn whether the job's transaction was committed"
                    );
                    return false;
                }
            }
        }
    }

    async fn call(&self, handler: &Registered, context: &Context, hold: &Hold) -> Ended {
        let timeout = context.timeout();
        let started = std::panic::catch_unwind(AssertUnwindSafe(|| self.middlewares.work(handler, context)));
        let mut handling = match started {
            Ok(handling) => pin!(AssertUnwindSafe(in_handler_of(context.stored_id(), handling)).catch_unwind()),
            Err(panic) => return Ended::Panicked(panic),
        };
        let timeout = tokio::select! {
            biased;
            returned = &mut handling => return returned.map_or_else(Ended::Panicked, Ended::Returned),
            timeout = sleep(timeout) => timeout,
            () = self.give_up.cancelled() => return Ended::GivenUp,
        };
        hold.time_out(timeout);
        tokio::select! {
            biased;
            returned = handling => returned.map_or_else(Ended::Panicked, Ended::Returned),
            _ = sleep(Some(timeout.min(LAST_MOMENT))) => Ended::TimedOut(timeout),
            () = self.give_up.cancelled() => Ended::TimedOut(timeout),
        }
    }
}

/// How a handler came to its end.
enum Ended {
    Returned(Outcome),
    Panicked(Box<dyn Any + Send>),
    TimedOut(Duration),
    GivenUp,
}

impl Ended {
    fn how(&self) -> How {
        match self {
            Ended::Panicked(_) => How::Panicked,
            Ended::Returned(Outcome::Snooze(_)) => How::Snoozed,
            _ => How::Released,
        }
    }
}

/// What becomes of the job.
fn judge(ended: Ended, hold: &Hold, retry_policy: &RetryPolicy, failures: u32, max_attempts: u32) -> Ending {
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
        Ended::Returned(Outcome::CompleteWith(result)) => Ending::Completed(Some(result)),
        Ended::Returned(Outcome::Cancel) => Ending::Cancelled,
        Ended::Returned(Outcome::Dead(error)) => dead(Reason::Permanent, error),
        Ended::Returned(Outcome::Undecodable(error)) => dead(Reason::Undecodable, error),
        Ended::Returned(Outcome::Fail(error)) => match hold.timed_out() {
            Some(timeout) => failed(Reason::TimedOut, format!("{}: {error}", too_long(timeout)), None),
            // The handler was told to stop and did: not its fault.
            None if hold.token.is_cancelled() && !hold.cancel_requested() => released(),
            None => failed(Reason::Failed, error, None),
        },
        Ended::Returned(Outcome::RetryIn(delay, error)) => failed(Reason::Failed, error, Some(delay)),
        Ended::Returned(Outcome::Snooze(_)) if hold.cancel_requested() => Ending::Cancelled,
        Ended::Returned(Outcome::Snooze(delay)) => Ending::Waiting { failure: None, delay },
        Ended::Panicked(panic) => failed(Reason::Failed, panicked(&*panic), None),
        Ended::TimedOut(timeout) => failed(Reason::TimedOut, too_long(timeout), None),
        Ended::GivenUp => released(),
    }
}

fn dead(reason: Reason, error: String) -> Ending {
    Ending::Dead(Failure { reason, error: shorten(error) })
}

fn released() -> Ending {
    Ending::Waiting { failure: None, delay: Duration::ZERO }
}

/// The span of an attempt. Costs nothing when nobody listens.
fn span_of(job: &ReservedJob) -> Span {
    let Reservation { id, worker, attempt, .. } = job.reservation;
    let span = tracing::info_span!(
        target: "reveille::job", "job",
        id, kind = job.kind, queue = job.queue, attempt, worker, trace_id = field::Empty, parent_id = field::Empty
    );
    if !span.is_disabled()
        && let Some(trace) = job.trace()
    {
        span.record("trace_id", trace.trace_id());
        span.record("parent_id", trace.parent_id());
    }
    span
}

/// Results stay out of it, as payloads do.
fn log(ending: &Ending) {
    match ending {
        Ending::Waiting { failure: Some(Failure { reason, error }), delay } => {
            tracing::warn!(
                name: "job.failed", target: "reveille::job", reason = reason.name(), error, retry_in = ?delay, "failed"
            );
        }
        Ending::Dead(Failure { reason, error }) => {
            tracing::error!(name: "job.dead", target: "reveille::job", reason = reason.name(), error, "dead");
        }
        Ending::Waiting { failure: None, delay } => {
            tracing::debug!(name: "job.put_back", target: "reveille::job", due_in = ?delay, "put back");
        }
        Ending::Cancelled => tracing::debug!(name: "job.cancelled", target: "reveille::job", "cancelled"),
        Ending::Completed(_) | Ending::Recorded(_) => {
            tracing::debug!(name: "job.completed", target: "reveille::job", "completed");
        }
    }
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

/// Returns that timeout when it is over.
async fn sleep(timeout: Option<Duration>) -> Duration {
    match timeout {
        Some(timeout) => {
            tokio::time::sleep(timeout).await;
            timeout
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn hold() -> Arc<Hold> {
        Held::default()
            .take(Reservation { id: 1, worker: 1, attempt: 1, reserved_at: SystemTime::UNIX_EPOCH, hint: 0 }, false)
    }

    fn judged(outcome: Outcome, failures: u32) -> Ending {
        judge(Ended::Returned(outcome), &hold(), &RetryPolicy::fixed(Duration::from_secs(9)), failures, 3)
    }

    #[test]
    fn a_failure_is_retried_by_the_policy_until_the_last_attempt() {
        let failure = Failure { reason: Reason::Failed, error: "no".into() };
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
        let failure = Failure { reason: Reason::TimedOut, error };
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
    fn a_result_is_kept_as_it_is() {
        let result = crate::job::payload::Payload::encode(&7).unwrap();
        assert_eq!(judged(Outcome::CompleteWith(result.clone()), 0), Ending::Completed(Some(result)));
    }
}
