//! One attempt at one job: finds the handler, runs the handler, and decides the ending of the job.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field};

use crate::driver::{Driver, Ending, Failure, FailureReason, Settlement};
use crate::enqueue::in_handler_of;
use crate::handler::extract::Context;
use crate::handler::middleware::{AttemptEnd, EndKind, Middlewares};
use crate::handler::states::States;
use crate::handler::{Handlers, Registered};
use crate::job::{Outcome, Reservation, ReservedJob};
use crate::worker::attempt::reservations::{HeldJob, HeldJobs};
use crate::worker::backoff::{Backoff, Reconnected};
use crate::worker::kind_counts::KindCounts;
use crate::worker::parts::{Parts, quietly};

mod judge;
pub(crate) mod reservations;
pub(crate) mod settle;

use judge::{HandlerEnd, dead, judge, unhandled};

/// The delay before the next check whether a transaction has ended. The delay doubles with each check, from 2 ms up to
/// 1 s.
const FIRST_ASK_AGAIN: Duration = Duration::from_millis(2);
const LONGEST_ASK_AGAIN: Duration = Duration::from_secs(1);

/// After its timeout, a handler may clean up for as long as the timeout, 1 s at most. Then the handler is dropped.
const LONGEST_CLEANUP: Duration = Duration::from_secs(1);

/// Makes attempts at jobs.
pub(crate) struct Attempts {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) middlewares: Arc<Middlewares>,
    pub(crate) states: Arc<States>,
    pub(crate) held_jobs: Arc<HeldJobs>,
    pub(crate) kind_counts: Arc<KindCounts>,
    /// True if the jobs are stored. False only in a test that makes one attempt at a job without enqueuing the job.
    pub(crate) is_stored: bool,
    /// The timeout of jobs that set none and whose kind sets none.
    pub(crate) timeout: Option<Duration>,
    /// Cancelled when the worker gives up the handlers that still run.
    pub(crate) give_up: CancellationToken,
    pub(crate) reconnected: Reconnected,
    pub(crate) parts: Parts,
}

impl Attempts {
    pub(crate) fn hold(&self, job: &ReservedJob) -> Arc<HeldJob> {
        self.held_jobs.take(job.reservation, job.cancel_requested)
    }

    /// Makes one attempt and returns the settlement to record. A panic outside the handler and the middlewares ends the
    /// worker, and the job is released.
    pub(crate) async fn make(&self, job: ReservedJob, held: Arc<HeldJob>) -> Settlement {
        let (reservation, waited, started) = (job.reservation, job.waited(), Instant::now());
        let kind_counter = Some(self.kind_counts.of(&job.queue, &job.kind));
        let making = async {
            let span = span_of(&job);
            let begun = std::panic::catch_unwind(AssertUnwindSafe(|| self.middlewares.span(&job, &span)));
            self.run(job, begun, &held).instrument(span).await
        };
        let ending = AssertUnwindSafe(making).catch_unwind().await.unwrap_or_else(|panic| {
            held.end();
            self.parts.broke_by_panic("an attempt", &*panic);
            Ending::Released
        });
        Settlement { reservation, ending, waited, ran: started.elapsed(), kind_counter }
    }

    /// Runs the handler and returns the ending of the job. `begun`: the panic of a middleware, if `Middleware::span`
    /// panicked.
    async fn run(&self, job: ReservedJob, begun: std::thread::Result<()>, held: &HeldJob) -> Ending {
        let started = Instant::now();
        let handler = match self.find_handler(&job, held) {
            Ok(handler) => handler,
            Err(ending) => {
                self.middlewares.ended(&AttemptEnd::of(&job, &ending, EndKind::Released, Duration::ZERO));
                return ending;
            }
        };
        let timeout = job.timeout.or(handler.timeout).or(self.timeout);
        let context = Context::new(
            Arc::clone(&self.driver),
            job,
            self.is_stored,
            timeout,
            held.cancellation.clone(),
            Arc::clone(&self.states),
            Arc::<Middlewares>::clone(&self.middlewares),
        );
        quietly(|| tracing::debug!(name: "job.started", target: "reveille::job", "started"));
        held.begin(timeout);
        let mut ended = match begun {
            Ok(()) => self.call(handler, &context, held).await,
            Err(panic) => HandlerEnd::Panicked(panic),
        };
        held.end();
        context.close_progress().await;
        let mut recorded = None;
        if let Some(transaction) = context.completed_in() {
            if self.is_recorded(&transaction, held).await {
                recorded = Some(Ending::Recorded(context.job().queue.clone()));
            } else if let HandlerEnd::Returned(Outcome::Complete | Outcome::CompleteWith(_)) = ended {
                ended = HandlerEnd::Returned(Outcome::Fail(
                    "the transaction that completed the job was rolled back".into(),
                ));
            }
        }
        let kind = ended.end_kind();
        let ending = recorded.unwrap_or_else(|| {
            judge(ended, held, &handler.retry_policy, context.failures(), context.job().max_attempts)
        });
        quietly(|| log(&ending, held.reservation.id));
        self.middlewares.ended(&AttemptEnd::of(context.job(), &ending, kind, started.elapsed()));
        self.middlewares.store_ending(context.job(), ending)
    }

