//! The slots of one queue: so many of its jobs run at once, and where they are quick, some wait here for their turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::attempt::Attempts;
use crate::driver::{Ending, Settlement};
use crate::held::Hold;
use crate::job::ReservedJob;

/// How long a full worker gathers freed slots, so that it claims in batches and not one by one.
const GATHER: Duration = Duration::from_millis(2);
/// Jobs that are expected to start within this time are claimed ahead.
const AHEAD: Duration = Duration::from_millis(10);
/// At most so many.
const MOST_AHEAD: usize = 500;
/// Those that have not started after so long go back: the jobs before them are not as quick as they were.
const STUCK: Duration = Duration::from_millis(100);

type Claimed = (ReservedJob, Hold);

/// Runs the jobs of one queue.
pub(crate) struct Slots {
    attempts: Arc<Attempts>,
    running: TaskTracker,
    ahead: Arc<Ahead>,
    count: usize,
    free: Arc<Semaphore>,
    pace: Pace,
}

/// Jobs that wait for a slot.
struct Ahead {
    jobs: Mutex<VecDeque<Claimed>>,
    /// One of them has started.
    started: Notify,
    endings: mpsc::Sender<Settlement>,
}

impl Slots {
    pub(crate) fn new(
        count: usize,
        attempts: Arc<Attempts>,
        endings: mpsc::Sender<Settlement>,
        running: TaskTracker,
    ) -> Slots {
        let ahead = Arc::new(Ahead { jobs: Mutex::default(), started: Notify::new(), endings });
        Slots { attempts, running, ahead, count, free: Arc::new(Semaphore::new(count)), pace: Pace::new() }
    }

    /// Waits until more jobs can be taken, and when many can soon, a moment longer; returns how many.
    pub(crate) async fn room(&mut self) -> usize {
        loop {
            let most_ahead = self.pace.ahead(self.count);
            let waiting = self.ahead.lock().len();
            if most_ahead > 0 && waiting <= most_ahead / 2 {
                return self.free.available_permits() + most_ahead - waiting;
            }
            if waiting == 0 {
                break;
            }
            let left = STUCK.saturating_sub(self.pace.last.elapsed());
            if tokio::time::timeout(left, self.ahead.started.notified()).await.is_err() {
                self.pace = Pace::new();
                self.give_back().await;
            }
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

    /// Starts as many of these jobs as there are free slots; the others wait for theirs. All are held from here on.
    pub(crate) fn take(&mut self, jobs: Vec<ReservedJob>) {
        self.pace.took(jobs.len());
        let mut jobs = jobs.into_iter().map(|job| {
            let hold = self.attempts.hold(&job);
            (job, hold)
        });
        while let Ok(slot) = Arc::clone(&self.free).try_acquire_owned() {
            // Those that have waited longer come first.
            match self.ahead.next().or_else(|| jobs.next()) {
                Some(first) => self.start(first, slot),
                None => break,
            }
        }
        self.ahead.lock().extend(jobs);
    }

    /// Runs one job after another in one slot, until none waits.
    fn start(&self, first: Claimed, slot: OwnedSemaphorePermit) {
        let (attempts, ahead) = (Arc::clone(&self.attempts), Arc::clone(&self.ahead));
        self.running.spawn(async move {
            let mut next = Some(first);
            while let Some((job, hold)) = next {
                ahead.ended(attempts.make(job, hold).await).await;
                next = ahead.next();
            }
            drop(slot);
        });
    }

    /// Gives back what has not started, at no cost.
    pub(crate) async fn give_back(&self) {
        while let Some((job, _)) = self.ahead.next() {
            let ending = Ending::Waiting { failure: None, delay: Duration::ZERO };
            let (waited, ran) = (job.waited(), Duration::ZERO);
            self.ahead.ended(Settlement { reservation: job.reservation, ending, waited, ran }).await;
        }
    }
}

impl Ahead {
    fn next(&self) -> Option<Claimed> {
        let mut jobs = self.lock();
        let next = jobs.pop_front();
        drop(jobs);
        if next.is_some() {
            self.started.notify_one();
        }
        next
    }

    async fn ended(&self, settlement: Settlement) {
        if self.endings.send(settlement).await.is_err() {
            tracing::error!("the settler is gone; the job will be rescued");
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Claimed>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How quickly jobs are taken.
struct Pace {
    last: Instant,
    per_second: f64,
}

impl Pace {
    fn new() -> Pace {
        Pace { last: Instant::now(), per_second: 0.0 }
    }

    fn took(&mut self, jobs: usize) {
        let seconds = self.last.elapsed().as_secs_f64().max(1e-6);
        self.per_second = jobs as f64 / seconds;
        self.last = Instant::now();
    }

    /// How many jobs to claim beyond the slots: none, unless all the slots are expected to turn over within a moment.
    fn ahead(&self, slots: usize) -> usize {
        let expected = (self.per_second * AHEAD.as_secs_f64()) as usize;
        if expected > slots { expected.min(MOST_AHEAD) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_quick_jobs_are_claimed_ahead() {
        let pace = |per_second| Pace { last: Instant::now(), per_second };
        assert_eq!(pace(0.0).ahead(1), 0);
        assert_eq!(pace(1000.0).ahead(64), 0, "ten of them start in the next moment, into free slots");
        assert_eq!(pace(10_000.0).ahead(64), 100);
        assert_eq!(pace(1e9).ahead(64), MOST_AHEAD);
    }
}
