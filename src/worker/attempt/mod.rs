//! One attempt at one job: decode, run, and judge how it ended.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field};

use crate::driver::{Driver, Ending, Failure, FailureReason, Settlement};
use crate::enqueue::in_handler_of;
use crate::handler::extract::{Context, States};
use crate::handler::middleware::{AttemptEnd, EndKind, Middlewares};
use crate::handler::{Handlers, Registered};
use crate::job::{Outcome, Reservation, ReservedJob};
use crate::worker::attempt::reservations::{Held, Hold};
use crate::worker::backoff::{Backoff, Comeback};
use crate::worker::parts::{Parts, quietly};

mod judge;
pub(crate) mod reservations;
pub(crate) mod settle;

use judge::{Ended, dead, judge, released};

/// How long a job waits that nobody here has a handler for: another worker may, or a deploy may be under way.
const NO_HANDLER_DELAY: Duration = Duration::from_secs(10);

/// How soon to ask again whether a transaction has ended: at first, and at most.
const UNDER_WAY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));

/// How long a handler that was told to stop at its timeout has to clean up before it is dropped: as long as its
/// timeout, and at most this.
const LAST_MOMENT: Duration = Duration::from_secs(1);

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

    /// Makes one; returns how it is to be recorded. A panic of anything but its handler and middlewares breaks the
    /// worker, and the job goes back.
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
            let ending = dead(FailureReason::Undecodable, error.clone());
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
