//! The slots of one queue: each slot runs one job at a time. Quick jobs are claimed ahead, and wait here for a free
//! slot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::driver::Settlement;
use crate::job::ReservedJob;

use crate::worker::claim::ahead::{Ahead, WaitingJob, release_at_each_pause};
use crate::worker::claim::pace::{AHEAD_PER_WORKER, LONGEST_AHEAD, MOST_AHEAD, Pace, rest_between_claims};
use crate::worker::shared::Shared;
use crate::worker::slot_count::SlotCount;

/// If no slot was free, the claimer waits up to 2 ms from the first free slot on. More slots become free meanwhile, and
/// one claim takes jobs for all of them.
const GATHER: Duration = Duration::from_millis(2);
/// If no waiting job starts for 100 ms, all waiting jobs are released, so that other workers can start them. In this
/// case, the running jobs are slower than earlier jobs.
const STALLED_AFTER: Duration = Duration::from_millis(100);

/// Runs the jobs of one queue in its slots.
pub(crate) struct Slots {
    shared: Arc<Shared>,
    running: TaskTracker,
    ahead: Arc<Ahead>,
    count: Arc<SlotCount>,
    pace: Pace,
    /// True if all slots were empty before the last claim returned jobs.
    starved: bool,
    /// True if the queue has limits. Claimed jobs count against the limits, so no job is claimed ahead.
    pub(crate) limited: bool,
    /// At most this many jobs are claimed ahead: as many of the recent average size as fit in 16 MiB.
    pub(crate) affordable: usize,
    _pausing: AbortOnDropHandle<()>,
}

