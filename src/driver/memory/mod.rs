//! Jobs in this process's memory: for tests, and for programs that have no database.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::sync::{Notify, mpsc};

use super::{
    Beat, Claimed, Driver, Failure, Hear, Hints, IntoDriver, Marks, Peer, Reason, Report, Rescue, Settled, Settlement,
    Silent, Start, WorkerInfo,
};
#[cfg(feature = "schedules")]
use super::{DueSchedules, Firing};
use crate::database::enqueue_on::EnqueueOn;
use crate::error::{Error, Result};
use crate::job::{Enqueued, JobState, NewJob, Payload, Reservation};
use crate::queue::QueueSettings;
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;

mod asked;
mod kept;
mod limits;
#[cfg(feature = "schedules")]
mod schedules;
mod store;

use store::Store;

/// A driver that keeps jobs in this process's memory, and loses them with it.
///
/// Behaves as [`Postgres`](super::Postgres) does: one suite of tests runs against both. Clones share their jobs.
/// Completed and cancelled jobs are kept for a day, dead ones until they are [retried](Memory::retry) or
/// [purged](Memory::purge).
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
    /// Its id, from 1.
    pub id: i64,
    /// As it was enqueued.
    pub job: NewJob,
    /// Where it stands.
    pub state: JobState,
    /// The result that its handler returned, if it is completed and there is one.
    pub result: Option<Payload>,
    /// Why it is dead, if it is.
    pub reason: Option<Reason>,
    /// How often it has been reserved.
    pub attempts: u32,
    /// How many attempts have failed.
    pub failures: u32,
    /// When it is, or was, due.
    pub available_at: SystemTime,
    /// When it was enqueued.
    pub created_at: SystemTime,
    /// Why attempts failed, the last hundred, oldest first.
    pub errors: Vec<Failure>,
    /// What its handler last said of its progress.
    pub progress: Option<Payload>,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// What is known of a job; `None` if nothing is.
    pub fn job(&self, id: i64) -> Option<StoredJob> {
        self.store().job(id)
    }

    /// All jobs, whatever their state, in the order of their ids.
    pub fn jobs(&self) -> Vec<StoredJob> {
        self.store().jobs()
    }

    /// Cancel a job: `cancelled`, `requested`, `finished`, `dead` or `unknown`, as `reveille.cancel` says.
    pub fn cancel(&self, id: i64) -> &'static str {
        self.store().cancel(id)
    }

    /// Make a job due now: `due`, `revived`, `running`, `finished` or `unknown`, as `reveille.retry` says.
    ///
    /// # Errors
    /// Invalid if it is dead and a live job of its kind has its unique key.
    pub fn retry(&self, id: i64) -> Result<&'static str> {
        self.store().retry(id)
    }

    /// Forget a dead job; whether there was such a one.
    pub fn purge(&self, id: i64) -> bool {
        self.store().purge(id)
    }

    /// Start no more jobs of this queue until it is resumed.
    pub fn pause(&self, queue: &str) {
        self.store().pause(queue);
    }

    /// Start jobs of this queue again.
    pub fn resume(&self, queue: &str) {
        self.store().resume(queue);
    }

    /// Change settings of a queue: what `Admin::set_queue` does, but for its retention, which is
    /// always a day here, and its bell, which always rings.
    ///
    /// # Errors
    /// Invalid for a setting that is out of its range.
    pub fn set_queue(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        settings.columns()?;
        self.store().set_queue(queue, &settings);
        Ok(())
    }

    /// The ids of the workers that are here.
    pub fn workers(&self) -> Vec<i64> {
        self.store().workers()
    }

    /// Ask a worker to shut down as it does at a signal; whether there is such a one.
    pub fn stop_worker(&self, id: i64) -> bool {
        self.store().stop_worker(id)
    }

    /// Put the clock forward, by which jobs are due: what waits for an hour need not be waited for.
    pub fn advance(&self, by: Duration) {
        self.store().advance(by);
    }

    /// In how long the next job of a queue is due that waits there; `None` if none does, or the queue is paused.
    pub(crate) fn due_in(&self, queue: &str) -> Option<Duration> {
        self.store().due_in(queue)
    }

    /// Notified at each end of a job.
    pub(crate) fn ends(&self) -> Arc<Notify> {
        Arc::clone(&self.store().ends)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything is done before the future is made: nothing here waits.
fn done<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, Result<T>> {
    ready(Ok(answer)).boxed()
}

impl Driver for Memory {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        done(())
    }

    fn enqueue<'a>(&'a self, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        let checked = jobs.iter().try_for_each(|job| job.check(usize::MAX));
        let enqueued = checked.map(|()| self.store().enqueue(jobs));
        Box::pin(std::future::ready(enqueued))
    }

    fn register<'a>(&'a self, worker: &'a WorkerInfo) -> BoxFuture<'a, Result<()>> {
        self.store().register(worker);
        done(())
    }

    fn heads<'a>(&'a self, _: &'a str, _: Marks) -> BoxFuture<'a, Result<Marks>> {
        done(Marks::default())
    }

    fn claim<'a>(&'a self, worker: i64, queue: &'a str, limit: usize, _: Start) -> BoxFuture<'a, Result<Claimed>> {
        let mut store = self.store();
        let jobs = store.claim(worker, queue, limit);
        let due_in = if jobs.len() < limit { store.due_in(queue) } else { None };
        done(Claimed { jobs, due_in, limited: store.is_limited(queue), ..Claimed::default() })
    }

    /// Whoever listens is told of everything, and nothing is under way between two calls.
    fn arm<'a>(&'a self, _: i64, _: &'a str) -> BoxFuture<'a, Result<Vec<Silent>>> {
        done(Vec::new())
    }

    fn still_silent<'a>(&'a self, _: &'a [Silent]) -> BoxFuture<'a, Result<Vec<Silent>>> {
        done(Vec::new())
    }

    fn disarm<'a>(&'a self, _: i64, _: &'a str) -> BoxFuture<'a, Result<()>> {
        done(())
    }

    fn progress<'a>(&'a self, reservation: &'a Reservation, progress: &'a Payload) -> BoxFuture<'a, Result<bool>> {
        done(self.store().progress(reservation, progress))
    }

    fn settle<'a>(&'a self, settlements: &'a [Settlement]) -> BoxFuture<'a, Result<Vec<Settled>>> {
        let mut store = self.store();
        done(
            settlements
                .iter()
                .map(|settlement| if store.settle(settlement) { Settled::Counted } else { Settled::Lost })
                .collect(),
        )
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

    fn listen(&self, _: i64, hear: Hear) -> BoxFuture<'_, Result<BoxFuture<'static, Error>>> {
        let (teller, mut inbox) = mpsc::unbounded_channel();
        self.store().tell(teller);
        let hearing = async move {
            while let Some(signal) = inbox.recv().await {
                hear(signal);
            }
            Error::unavailable("listen: the store is gone")
        };
        done(hearing.boxed())
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

impl EnqueueOn for &Memory {
    fn insert<'a>(self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
    where
        Self: 'a,
    {
        Driver::enqueue(self, jobs)
    }
}

impl IntoDriver for Memory {
    fn into_driver(self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(self))
    }
}
