//! Runs jobs in the caller's task, until no due job is left.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::database::enqueue_on::EnqueueOn;
use crate::driver::{ClaimRequest, Driver, Ending, Settlement, WorkerInfo};
use crate::error::Result;
use crate::handler::Gathers;
use crate::job::{Enqueued, LinkedJobs, NewJob, Payload, Reservation, ReservedJob};
use crate::worker::Worker;
use crate::worker::heartbeat::Heartbeat;
use crate::worker::identity::random_id;
use crate::worker::shared::Shared;

/// The delay before the next try to settle a job that another session has locked.
const RETRY_LOCKED_AFTER: Duration = Duration::from_millis(50);

/// The number of attempts that were made, by their endings, and of blocked jobs that are left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobsRun {
    /// The number of attempts that completed their job.
    pub completed: u64,
    /// The number of attempts after which the job was cancelled.
    pub cancelled: u64,
    /// The number of attempts that failed and after which the job will be retried.
    pub failed: u64,
    /// The number of attempts that neither failed nor ended the job: the job was snoozed or released, or its kind has
    /// no handler.
    pub put_back: u64,
    /// The number of attempts after which the job is dead.
    pub dead: u64,
    /// The number of blocked jobs that are left in the worker's queues. They are no attempts: blocked jobs still wait
    /// for others, which are dead, delayed, or in another queue.
    pub blocked: u64,
}

/// A worker that runs jobs in the caller's task as soon as they are enqueued; made by [`Worker::inline`].
///
/// Enqueue on this worker as on a database. The enqueue returns once the new job and all other due jobs have run.
/// Delayed jobs, and failed jobs that wait for their retry, do not run.
pub struct Inline {
    worker: Worker,
}

impl Worker {
    /// Runs all due jobs of the worker's queues, and the jobs that become due meanwhile, such as the followers of jobs
    /// that have ended. Returns once no job is due, or once `Admin::stop_worker` has stopped this worker.
    ///
    /// This is for tests, and for programs that are started when there is work. One job per slot runs at once. If the
    /// future is dropped, the jobs that this worker holds wait until another worker rescues them.
    ///
    /// # Errors
    /// If the database fails. The jobs that were running wait until another worker rescues them.
    ///
    /// If a part of the worker breaks down, as in [`run_until`](Worker::run_until). A job whose attempt could not be
    /// made is released.
    pub async fn run_until_drained(&self) -> Result<JobsRun> {
        let run = InlineRun::begin(self).await?;
        let drained = async { run.count_blocked(run.run_due().await?).await };
        let drained = drained.await;
        let ended = run.end().await;
        let drained = drained?;
        ended.map(|()| drained)
    }

    /// Turns the worker into an [`Inline`], on which jobs run as soon as they are enqueued, in the caller's task.
    ///
    /// Jobs pass through the worker's middlewares only if the worker's [`Enqueuer`](crate::enqueue::Enqueuer) enqueues
    /// them. Get the enqueuer before this call, with [`Worker::enqueuer`].
    pub fn inline(self) -> Inline {
        Inline { worker: self }
    }
}

/// A worker that stays registered while it runs jobs in the caller's task.
pub(crate) struct InlineRun<'a> {
    worker: &'a Worker,
    pub(crate) shared: Arc<Shared>,
    heartbeat: Heartbeat,
}

