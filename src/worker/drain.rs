//! Working without waiting: everything that is due now, and in the caller's own task.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::database::enqueue_on::EnqueueOn;
use crate::driver::{ClaimRequest, Ending};
use crate::error::Result;
use crate::handler::Gathers;
use crate::job::{Enqueued, NewJob, ReservedJob};
use crate::worker::Worker;
use crate::worker::heartbeat::{Heartbeat, Lease};
use crate::worker::shared::Shared;

/// How soon to try again to settle a job that another session has locked.
const LOCKED: Duration = Duration::from_millis(50);

/// What became of the attempts that were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobsRun {
    /// Done.
    pub completed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Failed, and due again later.
    pub failed: u64,
    /// Put back without a failure: snoozed, or of a kind without a handler.
    pub put_back: u64,
    /// Dead.
    pub dead: u64,
}

/// A worker that runs jobs while they are enqueued, in the caller's task; made by [`Worker::inline`].
///
/// Enqueue on it as on a database. When the enqueue returns, the job has run, and whatever else was due; one that is
/// delayed, or failed and has to wait for its retry, has not.
pub struct Inline {
    worker: Worker,
}

impl Worker {
    /// Run everything in the worker's queues that is due, and what becomes due meanwhile; return when nothing is left,
    /// or somebody asks for the worker to stop.
    ///
    /// For tests, and for programs that are started when there is work. Runs as many jobs at once as the queues have
    /// slots. Dropped in the middle, what it held is left to be rescued.
    ///
    /// # Errors
    /// If the store fails: what was being run is left to be rescued. If a part of the worker breaks down, as in
    /// [`run_until`](Worker::run_until): what could not be tried was put back.
    pub async fn run_until_drained(&self) -> Result<JobsRun> {
        let visit = Visit::begin(self).await?;
        let drained = visit.run_due().await;
        let left = visit.end().await;
        let drained = drained?;
        left.map(|()| drained)
    }

    /// Run jobs at once, in the caller, when they are enqueued on what this returns. To enqueue through the worker's
    /// middlewares, take its [`Enqueuer`](crate::enqueue::Enqueuer) before: [`Worker::enqueuer`].
    pub fn inline(self) -> Inline {
        Inline { worker: self }
    }
}

/// A worker that has introduced itself to its store while it works in the caller's task.
pub(crate) struct Visit<'a> {
    worker: &'a Worker,
    pub(crate) shared: Arc<Shared>,
    heartbeat: Heartbeat,
}

impl Visit<'_> {
    pub(crate) async fn begin(worker: &Worker) -> Result<Visit<'_>> {
        worker.driver.check().await?;
        let info = worker.info();
        worker.driver.register(&info).await?;
        let attempts = Arc::new(worker.attempts(&Arc::default()));
        // Nobody rings: it looks until nothing is left.
        let shared = Shared::new(&info, &worker.options, attempts, []);
        let heartbeat = Lease::new(&shared, info).keep()?;
        Ok(Visit { worker, shared, heartbeat })
    }

    /// Runs what is due, and what becomes due meanwhile.
    pub(crate) async fn run_due(&self) -> Result<JobsRun> {
        let mut drained = JobsRun::default();
        loop {
            let mut idle = true;
            for (queue, slots) in &self.worker.queues {
                let claim = ClaimRequest::new(self.shared.id(), queue, *slots);
                let claimed = self.worker.driver.claim(&claim).await?;
                idle &= claimed.jobs.is_empty() && !claimed.more;
                for (ending, stood) in self.run(claimed.jobs).await? {
                    if stood {
                        drained.count(&ending);
                    }
                }
            }
            if idle || self.shared.stop.is_cancelled() {
                return Ok(drained);
            }
        }
    }

    /// Makes an attempt at each of these and settles them; returns how they ended, and whether that counts.
    pub(crate) async fn run(&self, jobs: Vec<ReservedJob>) -> Result<Vec<(Ending, bool)>> {
        let attempts = jobs.into_iter().map(|job| {
            let hold = self.shared.attempts.hold(&job);
            self.shared.attempts.make(job, hold)
        });
        // All have begun when the second is polled: no further job will come to complete a batch.
        let begun = async { self.shared.attempts.handlers.gatherers().for_each(Gathers::run_gathered) };
        let (settlements, ()) = futures::future::join(futures::future::join_all(attempts), begun).await;
        let mut settled = Vec::new();
        let mut left = settlements;
        while !left.is_empty() {
            let answers = self.worker.driver.settle(&left).await?;
            let (locked, done): (Vec<_>, Vec<_>) =
                left.into_iter().zip(answers).partition(|(_, answer)| answer.is_locked());
            settled.extend(done.into_iter().map(|(settlement, answer)| {
                self.shared.held.let_go(&settlement.reservation);
                (settlement.ending, answer.is_counted())
            }));
            left = locked.into_iter().map(|(settlement, _)| settlement).collect();
            if !left.is_empty() {
                tokio::time::sleep(LOCKED).await;
            }
        }
        self.shared.attempts.parts.error().map_or(Ok(settled), Err)
    }

    pub(crate) async fn end(self) -> Result<()> {
        drop(self.heartbeat);
        self.worker.driver.leave(self.shared.id()).await
    }
}

impl JobsRun {
    /// How many attempts were made.
    pub fn attempts(&self) -> u64 {
        self.completed + self.cancelled + self.failed + self.put_back + self.dead
    }

    fn count(&mut self, ending: &Ending) {
        let count = match ending {
            Ending::Completed(_) | Ending::Recorded(_) => &mut self.completed,
            Ending::Cancelled => &mut self.cancelled,
            Ending::Waiting { failure: Some(_), .. } => &mut self.failed,
            Ending::Waiting { failure: None, .. } => &mut self.put_back,
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
}
