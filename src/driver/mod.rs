//! The one seam between the worker and where jobs are stored.

use std::time::Duration;
#[cfg(feature = "schedules")]
use std::time::SystemTime;

use futures::future::BoxFuture;

use crate::error::{Error, Result};
use crate::job::{Enqueued, NewJob, Payload, Reservation};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;

mod claimed;
mod into_driver;
mod liveness;
mod memory;
pub(crate) mod postgres;
#[cfg(feature = "schedules")]
mod schedules;
mod settlement;
mod signal;

pub use claimed::{Claimed, Mark, Marks, Start};
pub use into_driver::IntoDriver;
pub use liveness::{Beat, Peer, Report, Rescue, Stuck, WorkerInfo};
pub use memory::{Memory, StoredJob};
pub use postgres::Postgres;
#[cfg(feature = "schedules")]
pub use schedules::{DueSchedule, DueSchedules, Firing};
pub use settlement::{Ending, Failure, Reason, Settled, Settlement};
pub use signal::{Hear, Hints, Signal, Silent, signals};

/// A store of jobs.
///
/// Small and object-safe, so that the worker does not know which one it runs on. One conformance suite holds all
/// drivers to the same behaviour. Only the store's clock decides what is due; a driver takes and returns durations.
///
/// Every method may be called from any task, and again after an error; an error that
/// [is unavailable](crate::Error::is_unavailable) means that trying again later may help.
pub trait Driver: Send + Sync + 'static {
    /// Check that the store can be worked with by this program: reachable, and its schema current.
    fn check(&self) -> BoxFuture<'_, Result<()>>;

    /// Store jobs, all or none, and wake who waits for them. Returns one answer a job, in order.
    fn enqueue<'a>(&'a self, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>;

    /// The schema of the store's tables; default `reveille`. A handler's enqueuer uses it on clients and transactions.
    fn schema(&self) -> &str {
        "reveille"
    }

    /// Introduce a worker. It can claim from here on, and is held for dead when its beats stop.
    fn register<'a>(&'a self, worker: &'a WorkerInfo) -> BoxFuture<'a, Result<()>>;

    /// Reserve up to `limit` due jobs of a queue, most urgent first. Nothing for a worker that is not registered, or
    /// from a paused queue. A claim that brings nothing tells when the next job is due.
    fn claim<'a>(&'a self, worker: i64, queue: &'a str, limit: usize, from: Start) -> BoxFuture<'a, Result<Claimed>>;

    /// Where the jobs of a queue that are due and not reserved begin, at or above the marks; `None` for a level that
    /// has none. A driver that has no use for marks says `None` for all.
    fn heads<'a>(&'a self, queue: &'a str, from: Marks) -> BoxFuture<'a, Result<Marks>>;

    /// A worker is about to sleep on a queue: signal it from here on. Returns who may still make work possible without
    /// a signal, having begun before.
    fn arm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<Vec<Silent>>>;

    /// Which of these may still make work possible without a signal.
    fn still_silent<'a>(&'a self, silent: &'a [Silent]) -> BoxFuture<'a, Result<Vec<Silent>>>;

    /// A worker looks at a queue by itself and needs no signal.
    fn disarm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Whether those who signal wait for each other to do so. A worker asks now and then while signals bring it work,
    /// and stays awake if they do; it looks by itself then, so that nobody need signal it. A store where nobody ever
    /// waits says no.
    fn signals_wait(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async { Ok(false) })
    }

    /// Complete a job in the caller's transaction, if its reservation still stands. Returns the transaction's id;
    /// `None` if it does not. A driver that does not store jobs in Postgres cannot.
    fn complete_in<'a>(
        &'a self,
        transaction: &'a tokio_postgres::Transaction<'_>,
        reservation: &'a Reservation,
        ran: Duration,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        let _ = (transaction, reservation, ran);
        let refusal = "a job can only be completed in a transaction of the database that it is stored in";
        Box::pin(async move { Err(Error::invalid(refusal)) })
    }

    /// Whether it is completed: `None` while that transaction is under way; false if it was rolled back.
    fn is_recorded<'a>(
        &'a self,
        transaction: &'a str,
        reservation: &'a Reservation,
    ) -> BoxFuture<'a, Result<Option<bool>>> {
        let _ = (transaction, reservation);
        Box::pin(async { Ok(Some(false)) })
    }

    /// Keep what a handler says of its progress, if its reservation still stands; whether it does.
    fn progress<'a>(&'a self, reservation: &'a Reservation, progress: &'a Payload) -> BoxFuture<'a, Result<bool>>;

    /// Record how attempts ended. Returns what became of each, in order. One whose reservation no longer stands, or
    /// whose job others have locked, changes nothing, and keeps none of the others waiting.
    fn settle<'a>(&'a self, settlements: &'a [Settlement]) -> BoxFuture<'a, Result<Vec<Settled>>>;

    /// Say that a worker lives, and hear what it has to know. Called from a runtime of its own.
    fn beat<'a>(&'a self, worker: i64, report: &'a Report) -> BoxFuture<'a, Result<Beat>>;

    /// Declare peers dead that have not beaten since they were watched, and put back what no live worker holds.
    /// `worker` is who asks.
    fn rescue<'a>(&'a self, worker: i64, dead: &'a [Peer]) -> BoxFuture<'a, Result<Rescue>>;

    /// Put back what is reserved by `worker` but not in `held`, without a failure: the answer to a claim was lost.
    /// Returns the jobs put back.
    fn release_strays<'a>(&'a self, worker: i64, held: &'a [i64]) -> BoxFuture<'a, Result<Vec<i64>>>;

    /// Get ready what many jobs at once would otherwise wait for, such as connections, unless that was done. A worker
    /// asks for it whenever it goes to sleep, and does without if it fails. A driver need not.
    fn warm_up(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Take a worker's leave. What it still holds is up for rescue.
    fn leave(&self, worker: i64) -> BoxFuture<'_, Result<()>>;

    /// Listen: `hear` is called with each signal. Once this returns, no later signal is missed, until the future that
    /// it returns has an error or is dropped. As long as that lives, it may vouch for that worker's being alive. The
    /// error is a deaf one where signals can never come.
    fn listen(&self, worker: i64, hear: Hear) -> BoxFuture<'_, Result<BoxFuture<'static, Error>>>;

    /// Which of these hints the store confirms for this worker: the jobs that it holds and that are to be cancelled,
    /// the queues that are paused, and whether it is to shut down.
    fn confirm<'a>(&'a self, worker: i64, hints: &'a Hints) -> BoxFuture<'a, Result<Hints>>;

    /// Do the upkeep of the history, if no other worker is at it.
    fn prune(&self) -> BoxFuture<'_, Result<()>>;

    /// Reclaim what many jobs have left behind, if that is due; a worker asks every few seconds. A store that has
    /// nothing to reclaim does nothing.
    fn vacuum(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// A worker declares the schedules of its code: they are added or changed, and go on as they did where the timing
    /// is the same. A driver that keeps no schedules refuses.
    #[cfg(feature = "schedules")]
    fn declare<'a>(&'a self, worker: i64, schedules: &'a [Schedule]) -> BoxFuture<'a, Result<()>> {
        let (_, refused) = (worker, !schedules.is_empty());
        Box::pin(
            async move { if refused { Err(Error::invalid("this store of jobs keeps no schedules")) } else { Ok(()) } },
        )
    }

    /// Whether the store knows a time zone of this name. A worker asks when its own host does not: the zone may be
    /// missing there alone.
    #[cfg(feature = "schedules")]
    fn knows_zone<'a>(&'a self, time_zone: &'a str) -> BoxFuture<'a, Result<bool>> {
        let _ = time_zone;
        Box::pin(async { Ok(false) })
    }

    /// Up to `limit` schedules that are due, or whose next tick has yet to be reckoned.
    #[cfg(feature = "schedules")]
    fn due_schedules(&self, limit: usize) -> BoxFuture<'_, Result<DueSchedules>> {
        let _ = limit;
        let none = DueSchedules { schedules: Vec::new(), due_in: None, looked_at: SystemTime::now() };
        Box::pin(async { Ok(none) })
    }

    /// Move schedules on and enqueue their ticks, both or neither; one that is not as it was seen is left alone.
    /// Returns how many were moved on.
    #[cfg(feature = "schedules")]
    fn fire<'a>(&'a self, firings: &'a [Firing]) -> BoxFuture<'a, Result<usize>> {
        let _ = firings;
        Box::pin(async { Ok(0) })
    }

    /// Move one schedule on and enqueue these jobs, one for each of its ticks: both or neither. Whether it stood as it
    /// was seen.
    #[cfg(feature = "schedules")]
    fn fire_jobs<'a>(&'a self, firing: &'a Firing, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<bool>> {
        let _ = (firing, jobs);
        Box::pin(async { Err(Error::invalid("this store cannot enqueue a schedule's jobs through middleware")) })
    }
}
