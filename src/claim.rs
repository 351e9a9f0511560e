//! The claimer of one queue: looks for due jobs whenever there is a reason to, and starts as many as there are free slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, RwLock};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::driver::{Driver, Marks};
use crate::error::Result;
use crate::marks::LowWater;
use crate::sleeper::Sleeper;
use crate::slots::Slots;

/// At most so many jobs in one claim.
const LARGEST_CLAIM: usize = 500;
/// After so long without a free slot the bell need not ring.
const FULL_FOR_LONG: Duration = Duration::from_millis(50);
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
    pub(crate) queue: String,
    pub(crate) slots: Slots,
    pub(crate) low_water: LowWater,
    pub(crate) sleeper: Sleeper,
    pub(crate) stop: CancellationToken,
}

impl Claimer {
    /// Claims until told to stop; never stops in the middle of a claim, whose jobs would be reserved for nobody.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut backoff = Backoff::new("claim jobs");
        let mut locked = LOCKED.0;
        while let Some(room) = stop.run_until_cancelled(self.room()).await {
            let looked = match room {
                Ok(room) => self.look(room.min(LARGEST_CLAIM)).await,
                Err(error) => Err(error),
            };
            let (found, due_in) = match looked {
                Ok(Look::Full) => continue,
                Ok(Look::Short { found, due_in }) => (found, due_in),
                Err(error) => {
                    self.low_water.forget();
                    stop.run_until_cancelled(tokio::time::sleep(backoff.failed(&error))).await;
                    continue;
                }
            };
            backoff.worked();
            if found || due_in != Some(Duration::ZERO) {
                locked = LOCKED.0;
            }
            // Due and not claimed: somebody else has it locked, and may give it back in silence.
            let due_in = if due_in == Some(Duration::ZERO) {
                let delay = locked;
                locked = (locked * 2).min(LOCKED.1);
                Some(delay)
            } else {
                due_in
            };
            let reason = stop.run_until_cancelled(self.sleeper.rest(found, due_in)).await;
            tracing::trace!(queue = self.queue, ?reason, "woken");
        }
        if let Err(error) = self.sleeper.disarm().await {
            tracing::debug!(%error, "the bell stays armed until this worker has taken its leave");
        }
        self.slots.give_back().await;
    }

    /// Waits until there is room for more jobs.
    async fn room(&mut self) -> Result<usize> {
        match tokio::time::timeout(FULL_FOR_LONG, self.slots.room()).await {
            Ok(room) => Ok(room),
            Err(_) => {
                self.sleeper.disarm().await?;
                Ok(self.slots.room().await)
            }
        }
    }

    /// One claim, its jobs started; and if it found nothing above the marks, another one that sweeps.
    async fn look(&mut self, wanted: usize) -> Result<Look> {
        let start = self.low_water.start();
        let began = Instant::now();
        let claimed = {
            let _under_way = self.claims.under_way.read().await;
            let worker = self.claims.worker.load(Ordering::Acquire);
            let claimed = match self.claims.driver.claim(worker, &self.queue, wanted, start).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    self.claims.answer_lost.notify_one();
                    return Err(error);
                }
            };
            self.low_water.learn(start, &claimed, wanted, began.elapsed());
            claimed
        };
        let count = claimed.jobs.len();
        self.slots.take(claimed.jobs);
        if count >= wanted {
            self.sleeper.look_was_full().await?;
            return Ok(Look::Full);
        }
        let until_sweep = if start == Marks::default() { None } else { Some(self.low_water.until_sweep()) };
        let due_in = claimed.due_in.into_iter().chain(until_sweep).min();
        Ok(Look::Short { found: count > 0, due_in })
    }
}

enum Look {
    /// As many as there was room for: there may be more.
    Full,
    /// All that were due.
    Short { found: bool, due_in: Option<Duration> },
}
