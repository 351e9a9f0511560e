//! Jobs in this process's memory: for tests, and for programs without a database.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::sync::{Notify, mpsc};

use super::{
    Beat, ClaimRequest, Claimed, Driver, Failure, FailureReason, Hints, IntoDriver, OnSignal, Pausing, Peer, Recorded,
    Report, Rescue, Settled, Settlement, Step, WorkerInfo,
};
#[cfg(feature = "schedules")]
use super::{DueSchedules, Firing};
use crate::error::{Error, Result};
use crate::job::{
    Cancelled, Enqueued, Input, JobState, Labels, LinkedJobs, NewJob, Payload, Reservation, Retried, check_event,
};
use crate::queue::{Pause, QueueSettings};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;

mod admin;
mod ends;
mod enqueue_linked;
mod entries;
mod limits;
mod links;
#[cfg(feature = "schedules")]
mod schedules;
mod steps;
mod store;
mod workflows;

use store::Store;
pub use workflows::{StoredMember, StoredWorkflow};

/// A driver that keeps jobs in this process's memory, and loses them when the process ends.
///
/// It behaves as [`Postgres`](super::Postgres) does: both pass the same conformance suite. Clones share their jobs.
/// Completed and cancelled jobs are kept for a day. Dead jobs are kept until they are [retried](Memory::retry) or
/// [purged](Memory::purge). A [workflow](Memory::workflow) is kept for 30 days after its end.
///
/// ```
/// use reveille::job::JobState;
/// use reveille::{driver::Memory, enqueue, Job, Worker};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
/// # impl Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
/// # async fn send_welcome(_: SendWelcome) {}
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> reveille::Result<()> {
/// let memory = Memory::new();
/// let worker = Worker::builder(memory.clone()).handle(send_welcome).build()?;
/// let job = enqueue(&memory, &SendWelcome { user_id: 7 }).await?;
/// worker.run_until_drained().await?;
/// assert_eq!(memory.job(job.id).unwrap().state, JobState::Completed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Memory {
    store: Arc<Mutex<Store>>,
}

/// A job as [`Memory`] keeps it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoredJob {
    /// The id of the job. Ids count from 1.
    pub id: i64,
    /// The job as it was enqueued.
    pub job: NewJob,
    /// The state of the job.
    pub state: JobState,
    /// The number of times the job was reserved.
    pub attempts: u32,
    /// The number of attempts that have failed since the job was enqueued or revived.
    pub failures: u32,
    /// The time at which the job is, or was, due.
    pub available_at: SystemTime,
    /// The time at which the job was enqueued.
    pub created_at: SystemTime,
    /// The result that the handler of a completed job returned.
    pub result: Option<Payload>,
    /// The reason for which the job became a dead job.
    pub reason: Option<FailureReason>,
    /// The last 100 failures of attempts, oldest first.
    pub errors: Vec<Failure>,
    /// The progress that the handler set last.
    pub progress: Option<Payload>,
}

impl Memory {
    /// Returns a store without jobs.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Returns a job; `None` if no job has this id.
    pub fn job(&self, id: i64) -> Option<StoredJob> {
        self.store().job(id)
    }

    /// Returns all jobs, whatever their state, in the order of their ids.
    pub fn jobs(&self) -> Vec<StoredJob> {
        self.store().jobs()
    }

    /// Cancels a job, as `reveille.cancel` does.
    pub fn cancel(&self, id: i64) -> Cancelled {
        self.store().cancel(id)
    }

    /// Makes a job due now, as `reveille.retry` does.
    ///
    /// # Errors
    /// Invalid if the job is dead and a live job of its kind has its unique key.
    pub fn retry(&self, id: i64) -> Result<Retried> {
        self.store().retry(id, false)
    }

    /// Makes a job due now, as [`retry`](Memory::retry) does, even if a job that waited for its death was started.
    ///
    /// # Errors
    /// As in [`retry`](Memory::retry).
    pub fn retry_forced(&self, id: i64) -> Result<Retried> {
        self.store().retry(id, true)
    }

    /// Removes a dead job. Returns whether there was a dead job of this id.
    pub fn purge(&self, id: i64) -> bool {
        self.store().purge(id)
    }

    /// Pauses a queue, a kind or a key, as `Admin::pause` does: these jobs do not start until they are resumed.
    pub fn pause(&self, pause: impl Into<Pause>) {
        self.store().pause(pause.into());
    }

    /// Ends a pause that [`Memory::pause`] began with the same argument.
    pub fn resume(&self, pause: impl Into<Pause>) {
        self.store().resume(&pause.into());
    }

    /// Changes settings of a queue, as `Admin::set_queue` does. Two settings have no effect in memory: the retention is
    /// always a day, and the bell always rings.
    ///
    /// # Errors
    /// Invalid if a setting is out of its range.
    pub fn set_queue(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        settings.columns()?;
        self.store().set_queue(queue, &settings);
        Ok(())
    }

    /// Returns the ids of the registered workers.
    pub fn workers(&self) -> Vec<i64> {
        self.store().workers()
    }

    /// Asks a worker to shut down. Returns whether a worker with this id is registered.
    pub fn stop_worker(&self, id: i64) -> bool {
        self.store().stop_worker(id)
    }

    /// Puts the store's clock forward, so that a test need not wait until delayed jobs are due.
    pub fn advance(&self, by: Duration) {
        self.store().advance(by);
    }

    /// Returns the time until the next waiting job of a queue is due; `None` if no job waits or the queue is paused.
    pub(crate) fn due_in(&self, queue: &str) -> Option<Duration> {
        self.store().due_in(queue)
    }

