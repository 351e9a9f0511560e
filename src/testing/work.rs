//! Methods of a worker for tests: to make one attempt, to work one job, or to run all jobs.

use std::sync::Arc;
use std::time::Duration;

use crate::driver::{ClaimRequest, Driver, Ending, Memory, StoredJob};
use crate::error::{Error, Result};
use crate::job::{Due, Enqueueable, Job, NewJob, ReservedJob};
use crate::worker::Worker;
use crate::worker::attempt::Attempts;
use crate::worker::attempt::reservations::HeldJobs;
use crate::worker::drain::{InlineRun, JobsRun};

/// The job that [`Worker::work_one`] worked, and its ending.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Worked {
    /// The id of the job.
    pub id: i64,
    /// The state that the job got after the attempt.
    pub ending: Ending,
}

/// After more attempts than this, the jobs count as enqueuing each other without end.
const MOST_ATTEMPTS: u64 = 100_000;
/// After more attempts than this, a job counts as snoozing without end.
const MOST_SNOOZES: u32 = 1000;

/// Methods for tests.
impl Worker {
    /// Makes one attempt at a job that is stored nowhere. Returns the ending that the job would get.
    ///
    /// The attempt is complete: it includes the middleware for enqueuing and for work, decoding, the handler, its
    /// timeout, its panics and its progress. No transaction has to be committed before it. The handler uses its states
    /// as always. The jobs that the handler enqueues have no parent, and the handler cannot complete the job in a
    /// transaction.
    ///
    /// # Errors
    /// Invalid if the job could not be stored.
    pub async fn attempt(&self, job: &impl Enqueueable) -> Result<Ending> {
        let job = NewJob { due: Due::In(Duration::ZERO), ..self.enqueuer().prepare(job)? };
        let queue = job.queue.clone();
        let (desk, info) = (Arc::new(Memory::new()), self.info());
        desk.register(&info).await?;
        Driver::enqueue(&*desk, &[job]).await?;
        let job = desk.claim(&ClaimRequest::new(info.id, &queue, 1)).await?.jobs.pop();
        let job = job.ok_or_else(|| {
            Error::invalid("cannot make an attempt: the job could not be claimed; does its queue have a limit?")
        })?;
        let attempts = Attempts { driver: desk, is_stored: false, ..self.attempts(&Arc::<HeldJobs>::default()) };
        let held = attempts.hold(&job);
        Ok(attempts.make(job, held).await.ending)
    }

    /// Works the first due job of this kind in the worker's queues. Returns `None` if there is no due job of this kind.
    ///
    /// The job is claimed as by any worker, within the queue's limits. Jobs of other kinds that come before it are
    /// claimed and released. This counts as an attempt of these jobs, but not as a failure. When this returns, the jobs
    /// that waited for the end of the worked job alone are due.
    ///
    /// # Errors
    /// Lost if the job was rescued or settled elsewhere during the attempt; else the store's error.
    pub async fn work_one<J: Job>(&self) -> Result<Option<Worked>> {
        let run = InlineRun::begin(self).await?;
        let worked = self.work_first(&run, J::KIND).await;
        let left = run.end().await;
        let worked = worked?;
        left.map(|()| worked)
    }

    async fn work_first(&self, run: &InlineRun<'_>, kind: &str) -> Result<Option<Worked>> {
        // A job that was ended by hand, such as by `Admin::cancel`, may have followers.
        run.apply_ends().await?;
        let first = self.claim_first(run, kind).await;
        let wanted: Vec<i64> = first.iter().flatten().map(|job| job.reservation.id).collect();
        let put_back = self.driver.release_strays(run.shared.id(), &wanted).await;
        let Some(job) = first? else { return put_back.map(|_| None) };
        put_back?;
        let id = job.reservation.id;
        match run.attempt_all(vec![job]).await?.pop() {
            Some((ending, true)) => {
                run.apply_ends().await?;
                Ok(Some(Worked { id, ending }))
            }
            _ => Err(Error::lost(format!(
                "the worker no longer held job {id} when its attempt ended; another session ends the job"
            ))),
        }
    }

    /// Claims one job after another in each queue, until a job is of this kind. Returns the first of the jobs of this
    /// kind, in the order of claims.
    async fn claim_first(&self, inline: &InlineRun<'_>, kind: &str) -> Result<Option<ReservedJob>> {
        let mut of_kind = Vec::new();
        for (queue, _) in &self.queues {
            loop {
                let claim = ClaimRequest::new(inline.shared.id(), queue, 1);
                let mut claimed = self.driver.claim(&claim).await?;
                match claimed.jobs.pop() {
                    Some(job) if job.kind == kind => {
                        of_kind.push(job);
                        break;
                    }
                    None if !claimed.more => break,
                    _ => {}
                }
            }
        }
        Ok(of_kind.into_iter().min_by_key(|job| (job.priority, job.available_at, job.reservation.id)))
    }

    /// Runs all jobs in the worker's queues until no job waits there. Delayed jobs, retries, sleeping jobs and the
    /// followers of jobs that have ended run too: this puts the clock of the [`Memory`] forward until they are due. A
    /// wait for an event that has not come times out. Jobs that are still [blocked](JobsRun::blocked) are counted. The
    /// worker must be built on that [`Memory`].
    ///
    /// # Errors
    /// Invalid if the jobs have no end: a job has no handler in this worker, a job still waits after more than 1,000
    /// attempts, or all jobs together had more than 100,000 attempts.
    pub async fn run_until_empty(&self, memory: &Memory) -> Result<JobsRun> {
        let inline = InlineRun::begin(self).await?;
        let drained = self.run_all(&inline, memory).await;
        let left = inline.end().await;
        let drained = drained?;
        left.map(|()| drained)
    }

    async fn run_all(&self, inline: &InlineRun<'_>, memory: &Memory) -> Result<JobsRun> {
        let mut run = JobsRun::default();
        loop {
            let round = inline.run_due().await?;
            run += round;
            let Some(delay) = self.queues.iter().filter_map(|(queue, _)| memory.due_in(queue)).min() else {
                return inline.count_blocked(run).await;
            };
            let too_many = run.attempts() > MOST_ATTEMPTS;
            // A job that was snoozed or has no handler is back in its queue.
            if (too_many || round.put_back > 0)
                && let Some(StoredJob { id, job, attempts, .. }) = self.endless(memory, too_many)
            {
                return Err(Error::invalid(format!(
                    "the jobs have no end: job {id} of the kind {:?} still waits after {attempts} attempts, \
                        and all jobs \
                     together had {}; give its kind a handler, or make the jobs end",
                    job.kind,
                    run.attempts()
                )));
            }
            memory.advance(delay);
        }
    }

    /// Returns a waiting job that this worker will never finish. If `any` is true, returns any waiting job.
    fn endless(&self, memory: &Memory, any: bool) -> Option<StoredJob> {
        let here = |queue: &str| self.queues.iter().any(|(name, _)| name == queue);
        memory.jobs().into_iter().find(|StoredJob { job, state, attempts, .. }| {
            let endless = any || *attempts > MOST_SNOOZES || self.handlers.get(&job.kind).is_none();
            state.is_waiting() && here(&job.queue) && endless
        })
    }
}
