//! The seam between the worker and the store that keeps the jobs.

#[cfg(feature = "schedules")]
use std::time::SystemTime;

use futures::future::BoxFuture;

use crate::error::{Error, Result};
use crate::job::{Enqueued, NewJob, Payload, Reservation};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;

mod claimed;
mod enqueue;
mod into_driver;
mod liveness;
mod memory;
mod only_postgres;
pub(crate) mod postgres;
#[cfg(feature = "schedules")]
mod schedules;
mod settlement;
mod signal;

pub use claimed::{ClaimRequest, Claimed};
pub(crate) use claimed::{Mark, Marks, Start};
pub use into_driver::IntoDriver;
pub use liveness::{Beat, Peer, Report, Rescue, Stuck, WorkerInfo};
pub use memory::{Memory, StoredJob};
pub use postgres::Postgres;
#[cfg(feature = "schedules")]
pub use schedules::{DueSchedule, DueSchedules, Firing};
pub use settlement::{Ending, Failure, FailureReason, Settled, Settlement};
pub use signal::{Hints, OnSignal, OpenTransaction, Signal, signals};

/// A store of jobs.
///
/// A worker runs on any store that implements this trait. It is object-safe, and only what every store needs is
/// required: a store that sends no notifications or keeps no schedules leaves those methods as they are. The example
/// `examples/driver` in the repository is a whole store, and the feature `conformance` has the tests that every store
/// passes (`testing::conformance`).
///
/// Only the store's clock decides which jobs are due: a driver takes and returns durations.
///
/// Every method may be called from any task, and again after an error. These errors tell the worker what to do:
///
/// - [`Error::unavailable`]: try again later. The worker does, for as long as it takes.
/// - [`Error::invalid`] from [`settle`](Driver::settle): the store refuses one of the endings. The worker halves the
///   batch until it finds that ending, and records a failure instead.
/// - [`Error::lost`] from [`progress`](Driver::progress): the handler learns that its job is no longer this worker's.
/// - [`Error::denied`], [`Error::schema_missing`] or [`Error::schema_mismatch`] from [`check`](Driver::check): the
///   worker does not start.
/// - [`Error::listen_unsupported`] from [`listen`](Driver::listen): the worker finds new jobs by polling.
pub trait Driver: Send + Sync + 'static {
    /// Checks that this program can work with the store: that the store is reachable, and its schema current.
    fn check(&self) -> BoxFuture<'_, Result<()>>;

    /// Stores jobs, all or none, and signals the workers that sleep on their queues. Returns one answer a job, in
    /// order.
    ///
    /// A store refuses what [`NewJob::check`] refuses, and jobs that it cannot keep as asked.
    fn enqueue<'a>(&'a self, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>;

    /// Registers a worker. From here on the worker can claim, and it is declared dead when its heartbeats stop.
    fn register<'a>(&'a self, worker: &'a WorkerInfo) -> BoxFuture<'a, Result<()>>;

    /// Reserves due jobs of one queue, the most urgent first, and among equals the longest due. Reserves none for a
    /// worker that is not registered, nor from a paused queue.
    ///
    /// A claim that reserves no job tells [when the next one is due](Claimed::due_in).
    fn claim<'a>(&'a self, request: &'a ClaimRequest<'a>) -> BoxFuture<'a, Result<Claimed>>;

    /// Records how attempts ended. Returns what became of each settlement, in order.
    ///
    /// A settlement whose reservation no longer stands, or whose job another session has locked, changes nothing and
    /// does not delay the others.
    fn settle<'a>(&'a self, settlements: &'a [Settlement]) -> BoxFuture<'a, Result<Vec<Settled>>>;

    /// Takes a worker's heartbeat, and answers with what the worker has to know. It is called from a separate runtime.
    fn beat<'a>(&'a self, worker: i64, report: &'a Report) -> BoxFuture<'a, Result<Beat>>;

    /// Declares those of these peers dead that have not beaten since they were seen, and takes back the jobs that no
    /// live worker holds. `worker` is the worker that asks.
    ///
    /// Each such job has failed once more, with the reason [`FailureReason::Lost`].
    fn rescue<'a>(&'a self, worker: i64, dead: &'a [Peer]) -> BoxFuture<'a, Result<Rescue>>;

    /// Puts back, without a failure, the jobs that `worker` has reserved and that are not in `held`. The worker does
    /// not know of them, since the answer to a claim was lost. Returns their ids.
    fn release_strays<'a>(&'a self, worker: i64, held: &'a [i64]) -> BoxFuture<'a, Result<Vec<i64>>>;

    /// Removes a worker that shuts down. Jobs that it still holds are left to a rescue.
    fn leave(&self, worker: i64) -> BoxFuture<'_, Result<()>>;

    /// Stores the progress that a handler has set, if the job's reservation still stands; returns whether it does.
    ///
    /// By default a store keeps no progress: a handler that sets some gets an error.
    fn progress<'a>(&'a self, reservation: &'a Reservation, progress: &'a Payload) -> BoxFuture<'a, Result<bool>> {
        let _ = (reservation, progress);
        Box::pin(async { Err(Error::invalid("this store keeps no progress of jobs")) })
    }

    /// Listens: calls `on_signal` with each signal. Once this returns, no later signal is missed until the returned
    /// future ends with an error or is dropped. While that future lives, the store may take it as proof that the worker
    /// lives.
    ///
    /// By default a store sends no notifications, and workers poll.
    ///
    /// # Errors
    /// [`Error::listen_unsupported`] if signals can never arrive.
    fn listen(&self, worker: i64, on_signal: OnSignal) -> BoxFuture<'_, Result<BoxFuture<'static, Error>>> {
        let _ = (worker, on_signal);
        Box::pin(async { Err(Error::listen_unsupported("this store sends no notifications")) })
    }

    /// Asks for signals about a queue, since a worker is about to sleep on it. Returns the transactions under way that
    /// may still make jobs due without a signal, because they began before.
    ///
    /// By default a store always signals, and has no such transactions.
    fn arm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<Vec<OpenTransaction>>> {
        let _ = (worker, queue);
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Returns which of these transactions are still under way.
    fn still_open<'a>(&'a self, before: &'a [OpenTransaction]) -> BoxFuture<'a, Result<Vec<OpenTransaction>>> {
        let _ = before;
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Ends the signals about a queue, since a worker now looks at it by itself. By default a store always signals.
    fn disarm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<()>> {
        let _ = (worker, queue);
        Box::pin(async { Ok(()) })
    }

    /// Returns which of these hints are true for this worker: the jobs that it holds and that are to be cancelled, the
    /// queues that are paused, and whether it is to shut down.
    ///
    /// By default a store confirms none; the next heartbeat tells the worker. A store that sends such signals should
    /// confirm them.
    fn confirm<'a>(&'a self, worker: i64, hints: &'a Hints) -> BoxFuture<'a, Result<Hints>> {
        let _ = (worker, hints);
        Box::pin(async { Ok(Hints::default()) })
    }

    /// Does the upkeep, such as removing old history, unless another worker is already doing it. Workers call it about
    /// once a minute. By default a store needs none.
    fn prune(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Returns the Postgres driver that this driver is or wraps. A worker then also uses what only Postgres has, such
    /// as low-water marks and [`Context::complete_in`](crate::Context::complete_in).
    fn postgres(&self) -> Option<&Postgres> {
        None
    }

    /// Adds or changes the schedules that a worker declares in its code. A schedule whose timing is the same goes on
    /// from where it was.
    ///
    /// By default a store keeps no schedules, and refuses any.
    #[cfg(feature = "schedules")]
    fn declare<'a>(&'a self, worker: i64, schedules: &'a [Schedule]) -> BoxFuture<'a, Result<()>> {
        let (_, refused) = (worker, !schedules.is_empty());
        Box::pin(async move { if refused { Err(Error::invalid("this store keeps no schedules")) } else { Ok(()) } })
    }

    /// Tells whether the store knows a time zone of this name. A worker asks if its own host does not know it, because
    /// the zone may be missing only there.
    #[cfg(feature = "schedules")]
    fn knows_zone<'a>(&'a self, time_zone: &'a str) -> BoxFuture<'a, Result<bool>> {
        let _ = time_zone;
        Box::pin(async { Ok(false) })
    }

    /// Returns up to `limit` schedules that are due or whose next tick is not computed yet.
    #[cfg(feature = "schedules")]
    fn due_schedules(&self, limit: usize) -> BoxFuture<'_, Result<DueSchedules>> {
        let _ = limit;
        Box::pin(async { Ok(DueSchedules::new(Vec::new(), SystemTime::now())) })
    }

    /// Moves schedules on and enqueues their ticks, both or neither. A schedule that has changed since it was seen is
    /// left alone. Returns how many were moved on.
    #[cfg(feature = "schedules")]
    fn fire<'a>(&'a self, firings: &'a [Firing]) -> BoxFuture<'a, Result<usize>> {
        let _ = firings;
        Box::pin(async { Ok(0) })
    }

    /// Moves one schedule on and enqueues these jobs, one for each of its ticks: both or neither. Returns whether the
    /// schedule was unchanged since it was seen.
    #[cfg(feature = "schedules")]
    fn fire_jobs<'a>(&'a self, firing: &'a Firing, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<bool>> {
        let _ = (firing, jobs);
        Box::pin(async { Err(Error::invalid("this store cannot enqueue a schedule's jobs through middleware")) })
    }
}
