//! The slots of one queue: so many of its jobs run at once, and where they are quick, some wait here for their turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::driver::Settlement;
use crate::job::ReservedJob;

use crate::worker::claim::ahead::{Ahead, Claimed, Waiting, give_back_at_each_pause};
use crate::worker::claim::pace::{AHEAD, MOST_AHEAD, Pace, turn_of};
use crate::worker::shared::Shared;

/// How long a full worker gathers freed slots, so that it claims in batches and not one by one.
const GATHER: Duration = Duration::from_millis(2);
/// If for so long none of them starts, they go back: the jobs before them are not as quick as they were.
const STUCK: Duration = Duration::from_millis(100);

/// Runs the jobs of one queue.
pub(crate) struct Slots {
    shared: Arc<Shared>,
    running: TaskTracker,
    ahead: Arc<Ahead>,
    count: usize,
    free: Arc<Semaphore>,
    pace: Pace,
    /// All that had been taken were over before the last ones came.
    starved: bool,
    /// The queue has limits, for which what is claimed counts: nothing is claimed ahead.
    pub(crate) limited: bool,
    /// No more than this are claimed ahead, whatever the pace: jobs may be large.
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
            shared.parts.spawn("what gives jobs back at a pause", give_back_at_each_pause(Arc::clone(&ahead))),
        );
        Slots {
            shared: Arc::clone(shared),
            running,
            ahead,
            count,
            free: Arc::new(Semaphore::new(count)),
            pace: Pace::new(),
            starved: false,
            limited: false,
            affordable: MOST_AHEAD,
            _pausing: pausing,
        }
    }

    /// How often the queue has been paused: to be said of a claim that begins now.
    pub(crate) fn pauses(&self) -> u64 {
        self.ahead.pauses.count()
    }

    /// Whether jobs are worked off sooner than they come.
    pub(crate) fn are_starved(&self) -> bool {
        self.starved
    }

    /// Waits until more jobs can be taken, and when many can soon, a moment longer; returns how many.
    pub(crate) async fn room(&mut self) -> usize {
        loop {
            let most_ahead = self.most_ahead();
            let waiting = self.ahead.lock().len();
            if most_ahead > 0 && waiting <= most_ahead / 2 {
                return self.free.available_permits() + most_ahead - waiting;
            }
            self.starved = false;
            if waiting == 0 {
                break;
            }
            let until_stuck = self.until_stuck().unwrap_or_default();
            let _ = tokio::time::timeout(until_stuck, self.ahead.started.notified()).await;
            self.give_back_stuck().await;
        }
        if self.free.available_permits() == 0 {
            // Permits are only taken by the claimer, so those seen here stay.
            drop(self.free.acquire().await);
            let enough = self.count.div_ceil(2);
            if self.free.available_permits() < enough {
                let _ = tokio::time::timeout(GATHER, self.free.acquire_many(enough as u32)).await;
            }
        }
        self.free.available_permits()
    }

    /// In what time the jobs that wait for a slot go back, unless one of them starts; `None` if none waits.
    pub(crate) fn until_stuck(&self) -> Option<Duration> {
        let is_waiting = !self.ahead.lock().is_empty();
        is_waiting.then(|| STUCK.saturating_sub(self.ahead.last_start().elapsed()))
    }

    /// Gives back the jobs that wait for a slot if none of them has started for 100 ms. Returns whether it did.
    pub(crate) async fn give_back_stuck(&mut self) -> bool {
        let is_stuck = self.until_stuck().is_some_and(|time| time.is_zero());
        if is_stuck {
            self.pace = Pace::new();
            self.ahead.give_back(|_| true).await;
        }
        is_stuck
    }

    /// How many jobs to claim beyond the slots.
    fn most_ahead(&self) -> usize {
        // While many endings wait for the locks of others, what is claimed ahead would only wait behind these.
        if self.limited || self.shared.held.count_locked() > self.count {
            return 0;
        }
        let (time, longest) = AHEAD;
        let claims = u32::try_from(self.shared.sharing() + 1).unwrap_or(u32::MAX).max(2);
        self.pace.ahead(self.count, time.saturating_mul(claims).min(longest)).min(self.affordable)
    }

    /// How many more can be claimed while so many are about to be taken, and so many to be claimed: none, if not enough
    /// for a claim to be worth it.
    pub(crate) fn room_beside(&self, taken: usize, claimed: usize) -> usize {
        let places = self.free.available_permits() + self.most_ahead();
        let room = places.saturating_sub(self.ahead.lock().len() + taken + claimed);
        if room >= taken / 2 { room } else { 0 }
    }

    /// How long to leave a full queue to the other workers after a claim that took so long; not at all where nothing is
    /// claimed ahead.
    pub(crate) fn others_turn(&self, took: Duration) -> Duration {
        if self.most_ahead() == 0 { Duration::ZERO } else { turn_of(self.shared.sharing(), took) }
    }

    /// Holds these jobs, and starts as many as there are free slots; the others wait for theirs. `pauses`: how often
    /// the queue had been paused when their claim began; if it has been since, none starts, and they go back.
    pub(crate) fn take(&mut self, jobs: Vec<ReservedJob>, pauses: u64) {
        let ran_dry = self.ahead.ran_dry();
        self.starved |= ran_dry.is_some();
        self.pace.took(jobs.len(), self.count, ran_dry);
        self.hold(jobs, pauses);
        while let Ok(slot) = Arc::clone(&self.free).try_acquire_owned() {
            match self.ahead.next() {
                Some(first) => self.start(first, slot),
                None => break,
            }
        }
    }

    /// Holds these jobs, and starts none.
    pub(crate) fn hold(&self, jobs: Vec<ReservedJob>, pauses: u64) {
        let jobs = jobs.into_iter().map(|job| {
            let hold = self.shared.attempts.hold(&job);
            Waiting { claimed: (job, hold), pauses }
        });
        let mut ahead = self.ahead.lock();
        if ahead.is_empty() {
            *self.ahead.last_start() = Instant::now();
        }
        ahead.extend(jobs);
        drop(ahead);
        if pauses != self.pauses() {
            self.ahead.pauses.found_stale();
        }
    }

    /// Runs one job after another in one slot, until none waits.
    fn start(&self, first: Claimed, slot: OwnedSemaphorePermit) {
        let (attempts, ahead, free) =
            (Arc::clone(&self.shared.attempts), Arc::clone(&self.ahead), Arc::clone(&self.free));
        let count = self.count;
        self.running.spawn(async move {
            let (mut next, mut slot) = (Some(first), Some(slot));
            while slot.is_some() {
                while let Some((job, hold)) = next {
                    ahead.ended(attempts.make(job, hold).await).await;
                    next = ahead.next();
                }
                drop(slot.take());
                if free.available_permits() == count {
                    ahead.runs_dry();
                }
                // Some may have come to wait since, and found no slot free.
                if ahead.is_waiting() {
                    slot = Arc::clone(&free).try_acquire_owned().ok();
                    next = slot.as_ref().and_then(|_| ahead.next());
                }
            }
        });
    }

    /// Gives back what has not started, at no cost.
    pub(crate) async fn give_back(&self) {
        self.ahead.give_back(|_| true).await;
    }
}
