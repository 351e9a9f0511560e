//! One attempt, one job, or all of them, worked by a test.

use std::sync::Arc;
use std::time::Duration;

use crate::driver::{ClaimRequest, Driver, Ending, Memory, StoredJob};
use crate::error::{Error, Result};
use crate::job::{Due, Enqueueable, Job, JobState, NewJob, ReservedJob};
use crate::worker::Worker;
use crate::worker::attempt::Attempts;
use crate::worker::attempt::reservations::Held;
use crate::worker::drain::{Drained, Visit};

/// What became of the one job that was worked.
#[derive(Debug, Clone, PartialEq)]
pub struct Worked {
    /// Which one it was.
    pub id: i64,
    /// What becomes of it.
    pub ending: Ending,
}

/// More attempts than this are no test's purpose: jobs enqueue each other for ever.
const MOST_ATTEMPTS: u64 = 100_000;
/// And of one job: it snoozes for ever.
const MOST_SNOOZES: u32 = 1000;

/// For tests.
impl Worker {
    /// Make one attempt at a job that is stored nowhere; returns what would become of it.
    ///
    /// The whole of an attempt: the middlewares for enqueuing and for work, decoding, the handler, its timeout,
    /// panics, what it says of its progress. So it needs no committed transaction. What the handler itself reads or
    /// writes is up to its state; what it enqueues has no parent, and the job cannot be completed in a transaction.
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
        let job = job.ok_or_else(|| Error::invalid("make an attempt: the job could not be claimed"))?;
        let attempts = Attempts { driver: desk, is_stored: false, ..self.attempts(&Arc::<Held>::default()) };
        let hold = attempts.hold(&job);
        Ok(attempts.make(job, hold).await.ending)
    }

    /// Work the due job of this kind that comes first in the worker's queues; `None` if there is none.
    ///
    /// It is claimed as any worker claims. Jobs of other kinds that come before it are claimed too and put back,
    /// which counts as an attempt and no failure. A queue's limits hold.
    ///
    /// # Errors
    /// Lost if the job ended otherwise meanwhile; else if the store fails.
    pub async fn work_one<J: Job>(&self) -> Result<Option<Worked>> {
        let visit = Visit::begin(self).await?;
        let worked = self.work_first(&visit, J::KIND).await;
        let left = visit.end().await;
        let worked = worked?;
        left.map(|()| worked)
    }

    async fn work_first(&self, visit: &Visit<'_>, kind: &str) -> Result<Option<Worked>> {
        let first = self.claim_first(visit, kind).await;
        let wanted: Vec<i64> = first.iter().flatten().map(|job| job.reservation.id).collect();
        let put_back = self.driver.release_strays(visit.shared.id(), &wanted).await;
        let Some(job) = first? else { return put_back.map(|_| None) };
        put_back?;
        let id = job.reservation.id;
        match visit.run(vec![job]).await?.pop() {
            Some((ending, true)) => Ok(Some(Worked { id, ending })),
            _ => Err(Error::lost(format!("job {id} was no longer this worker's when it had been worked"))),
        }
    }

    /// Claims one job after another until one of this kind comes, in each queue; returns the first of these.
    async fn claim_first(&self, visit: &Visit<'_>, kind: &str) -> Result<Option<ReservedJob>> {
        let mut of_kind = Vec::new();
        for (queue, _) in &self.queues {
            loop {
                let claim = ClaimRequest::new(visit.shared.id(), queue, 1);
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

    /// Run everything in the worker's queues, delayed jobs and retries as well, by putting forward the clock of the
    /// [`Memory`] that the worker was built on; return when nothing waits there any more.
    ///
    /// # Errors
    /// Invalid if there is no end to it: a job has no handler here, or snoozes still at its 1,000th attempt, or the
    /// jobs go on after 100,000 attempts.
    pub async fn drain_all(&self, memory: &Memory) -> Result<Drained> {
        let visit = Visit::begin(self).await?;
        let drained = self.run_all(&visit, memory).await;
        let left = visit.end().await;
        let drained = drained?;
        left.map(|()| drained)
    }

    async fn run_all(&self, visit: &Visit<'_>, memory: &Memory) -> Result<Drained> {
        let mut drained = Drained::default();
        loop {
            let round = visit.run_due().await?;
            drained += round;
            let Some(delay) = self.queues.iter().filter_map(|(queue, _)| memory.due_in(queue)).min() else {
                return Ok(drained);
            };
            let too_many = drained.attempts() > MOST_ATTEMPTS;
            // What snoozes or has no handler was put back.
            if (too_many || round.put_back > 0)
                && let Some(StoredJob { id, job, attempts, .. }) = self.endless(memory, too_many)
            {
                return Err(Error::invalid(format!(
                    "there is no end to it: job {id} of the kind {:?} still waits after {attempts} attempts of its own and {} in all",
                    job.kind,
                    drained.attempts()
                )));
            }
            memory.advance(delay);
        }
    }

    /// A waiting job that this worker will never be done with; or any one.
    fn endless(&self, memory: &Memory, any: bool) -> Option<StoredJob> {
        let here = |queue: &str| self.queues.iter().any(|(name, _)| name == queue);
        memory.jobs().into_iter().find(|StoredJob { job, state, attempts, .. }| {
            let endless = any || *attempts > MOST_SNOOZES || self.handlers.get(&job.kind).is_none();
            matches!(state, JobState::Ready | JobState::Delayed) && here(&job.queue) && endless
        })
    }
}