impl InlineRun<'_> {
    pub(crate) async fn begin(worker: &Worker) -> Result<InlineRun<'_>> {
        worker.driver.check().await?;
        // Several runs of one worker may be under way at the same time.
        let info = WorkerInfo { id: random_id(), listens: false, ..worker.info() };
        worker.driver.register(&info).await?;
        let attempts = Arc::new(worker.attempts(&Arc::default()));
        // No bell is needed, since the run claims until no job is due.
        let shared = Shared::new(&info, &worker.options, &worker.health, attempts, []);
        let heartbeat = Heartbeat::start(&shared, info)?;
        Ok(InlineRun { worker, shared, heartbeat })
    }

    /// Runs all due jobs, and the jobs that become due meanwhile.
    pub(crate) async fn run_due(&self) -> Result<JobsRun> {
        let mut drained = JobsRun::default();
        loop {
            let mut idle = true;
            for (queue, slots) in &self.worker.queues {
                let claim = ClaimRequest::new(self.shared.id(), queue, *slots);
                let claimed = self.worker.driver.claim(&claim).await?;
                idle &= claimed.jobs.is_empty() && !claimed.more;
                for (ending, counts) in self.attempt_all(claimed.jobs).await? {
                    if counts {
                        drained.count(&ending);
                    }
                }
            }
            // No other worker may be there to start the followers of a job, or to notice an event.
            idle = idle && !self.worker.driver.apply_linked_ends().await?;
            if idle || self.shared.stop.is_cancelled() {
                return Ok(drained);
            }
        }
    }

    /// Adds the number of blocked jobs in the worker's queues.
    pub(crate) async fn count_blocked(&self, run: JobsRun) -> Result<JobsRun> {
        let queues: Vec<String> = self.worker.queues.iter().map(|(queue, _)| queue.clone()).collect();
        Ok(JobsRun { blocked: self.worker.driver.count_blocked(&queues).await?, ..run })
    }

    /// Applies the ends of linked jobs, since no other worker may be there to do so.
    pub(crate) async fn apply_ends(&self) -> Result<()> {
        while self.worker.driver.apply_linked_ends().await? {}
        Ok(())
    }

    /// Makes an attempt at each of these jobs and settles the attempts. Returns each ending, with true if the ending
    /// counts. An ending does not count if the worker has lost the job during the attempt.
    pub(crate) async fn attempt_all(&self, jobs: Vec<ReservedJob>) -> Result<Vec<(Ending, bool)>> {
        let attempts = jobs.into_iter().map(|job| {
            let held = self.shared.attempts.hold(&job);
            self.shared.attempts.make(job, held)
        });
        // When `run_batches` runs, all attempts have begun, because `join` polls `run_batches` last. No batch will get
        // another job, so all batches run now.
        let run_batches = async { self.shared.attempts.handlers.gatherers().for_each(Gathers::run_gathered) };
        let (settlements, ()) = futures::future::join(futures::future::join_all(attempts), run_batches).await;
        let mut settled = Vec::new();
        let mut unsettled = settlements;
        while !unsettled.is_empty() {
            let answers = self.worker.driver.settle(&unsettled).await?;
            let (locked, done): (Vec<_>, Vec<_>) =
                unsettled.into_iter().zip(answers).partition(|(_, answer)| answer.is_locked());
            settled.extend(done.into_iter().map(|(settlement, answer)| {
                self.shared.held_jobs.remove(&settlement.reservation);
                if answer.is_counted() {
                    settlement.count_kind();
                }
                (settlement, answer.is_counted())
            }));
            unsettled = locked.into_iter().map(|(settlement, _)| settlement).collect();
            if !unsettled.is_empty() {
                tokio::time::sleep(RETRY_LOCKED_AFTER).await;
            }
        }
        self.count_completed_in_sql(&mut settled).await?;
        let settled = settled.into_iter().map(|(settlement, counts)| (settlement.ending, counts)).collect();
        self.shared.attempts.parts.error().map_or(Ok(settled), Err)
    }

    /// Counts the jobs among those that do not count which their handlers have completed in SQL.
    async fn count_completed_in_sql(&self, settled: &mut [(Settlement, bool)]) -> Result<()> {
        let lost = settled.iter().filter(|(_, counts)| !counts);
        let lost: Vec<Reservation> = lost.map(|(settlement, _)| settlement.reservation).collect();
        if lost.is_empty() {
            return Ok(());
        }
        let mut completed = self.worker.driver.completed_in_sql(&lost).await?;
        for (settlement, counts) in settled.iter_mut().filter(|(_, counts)| !counts) {
            let Reservation { id, attempt, .. } = settlement.reservation;
            let Some(queue) = completed.remove(&(id, attempt)) else { continue };
            settlement.ending = Ending::Recorded(queue);
            self.worker.driver.settle(std::slice::from_ref(settlement)).await?;
            settlement.count_kind();
            *counts = true;
        }
        Ok(())
    }

    pub(crate) async fn end(self) -> Result<()> {
        drop(self.heartbeat);
        self.shared.attempts.kind_counts.store(&*self.shared.driver).await?;
        self.worker.driver.leave(self.shared.id()).await
    }
}

impl JobsRun {
    /// Returns the total number of attempts.
    pub fn attempts(&self) -> u64 {
        self.completed + self.cancelled + self.failed + self.put_back + self.dead
    }

    fn count(&mut self, ending: &Ending) {
        let count = match ending {
            Ending::Completed(_) | Ending::Recorded(_) => &mut self.completed,
            Ending::Cancelled => &mut self.cancelled,
            Ending::Waiting { failure: Some(_), .. } => &mut self.failed,
            Ending::Waiting { failure: None, .. } | Ending::Released => &mut self.put_back,
            Ending::Dead(_) => &mut self.dead,
        };
        *count += 1;
    }
}

impl AddAssign for JobsRun {
    fn add_assign(&mut self, more: JobsRun) {
        self.completed += more.completed;
        self.cancelled += more.cancelled;
        self.failed += more.failed;
        self.put_back += more.put_back;
        self.dead += more.dead;
        self.blocked = more.blocked;
    }
}

impl EnqueueOn for &Inline {
    fn insert<'a>(self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
    where
        Self: 'a,
    {
        async move {
            let enqueued = self.worker.driver.enqueue(jobs).await?;
            self.worker.run_until_drained().await?;
            Ok(enqueued)
        }
        .boxed()
    }

    fn insert_linked<'a>(self, _: &'a str, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>>
    where
        Self: 'a,
    {
        async move {
            let enqueued = self.worker.driver.enqueue_linked(jobs).await?;
            self.worker.run_until_drained().await?;
            Ok(enqueued)
        }
        .boxed()
    }

    fn emit<'a>(self, _: &'a str, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>>
    where
        Self: 'a,
    {
        async move {
            let is_first = Driver::emit(&*self.worker.driver, event, payload).await?;
            self.worker.run_until_drained().await?;
            Ok(is_first)
        }
        .boxed()
    }
}