    /// Returns the handler of the job, or the ending of a job that must not start.
    fn find_handler(&self, job: &ReservedJob, held: &HeldJob) -> Result<&Registered, Ending> {
        if held.cancel_requested() {
            return Err(Ending::Cancelled);
        }
        // This worker has lost the job, or is shutting down.
        if held.cancellation.is_cancelled() {
            return Err(Ending::Released);
        }
        if let Some(error) = &job.undecodable {
            let ending = dead(FailureReason::Undecodable, error.clone());
            quietly(|| log(&ending, held.reservation.id));
            return Err(ending);
        }
        self.handlers.get(&job.kind).ok_or_else(unhandled)
    }

    /// Waits for the end of the transaction in which the job was completed. Returns true if the transaction was
    /// committed.
    async fn is_recorded(&self, transaction: &str, held: &HeldJob) -> bool {
        let mut backoff = Backoff::new("learn whether a job's transaction was committed", &self.reconnected);
        let mut delay = FIRST_ASK_AGAIN;
        loop {
            match self.driver.is_recorded(transaction, &held.reservation).await {
                Ok(Some(recorded)) => return recorded,
                Ok(None) => {
                    // The transaction is still open. The handler has dropped it just now, or another task will end it.
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(LONGEST_ASK_AGAIN);
                }
                Err(error) if error.is_unavailable() => backoff.failed(&error).over().await,
                // The server does not know the transaction, for example after a fail-over. If the transaction was
                // committed, the fence refuses the ending that is settled now.
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

    async fn call(&self, handler: &Registered, context: &Context, held: &HeldJob) -> HandlerEnd {
        let timeout = context.timeout();
        let started = std::panic::catch_unwind(AssertUnwindSafe(|| self.middlewares.work(handler, context)));
        let mut handling = match started {
            Ok(handling) => pin!(AssertUnwindSafe(in_handler_of(context.stored_id(), handling)).catch_unwind()),
            Err(panic) => return HandlerEnd::Panicked(panic),
        };
        let snoozed = |delay| HandlerEnd::Returned(Outcome::Snooze(delay));
        let timeout = tokio::select! {
            biased;
            returned = &mut handling => return returned.map_or_else(HandlerEnd::Panicked, HandlerEnd::Returned),
            delay = context.pausing().begun() => return snoozed(delay),
            timeout = sleep(timeout) => timeout,
            () = self.give_up.cancelled() => return HandlerEnd::GivenUp,
        };
        held.time_out(timeout);
        tokio::select! {
            biased;
            returned = handling => returned.map_or_else(HandlerEnd::Panicked, HandlerEnd::Returned),
            delay = context.pausing().begun() => snoozed(delay),
            _ = sleep(Some(timeout.min(LONGEST_CLEANUP))) => HandlerEnd::TimedOut(timeout),
            () = self.give_up.cancelled() => HandlerEnd::TimedOut(timeout),
        }
    }
}

/// Returns the span of an attempt. The span costs nothing if no subscriber takes it.
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

/// Logs an ending. The log contains no results and no payloads.
fn log(ending: &Ending, id: i64) {
    match ending {
        Ending::Waiting { failure: Some(Failure { reason, error }), delay } => {
            tracing::warn!(
                name: "job.failed", target: "reveille::job", reason = reason.name(), error, retry_in = ?delay, "failed"
            );
        }
        Ending::Dead(failure) => failure.log_death(id),
        Ending::Waiting { failure: None, delay } => {
            tracing::debug!(name: "job.put_back", target: "reveille::job", due_in = ?delay, "snoozed");
        }
        Ending::Released => {
            tracing::debug!(name: "job.put_back", target: "reveille::job", due_in = ?Duration::ZERO, "released");
        }
        Ending::Cancelled => tracing::debug!(name: "job.cancelled", target: "reveille::job", "cancelled"),
        Ending::Completed(_) | Ending::Recorded(_) => {
            tracing::debug!(name: "job.completed", target: "reveille::job", "completed");
        }
    }
}

/// Waits for `timeout` and returns it. Without a timeout, waits for ever.
async fn sleep(timeout: Option<Duration>) -> Duration {
    match timeout {
        Some(timeout) => {
            tokio::time::sleep(timeout).await;
            timeout
        }
        None => std::future::pending().await,
    }
}
