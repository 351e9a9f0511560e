//! The claimer of one queue: looks for due jobs whenever there is a reason to, and starts as many as there are free slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, RwLock, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::Attempts;
use crate::backoff::Backoff;
use crate::driver::{Driver, Settlement};
use crate::error::Result;
use crate::job::ReservedJob;
use crate::wake::Wake;

/// At most so many jobs in one claim.
const LARGEST_CLAIM: usize = 500;
/// How long a full worker gathers freed slots, so that it claims in batches and not one by one.
const GATHER: Duration = Duration::from_millis(2);
/// How soon to look again for a job that is due but locked by somebody else: at first, and at most.
const LOCKED: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What the claimers of one worker share.
pub(crate) struct Claims {
    pub(crate) driver: Arc<dyn Driver>,
    /// The worker's id, which changes if it is declared dead.
    pub(crate) worker: Arc<AtomicI64>,
    /// Read while a claim is under way: what is reserved may not be known to be held yet.
    pub(crate) under_way: RwLock<()>,
    /// The answer to a claim was lost: what it reserved has to be put back.
    pub(crate) answer_lost: Notify,
}

/// Claims the jobs of one queue.
pub(crate) struct Claimer {
    pub(crate) claims: Arc<Claims>,
    pub(crate) attempts: Arc<Attempts>,
    /// To the settler.
    pub(crate) endings: mpsc::Sender<Settlement>,
    pub(crate) running: TaskTracker,
    pub(crate) queue: String,
    pub(crate) slots: usize,
    pub(crate) free: Arc<Semaphore>,
    pub(crate) wake: Wake,
    pub(crate) stop: CancellationToken,
}

impl Claimer {
    /// Claims until told to stop; never stops in the middle of a claim, whose jobs would be reserved for nobody.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut backoff = Backoff::new("claim jobs");
        let mut locked = LOCKED.0;
        while let Some(wanted) = stop.run_until_cancelled(self.free_slots()).await {
            let due_in = match self.look(wanted).await {
                Ok(Look::Full) => continue,
                Ok(Look::Short { claimed, next_due_in }) => {
                    if claimed > 0 {
                        locked = LOCKED.0;
                    }
                    next_due_in
                }
                Err(error) => {
                    stop.run_until_cancelled(tokio::time::sleep(backoff.failed(&error))).await;
                    continue;
                }
            };
            backoff.worked();
            // Due and not claimed: somebody else has it locked, and may give it back in silence.
            let due_in = if due_in == Some(Duration::ZERO) {
                let delay = locked;
                locked = (locked * 2).min(LOCKED.1);
                Some(delay)
            } else {
                locked = LOCKED.0;
                due_in
            };
            let reason = stop.run_until_cancelled(self.wake.next(due_in)).await;
            tracing::trace!(queue = self.queue, ?reason, "woken");
        }
    }

    /// Waits for free slots, and when most were taken a moment longer for some more.
    async fn free_slots(&self) -> usize {
        let enough = self.slots.div_ceil(2);
        if self.free.available_permits() == 0 {
            // Permits are only taken by this task, so those seen here stay.
            drop(self.free.acquire().await);
            if self.free.available_permits() < enough {
                let _ = tokio::time::timeout(GATHER, self.free.acquire_many(enough as u32)).await;
            }
        }
        self.free.available_permits().min(LARGEST_CLAIM)
    }

    /// One claim, its jobs started.
    async fn look(&self, wanted: usize) -> Result<Look> {
        let claimed = self.claim(wanted).await?;
        if claimed == wanted {
            return Ok(Look::Full);
        }
        Ok(Look::Short { claimed, next_due_in: self.claims.driver.due_in(&self.queue).await? })
    }

    async fn claim(&self, wanted: usize) -> Result<usize> {
        let _under_way = self.claims.under_way.read().await;
        let worker = self.claims.worker.load(Ordering::Acquire);
        let jobs = match self.claims.driver.claim(worker, &self.queue, wanted).await {
            Ok(jobs) => jobs,
            Err(error) => {
                self.claims.answer_lost.notify_one();
                return Err(error);
            }
        };
        let claimed = jobs.len();
        for job in jobs {
            if let Ok(slot) = Arc::clone(&self.free).try_acquire_owned() {
                self.start(job, slot);
            }
        }
        Ok(claimed)
    }

    /// Makes the attempt in a task of its own, which keeps the slot until its ending has been handed over.
    fn start(&self, job: ReservedJob, slot: OwnedSemaphorePermit) {
        let (attempts, endings) = (Arc::clone(&self.attempts), self.endings.clone());
        // Held from here on, not from when the task first runs.
        let hold = attempts.hold(&job);
        self.running.spawn(async move {
            if endings.send(attempts.make(job, hold).await).await.is_err() {
                tracing::error!("the settler is gone; the job will be rescued");
            }
            drop(slot);
        });
    }
}

enum Look {
    /// As many as there were slots: there may be more.
    Full,
    /// All that were due.
    Short { claimed: usize, next_due_in: Option<Duration> },
}