impl Slots {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        queue: &str,
        count: usize,
        endings: mpsc::Sender<Settlement>,
        running: TaskTracker,
    ) -> Slots {
        let ahead = Arc::new(Ahead::new(endings, shared.bells.pauses(queue)));
        let pausing = AbortOnDropHandle::new(
            shared.parts.spawn("the release of jobs at a pause", release_at_each_pause(Arc::clone(&ahead))),
        );
        Slots {
            shared: Arc::clone(shared),
            running,
            ahead,
            count: shared.slot_counts.add(queue, count, &shared.options.slot_limits),
            pace: Pace::new(),
            starved: false,
            limited: false,
            affordable: MOST_AHEAD,
            _pausing: pausing,
        }
    }

    /// Returns the number of pauses of the queue so far. Call this when a claim begins.
    pub(crate) fn pauses(&self) -> u64 {
        self.ahead.pauses.count()
    }

    /// Returns true if all slots were empty before the last claim returned jobs.
    pub(crate) fn are_starved(&self) -> bool {
        self.starved
    }

    /// Waits until the slots can take more jobs, and returns the number of these jobs. If all slots are occupied, waits
    /// until one slot is free, and then up to 2 ms until half of the slots are free.
    pub(crate) async fn room(&mut self) -> usize {
        loop {
            let most_ahead = self.most_ahead();
            let waiting = self.ahead.lock().len();
            if most_ahead > 0 && waiting <= most_ahead / 2 {
                return self.count.free.available_permits() + most_ahead - waiting;
            }
            self.starved = false;
            if waiting == 0 {
                let free = self.free_slots().await;
                if free > 0 {
                    return free;
                }
                continue;
            }
            let until_stalled = self.until_stalled().unwrap_or_default();
            let _ = tokio::time::timeout(until_stalled, self.ahead.started.notified()).await;
            self.release_if_stalled().await;
        }
    }

    /// Waits until a slot is free, if none is, and then up to 2 ms until half of the slots are free. Returns the number
    /// of free slots, which is 0 if a free slot had to go.
    async fn free_slots(&self) -> usize {
        if self.count.free.available_permits() == 0 {
            // Since no job waits, only the claimer takes permits. A slot that is free now stays free, unless it has to
            // go.
            drop(self.count.free.acquire().await);
            let enough = self.count.present().div_ceil(2);
            if self.count.free.available_permits() < enough {
                let _ = tokio::time::timeout(GATHER, self.count.free.acquire_many(enough as u32)).await;
            }
        }
        self.count.free.available_permits()
    }

    /// Returns the time after which all waiting jobs are released if none of them has started by then; `None` if no job
    /// waits.
    pub(crate) fn until_stalled(&self) -> Option<Duration> {
        let is_waiting = !self.ahead.lock().is_empty();
        is_waiting.then(|| STALLED_AFTER.saturating_sub(self.ahead.last_start().elapsed()))
    }

    /// If no waiting job has started for 100 ms, releases all waiting jobs and returns true.
    pub(crate) async fn release_if_stalled(&mut self) -> bool {
        let is_stalled = self.until_stalled().is_some_and(|time| time.is_zero());
        if is_stalled {
            self.pace = Pace::new();
            self.ahead.release(|_| true).await;
        }
        is_stalled
    }

    /// Returns the number of jobs to claim ahead.
    fn most_ahead(&self) -> usize {
        // If many endings already wait for locks of other sessions, the endings of more jobs would wait behind them.
        let slots = self.count.present();
        if self.limited || slots == 0 || self.shared.held_jobs.count_locked() > slots {
            return 0;
        }
        let claims = u32::try_from(self.shared.sharing() + 1).unwrap_or(u32::MAX).max(2);
        let time = AHEAD_PER_WORKER.saturating_mul(claims).min(LONGEST_AHEAD);
        self.pace.ahead(slots, time).min(self.affordable)
    }

    /// Returns the number of jobs that another claim may ask for. `taken`: the number of jobs that the slots are about
    /// to take. `claimed`: the number of jobs that the claims under way have asked for. Returns 0 if the result is less
    /// than half of `taken`, since a small claim is not worth its cost.
    pub(crate) fn room_beside(&self, taken: usize, claimed: usize) -> usize {
        let places = self.count.free.available_permits() + self.most_ahead();
        let room = places.saturating_sub(self.ahead.lock().len() + taken + claimed);
        if room >= taken / 2 { room } else { 0 }
    }

    /// Returns the time for which this claimer leaves a full queue to the other workers after a claim. `took`: the time
    /// that the claim took. Returns zero if no job is claimed ahead.
    pub(crate) fn rest_between_claims(&self, took: Duration) -> Duration {
        if self.most_ahead() == 0 { Duration::ZERO } else { rest_between_claims(self.shared.sharing(), took) }
    }

    /// Holds these jobs and starts one job per free slot; the other jobs wait.
    ///
    /// `pauses`: the number of pauses of the queue when the claim of these jobs began. If the queue was paused since,
    /// no job starts, and all these jobs are released.
    pub(crate) fn take(&mut self, jobs: Vec<ReservedJob>, pauses: u64) {
        let ran_dry = self.ahead.take_ran_dry();
        self.starved |= ran_dry.is_some();
        self.pace.learn(jobs.len(), self.count.present(), ran_dry);
        self.hold(jobs, pauses);
        while let Some(slot) = self.count.try_take() {
            match self.ahead.next() {
                Some(first) => self.start(first, slot),
                None => break,
            }
        }
    }

    /// Holds these jobs and starts none of them.
    pub(crate) fn hold(&self, jobs: Vec<ReservedJob>, pauses: u64) {
        let jobs = jobs.into_iter().map(|job| {
            let held = self.shared.attempts.hold(&job);
            WaitingJob { job, held, pauses }
        });
        let mut ahead = self.ahead.lock();
        if ahead.is_empty() {
            *self.ahead.last_start() = Instant::now();
        }
        ahead.extend(jobs);
        drop(ahead);
        if pauses != self.pauses() {
            self.ahead.pauses.notify_stale();
        }
    }

    /// Runs one job after another in one slot, until no job waits.
    fn start(&self, first: WaitingJob, slot: OwnedSemaphorePermit) {
        let (attempts, ahead) = (Arc::clone(&self.shared.attempts), Arc::clone(&self.ahead));
        let count = Arc::clone(&self.count);
        self.running.spawn(async move {
            let (mut next, mut slot) = (Some(first), Some(slot));
            while slot.is_some() {
                while let Some(WaitingJob { job, held, .. }) = next {
                    let cancellation = held.cancellation.clone();
                    ahead.settle(attempts.make(job, held).await).await;
                    cancellation.slot_is_free().await;
                    slot = slot.and_then(|slot| count.keep(slot));
                    next = slot.as_ref().and_then(|_| ahead.next());
                }
                drop(slot.take());
                if count.free.available_permits() == count.present() {
                    ahead.note_ran_dry();
                }
                // After `next` found no job and before this slot was free, the claimer may have added jobs. The claimer
                // could not start them without a free slot, so this slot takes them.
                if ahead.has_next() {
                    slot = count.try_take();
                    next = slot.as_ref().and_then(|_| ahead.next());
                }
            }
        });
    }

    /// Releases the jobs that wait for a slot.
    pub(crate) async fn release(&self) {
        self.ahead.release(|_| true).await;
    }
}
