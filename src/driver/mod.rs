//! The interface between a worker and the store that keeps its jobs.
//!
//! ```no_run
//! # async fn example(database: reveille::Database) -> reveille::Result<()> {
//! use reveille::{Worker, driver::{Memory, Postgres}};
//!
//! // A database is a driver; `Postgres` has settings for it; `Memory` needs no server.
//! let worker = Worker::builder(Postgres::new(database)?.durable(true)?);
//! let in_a_test = Worker::builder(Memory::new());
//! # drop((worker, in_a_test));
//! # Ok(())
//! # }
//! ```
//!
//! You can write a driver for another store: implement [`Driver`], and run the tests of
//! `testing::conformance` (feature `conformance`) on it. `examples/driver/` in the repository does so.

#[cfg(feature = "schedules")]
use std::time::SystemTime;

use futures::future::BoxFuture;

use crate::error::{Error, Result};
use crate::job::{Enqueued, Input, Labels, LinkedJobs, NewJob, Payload, Reservation};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;

mod claimed;
mod enqueue;
mod into_driver;
mod kind_count;
mod liveness;
mod memory;
mod only_postgres;
pub(crate) mod postgres;
#[cfg(feature = "schedules")]
mod schedules;
mod settlement;
mod signal;
mod steps;

pub use claimed::{ClaimRequest, Claimed};
pub(crate) use claimed::{Mark, Marks, Start};
pub use into_driver::IntoDriver;
pub(crate) use kind_count::{BOUNDS, KindCounter, NamedCount};
pub use liveness::{Beat, Peer, Report, Rescue, Stuck, WorkerInfo};
pub use memory::{Memory, StoredJob, StoredMember, StoredWorkflow};
pub use postgres::Postgres;
#[cfg(feature = "schedules")]
pub use schedules::{DueSchedule, DueSchedules, Firing};
pub use settlement::{Ending, Failure, FailureReason, Settled, Settlement};
pub use signal::{Hints, OnSignal, OpenTransaction, Signal, signals};
pub use steps::{Pausing, Recorded, SleepState, Step, WaitState};