    /// Returns the `Notify` that is notified each time a job ends.
    pub(crate) fn ends(&self) -> Arc<Notify> {
        Arc::clone(&self.store().ends)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a future that is ready at once, since no method of this store waits.
fn done<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, Result<T>> {
    ready(Ok(answer)).boxed()
}

impl Driver for Memory {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        done(())
    }

    fn enqueue<'a>(&'a self, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        let checked = jobs.iter().try_for_each(|job| job.check(usize::MAX));
        ready(checked.map(|()| self.store().enqueue(jobs))).boxed()
    }

    fn enqueue_linked<'a>(&'a self, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>> {
        ready(self.store().enqueue_linked(jobs)).boxed()
    }

    fn inputs<'a>(&'a self, job: i64, labels: Labels<'a>) -> BoxFuture<'a, Result<Vec<Input>>> {
        done(self.store().inputs(job, labels))
    }

    fn workflow_of(&self, job: i64) -> BoxFuture<'_, Result<Option<(i64, Payload)>>> {
        done(self.store().workflow_of(job))
    }

    fn count_blocked<'a>(&'a self, queues: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        done(self.store().count_blocked(queues))
    }

    fn register<'a>(&'a self, worker: &'a WorkerInfo) -> BoxFuture<'a, Result<()>> {
        self.store().register(worker);
        done(())
    }

    fn claim<'a>(&'a self, request: &'a ClaimRequest<'a>) -> BoxFuture<'a, Result<Claimed>> {
        let mut store = self.store();
        let jobs = store.claim(request);
        let due_in = if jobs.len() < request.limit { store.due_in(request.queue) } else { None };
        done(Claimed::new(jobs).due_in(due_in).limited(store.is_limited(request.queue)))
    }

    fn settle<'a>(&'a self, settlements: &'a [Settlement]) -> BoxFuture<'a, Result<Vec<Settled>>> {
        let mut store = self.store();
        if let Some(refusal) = settlements.iter().find_map(|settlement| store.refusal(settlement)) {
            return ready(Err(refusal)).boxed();
        }
        let settle = |settlement| if store.settle(settlement) { Settled::Counted } else { Settled::Lost };
        done(settlements.iter().map(settle).collect())
    }

    fn beat<'a>(&'a self, worker: i64, report: &'a Report) -> BoxFuture<'a, Result<Beat>> {
        done(self.store().beat(worker, &report.held))
    }

    fn rescue<'a>(&'a self, _worker: i64, dead: &'a [Peer]) -> BoxFuture<'a, Result<Rescue>> {
        done(self.store().rescue(dead))
    }

    fn release_strays<'a>(&'a self, worker: i64, held: &'a [i64]) -> BoxFuture<'a, Result<Vec<i64>>> {
        done(self.store().release_strays(worker, held))
    }

    fn leave(&self, worker: i64) -> BoxFuture<'_, Result<()>> {
        self.store().leave(worker);
        done(())
    }

    fn progress<'a>(&'a self, reservation: &'a Reservation, progress: &'a Payload) -> BoxFuture<'a, Result<bool>> {
        done(self.store().progress(reservation, progress))
    }

    fn steps(&self, job: i64) -> BoxFuture<'_, Result<Vec<(String, Step)>>> {
        done(self.store().steps(job))
    }

    fn record_step<'a>(
        &'a self,
        reservation: &'a Reservation,
        name: &'a str,
        value: &'a Payload,
    ) -> BoxFuture<'a, Result<Option<Recorded>>> {
        done(self.store().record_step(reservation, name, value))
    }

    fn record_wait<'a>(
        &'a self,
        reservation: &'a Reservation,
        name: &'a str,
        pausing: Pausing,
    ) -> BoxFuture<'a, Result<Option<Recorded>>> {
        done(self.store().record_wait(reservation, name, pausing))
    }

    fn run_child<'a>(
        &'a self,
        reservation: &'a Reservation,
        name: &'a str,
        job: &'a NewJob,
    ) -> BoxFuture<'a, Result<Option<Recorded>>> {
        done(self.store().run_child(reservation, name, job))
    }

    fn emit<'a>(&'a self, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>> {
        Box::pin(ready(check_event(event).map(|()| self.store().emit(event, payload))))
    }

    fn listen(&self, _: i64, on_signal: OnSignal) -> BoxFuture<'_, Result<BoxFuture<'static, Error>>> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.store().add_listener(sender);
        let listening = async move {
            while let Some(signal) = receiver.recv().await {
                on_signal(signal);
            }
            Error::unavailable("cannot listen: the store is gone")
        };
        done(listening.boxed())
    }

    fn confirm<'a>(&'a self, worker: i64, hints: &'a Hints) -> BoxFuture<'a, Result<Hints>> {
        done(self.store().confirm(worker, hints))
    }

    fn prune(&self) -> BoxFuture<'_, Result<()>> {
        self.store().prune();
        done(())
    }

    #[cfg(feature = "schedules")]
    fn declare<'a>(&'a self, _: i64, schedules: &'a [Schedule]) -> BoxFuture<'a, Result<()>> {
        self.store().declare(schedules);
        done(())
    }

    #[cfg(feature = "schedules")]
    fn due_schedules(&self, limit: usize) -> BoxFuture<'_, Result<DueSchedules>> {
        done(self.store().due_schedules(limit))
    }

    #[cfg(feature = "schedules")]
    fn fire<'a>(&'a self, firings: &'a [Firing]) -> BoxFuture<'a, Result<usize>> {
        done(self.store().fire(firings))
    }

    #[cfg(feature = "schedules")]
    fn fire_jobs<'a>(&'a self, firing: &'a Firing, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<bool>> {
        done(self.store().fire_jobs(firing, jobs))
    }
}

impl IntoDriver for Memory {
    fn into_driver(self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(self))
    }
}