/// A store of jobs.
///
/// A worker runs on any store that implements this trait. The trait is object-safe. It requires only the methods that
/// every store needs: a store that sends no notifications or keeps no schedules does not implement the methods for
/// these. The example `examples/driver` in the repository is a whole store. The feature `conformance` has the tests
/// that every store passes (`testing::conformance`).
///
/// A driver takes and returns the time until a job is due as a duration, because only the store's clock decides which
/// jobs are due, and the worker's clock may differ.
///
/// Every method may be called from any task, and again after an error. A worker reacts to these errors:
///
/// - [`Error::unavailable`]: the worker tries again later, until the store answers.
/// - [`Error::invalid`] from [`settle`](Driver::settle): the store refuses one of the endings. The worker halves the
///   batch until it finds the refused ending. Then it records a failed attempt in place of that ending.
/// - [`Error::lost`] from [`progress`](Driver::progress): the handler learns that its worker no longer holds the job.
/// - [`Error::denied`], [`Error::schema_missing`] or [`Error::schema_mismatch`] from [`check`](Driver::check): the
///   worker does not start.
/// - [`Error::listen_unsupported`] from [`listen`](Driver::listen): the worker finds new jobs by polling.
pub trait Driver: Send + Sync + 'static {
    /// Checks that this program can work with the store: the store is reachable, and its schema is current.
    fn check(&self) -> BoxFuture<'_, Result<()>>;

    /// Stores jobs, all or none, and signals the workers that sleep on the queues of the jobs. Returns one answer per
    /// job, in the order of the jobs.
    ///
    /// A store refuses the jobs that [`NewJob::check`] refuses, and the jobs that it cannot keep as asked.
    fn enqueue<'a>(&'a self, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>;

    /// Stores linked jobs, all or none: a workflow, jobs that are added to a workflow, or a job that waits for others.
    /// Returns the id of the workflow or of the job. `existed` is true if a workflow of the name and the unique key has
    /// not ended; then nothing is stored.
    ///
    /// A store refuses what [`LinkedJobs::check`] refuses. A job that waits for others is blocked: no claim reserves
    /// it. Once a job has ended, in whatever way, the store starts or skips the jobs that waited for it. An end is a
    /// completion, a death, a cancellation or a purge. If a dead job is revived, the jobs that it holds up wait for its
    /// next end. A store does this when it records the end; only the driver for Postgres leaves it to its workers.
    ///
    /// By default a store has no linked jobs, and refuses them.
    fn enqueue_linked<'a>(&'a self, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>> {
        let _ = jobs;
        Box::pin(async { Err(no_workflows()) })
    }

    /// Returns inputs of a job: the outcomes and results of the jobs that it has waited for, in the order of their
    /// labels. The label of a job is its name in the workflow, or outside of workflows its id.
    fn inputs<'a>(&'a self, job: i64, labels: Labels<'a>) -> BoxFuture<'a, Result<Vec<Input>>> {
        let _ = (job, labels);
        Box::pin(async { Err(no_workflows()) })
    }

    /// Returns the id and the input of the workflow that a job belongs to; `None` if it belongs to none.
    fn workflow_of(&self, job: i64) -> BoxFuture<'_, Result<Option<(i64, Payload)>>> {
        let _ = job;
        Box::pin(async { Err(no_workflows()) })
    }

    /// Returns the number of blocked jobs of these queues. By default a store has none.
    fn count_blocked<'a>(&'a self, queues: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        let _ = queues;
        Box::pin(async { Ok(0) })
    }

    /// Registers a worker. From here on, the worker can claim jobs, and it is declared dead when its heartbeats stop.
    fn register<'a>(&'a self, worker: &'a WorkerInfo) -> BoxFuture<'a, Result<()>>;

    /// Reserves due jobs of one queue: the most urgent first, and within a level the longest due first. Reserves no job
    /// for a worker that is not registered, and none from a paused queue.
    ///
    /// The answer to a claim that reserves no job has [the time until the next job is due](Claimed::due_in).
    fn claim<'a>(&'a self, request: &'a ClaimRequest<'a>) -> BoxFuture<'a, Result<Claimed>>;

    /// Records how attempts ended. Returns the fate of each settlement, in the order of the settlements.
    ///
    /// A settlement changes nothing if its reservation no longer stands or another session has locked its job. A
    /// settlement that changes nothing does not delay the others.
    fn settle<'a>(&'a self, settlements: &'a [Settlement]) -> BoxFuture<'a, Result<Vec<Settled>>>;

    /// Records a worker's heartbeat, and answers with the worker's current state. It is called from a separate runtime.
    fn beat<'a>(&'a self, worker: i64, report: &'a Report) -> BoxFuture<'a, Result<Beat>>;

    /// Declares dead each of these peers that has sent no heartbeat since its `last_seen_at`. Takes back the jobs that
    /// no live worker holds: each of them has failed once more, with the reason [`FailureReason::Lost`].
    ///
    /// `worker` is the worker that calls this.
    fn rescue<'a>(&'a self, worker: i64, dead: &'a [Peer]) -> BoxFuture<'a, Result<Rescue>>;

    /// Releases the strays of a worker: the jobs that `worker` has reserved and that are not in `held`. The worker does
    /// not know of these reservations, because the answer to a claim was lost. Returns the ids of the strays.
    fn release_strays<'a>(&'a self, worker: i64, held: &'a [i64]) -> BoxFuture<'a, Result<Vec<i64>>>;

    /// Removes a worker that shuts down. If the worker still holds jobs, a later rescue takes them back.
    fn leave(&self, worker: i64) -> BoxFuture<'_, Result<()>>;

    /// Stores the progress that a handler has set, if the job's reservation still stands. Returns whether the
    /// reservation stands.
    ///
    /// By default a store keeps no progress: a handler that sets its progress gets an error.
    fn progress<'a>(&'a self, reservation: &'a Reservation, progress: &'a Payload) -> BoxFuture<'a, Result<bool>> {
        let _ = (reservation, progress);
        Box::pin(async { Err(Error::invalid("this store does not record the progress of jobs")) })
    }

    /// Returns the recorded steps of a job, by their names.
    ///
    /// By default a store keeps no steps: a handler that uses them gets an error.
    fn steps(&self, job: i64) -> BoxFuture<'_, Result<Vec<(String, Step)>>> {
        let _ = job;
        Box::pin(async { Err(no_steps()) })
    }

    /// Records the value of a step, if the job's reservation still stands. No rescue comes between the check and the
    /// record, and the record survives a crash of the store. Returns `None` if the reservation does not stand.
    ///
    /// A step of this name that is recorded already stays as it is. A new step sets the job's failures to 0. The steps
    /// are kept until the job is completed, cancelled or purged.
    fn record_step<'a>(
        &'a self,
        reservation: &'a Reservation,
        name: &'a str,
        value: &'a Payload,
    ) -> BoxFuture<'a, Result<Option<Recorded>>> {
        let _ = (reservation, name, value);
        Box::pin(async { Err(no_steps()) })
    }

    /// Begins a sleep or a wait for an event, or goes on with the one of this name. Records its outcome once it is
    /// over. In all else like [`record_step`](Driver::record_step).
    ///
    /// The worker snoozes a job that goes on waiting. From this snooze on, the event makes the job due at once.
    fn record_wait<'a>(
        &'a self,
        reservation: &'a Reservation,
        name: &'a str,
        pausing: Pausing,
    ) -> BoxFuture<'a, Result<Option<Recorded>>> {
        let _ = (reservation, name, pausing);
        Box::pin(async { Err(no_steps()) })
    }

    /// Enqueues a job and records its id as the value of a step, both or none. Once that job has ended, the store emits
    /// the event `reveille:end:ID`, with a JSON object that has its `outcome` (`completed`, `dead` or `cancelled`), its
    /// `result` and its last `error`. In all else like [`record_step`](Driver::record_step): if the step is recorded
    /// already, no job is enqueued.
    fn run_child<'a>(
        &'a self,
        reservation: &'a Reservation,
        name: &'a str,
        job: &'a NewJob,
    ) -> BoxFuture<'a, Result<Option<Recorded>>> {
        let _ = (reservation, name, job);
        Box::pin(async { Err(no_steps()) })
    }

    /// Emits an event. Returns false, and changes nothing, if the store has an event of this name. Refuses a name that
    /// begins with `reveille:`, since only the store itself emits such events.
    fn emit<'a>(&'a self, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>> {
        let _ = (event, payload);
        Box::pin(async { Err(Error::invalid("this store keeps no events")) })
    }

    /// Listens: calls `on_signal` with each signal. Every signal that is sent after this method has returned arrives,
    /// until the returned future ends with an error or is dropped. While that future lives, the store may conclude that
    /// the worker lives.
    ///
    /// By default a store sends no notifications, and workers poll.
    ///
    /// # Errors
    /// [`Error::listen_unsupported`] if signals can never arrive.
    fn listen(&self, worker: i64, on_signal: OnSignal) -> BoxFuture<'_, Result<BoxFuture<'static, Error>>> {
        let _ = (worker, on_signal);
        Box::pin(async { Err(Error::listen_unsupported("this store sends no notifications")) })
    }

    /// Arms the bell: asks for signals about a queue, because the worker is about to sleep on it. Returns the open
    /// transactions that began before the bell was armed, and so may still make jobs due without a signal.
    ///
    /// By default a store always signals, so there are no such transactions.
    fn arm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<Vec<OpenTransaction>>> {
        let _ = (worker, queue);
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Returns the transactions in `before` that are still open.
    fn still_open<'a>(&'a self, before: &'a [OpenTransaction]) -> BoxFuture<'a, Result<Vec<OpenTransaction>>> {
        let _ = before;
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Disarms the bell: ends the signals about a queue, since the worker is awake there. By default a store always
    /// signals.
    fn disarm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<()>> {
        let _ = (worker, queue);
        Box::pin(async { Ok(()) })
    }

    /// Returns the hints that are true for this worker: the jobs of the worker that are to be cancelled, the queues
    /// that are paused, and whether the worker is to shut down.
    ///
    /// By default a store confirms no hint; the worker learns of the change at its next heartbeat. A store that sends
    /// signals to cancel, pause or stop should confirm their hints.
    fn confirm<'a>(&'a self, worker: i64, hints: &'a Hints) -> BoxFuture<'a, Result<Hints>> {
        let _ = (worker, hints);
        Box::pin(async { Ok(Hints::default()) })
    }

    /// Does the upkeep, such as removing old history, unless another worker is already doing it. Workers call this
    /// about once a minute. By default a store needs no upkeep.
    fn prune(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Returns the Postgres driver that this driver is or wraps. A worker on such a driver also uses the features that
    /// only Postgres has, such as low-water marks and [`Context::complete_in`](crate::Context::complete_in).
    fn postgres(&self) -> Option<&Postgres> {
        None
    }

    /// Adds or changes the schedules that a worker declares in its code. A schedule whose timing is unchanged continues
    /// from its last tick.
    ///
    /// By default a store keeps no schedules, and refuses to declare one.
    #[cfg(feature = "schedules")]
    fn declare<'a>(&'a self, worker: i64, schedules: &'a [Schedule]) -> BoxFuture<'a, Result<()>> {
        let (_, refused) = (worker, !schedules.is_empty());
        Box::pin(
            async move { if refused { Err(Error::invalid("this store does not support schedules")) } else { Ok(()) } },
        )
    }

    /// Returns whether the store knows a time zone of this name. A worker asks the store if the worker's host does not
    /// know the time zone, because the zone may be missing only on that host.
    #[cfg(feature = "schedules")]
    fn knows_zone<'a>(&'a self, time_zone: &'a str) -> BoxFuture<'a, Result<bool>> {
        let _ = time_zone;
        Box::pin(async { Ok(false) })
    }

    /// Returns up to `limit` schedules whose next tick is due or not computed yet.
    #[cfg(feature = "schedules")]
    fn due_schedules(&self, limit: usize) -> BoxFuture<'_, Result<DueSchedules>> {
        let _ = limit;
        Box::pin(async { Ok(DueSchedules::new(Vec::new(), SystemTime::now())) })
    }

    /// Fires schedules: moves each schedule to its next tick and enqueues the due ticks, both or neither. Skips a
    /// schedule that has changed since it was read. Returns the number of schedules that were fired.
    #[cfg(feature = "schedules")]
    fn fire<'a>(&'a self, firings: &'a [Firing]) -> BoxFuture<'a, Result<usize>> {
        let _ = firings;
        Box::pin(async { Ok(0) })
    }

    /// Fires one schedule: moves it to its next tick and enqueues these jobs, one for each due tick, both or neither.
    /// Returns false, and fires nothing, if the schedule has changed since it was read.
    #[cfg(feature = "schedules")]
    fn fire_jobs<'a>(&'a self, firing: &'a Firing, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<bool>> {
        let _ = (firing, jobs);
        Box::pin(async { Err(Error::invalid("this store cannot enqueue a schedule's jobs through middleware")) })
    }
}

fn no_steps() -> Error {
    Error::invalid("this store keeps no steps, sleeps or waits of jobs")
}

fn no_workflows() -> Error {
    Error::invalid("this store has no workflows, and no jobs that wait for others")
}
