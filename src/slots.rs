//! The slots of one queue: so many of its jobs run at once, and where they are quick, some wait here for their turn.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::attempt::Attempts;
use crate::driver::{Ending, Settlement};
use crate::held::Hold;
use crate::job::ReservedJob;
use crate::pauses::Pauses;

/// How long a full worker gathers freed slots, so that it claims in batches and not one by one.
const GATHER: Duration = Duration::from_millis(2);
/// Jobs that are expected to start within this time are claimed ahead, times the number of claims that are made of the queue in turns, of
/// which one worker makes two; and the longest that this may come to.
const AHEAD: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// At most so many.
const MOST_AHEAD: usize = 2000;
/// Claiming ahead grows by this factor at most from one claim to the next, since the jobs to come may be slower.
const GROWTH: usize = 4;
/// Of the workers that share a full queue, about so many claim at a time. More would be in each other's way: a claim passes over the
/// rows that others are about to reserve, and locks those that they have reserved since it began.
const AT_A_TIME: f64 = 5.0;
/// If for so long none of them starts, they go back: the jobs before them are not as quick as they were.
const STUCK: Duration = Duration::from_millis(100);

type Claimed = (ReservedJob, Arc<Hold>);

/// A job that waits for a slot, and how often its queue had been paused when its claim began.
struct Waiting {
    claimed: Claimed,
    pauses: u64,
}

/// Runs the jobs of one queue.
pub(crate) struct Slots {
    attempts: Arc<Attempts>,
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
    /// How many other workers work the same queues.
    sharing: Arc<AtomicUsize>,
    _pausing: AbortOnDropHandle<()>,
}

/// Jobs that wait for a slot.
struct Ahead {
    jobs: Mutex<VecDeque<Waiting>>,
    /// One of them has started, or gone back.
    started: Notify,
    /// When all that had been taken were over.
    ran_dry: Mutex<Option<Instant>>,
    endings: mpsc::Sender<Settlement>,
    pauses: Arc<Pauses>,
}

impl Slots {
    pub(crate) fn new(
        count: usize,
        attempts: Arc<Attempts>,
        endings: mpsc::Sender<Settlement>,
        running: TaskTracker,
        sharing: Arc<AtomicUsize>,
        pauses: Arc<Pauses>,
    ) -> Slots {
        let (jobs, started, ran_dry) = Default::default();
        let ahead = Arc::new(Ahead { jobs, started, ran_dry, endings, pauses });
        let pausing = AbortOnDropHandle::new(
            attempts.parts.spawn("what gives jobs back at a pause", give_back_at_each_pause(Arc::clone(&ahead))),
        );
        let (free, pace) = (Arc::new(Semaphore::new(count)), Pace::new());
        let (starved, limited, affordable) = (false, false, MOST_AHEAD);
        Slots { attempts, running, ahead, count, free, pace, starved, limited, affordable, sharing, _pausing: pausing }
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
            if tokio::time::timeout(STUCK, self.ahead.started.notified()).await.is_err() {
                self.pace = Pace::new();
                self.ahead.give_back(|_| true).await;
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

    /// How many jobs to claim beyond the slots.
    fn most_ahead(&self) -> usize {
        // While many endings wait for the locks of others, what is claimed ahead would only wait behind these.
        if self.limited || self.attempts.held.count_locked() > self.count {
            return 0;
        }
        let (time, longest) = AHEAD;
        let claims = u32::try_from(self.sharing.load(Ordering::Relaxed) + 1).unwrap_or(u32::MAX).max(2);
        self.pace.ahead(self.count, time.saturating_mul(claims).min(longest)).min(self.affordable)
    }

    /// How many more can be claimed while so many are about to be taken, and so many to be claimed: none, if not enough for a claim to
    /// be worth it.
    pub(crate) fn room_beside(&self, taken: usize, claimed: usize) -> usize {
        let places = self.free.available_permits() + self.most_ahead();
        let room = places.saturating_sub(self.ahead.lock().len() + taken + claimed);
        if room >= taken / 2 { room } else { 0 }
    }

    /// How long to leave a full queue to the other workers after a claim that took so long; not at all where nothing is claimed
    /// ahead.
    pub(crate) fn others_turn(&self, took: Duration) -> Duration {
        if self.most_ahead() == 0 { Duration::ZERO } else { turn_of(self.sharing.load(Ordering::Relaxed), took) }
    }

    /// Holds these jobs, and starts as many as there are free slots; the others wait for theirs. `pauses`: how often the queue had
    /// been paused when their claim began; if it has been since, none starts, and they go back.
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
            let hold = self.attempts.hold(&job);
            Waiting { claimed: (job, hold), pauses }
        });
        self.ahead.lock().extend(jobs);
        if pauses != self.pauses() {
            self.ahead.pauses.found_stale();
        }
    }

    /// Runs one job after another in one slot, until none waits.
    fn start(&self, first: Claimed, slot: OwnedSemaphorePermit) {
        let (attempts, ahead, free) = (Arc::clone(&self.attempts), Arc::clone(&self.ahead), Arc::clone(&self.free));
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

/// The turn of so many others: as long as makes a worker one of the few that claim at a time, but no longer than what it has claimed
/// ahead may last.
fn turn_of(others: usize, took: Duration) -> Duration {
    let share = ((others as f64 + 1.0) / AT_A_TIME - 1.0).max(0.0);
    took.mul_f64(share * (0.5 + fastrand::f64())).min(AHEAD.1)
}

/// What was claimed before a pause and has not started goes back, at no cost.
async fn give_back_at_each_pause(ahead: Arc<Ahead>) {
    loop {
        ahead.pauses.stale().await;
        ahead.give_back(|waiting| waiting.pauses != ahead.pauses.count()).await;
    }
}

impl Ahead {
    /// The next one to start.
    fn next(&self) -> Option<Claimed> {
        self.take_first(|waiting| waiting.pauses == self.pauses.count())
    }

    fn is_waiting(&self) -> bool {
        self.lock().iter().any(|waiting| waiting.pauses == self.pauses.count())
    }

    fn take_first(&self, which: impl Fn(&Waiting) -> bool) -> Option<Claimed> {
        let mut jobs = self.lock();
        let first = jobs.iter().position(which)?;
        let first = jobs.remove(first);
        drop(jobs);
        self.started.notify_one();
        first.map(|waiting| waiting.claimed)
    }

    /// Gives them back. May be dropped in the middle: each job either waits still, or is on its way back.
    async fn give_back(&self, which: impl Fn(&Waiting) -> bool) {
        while let Ok(place) = self.endings.reserve().await {
            let Some((job, hold)) = self.take_first(&which) else { return };
            let ending = if hold.cancel_requested() {
                Ending::Cancelled
            } else {
                Ending::Waiting { failure: None, delay: Duration::ZERO }
            };
            let (waited, ran) = (job.waited(), Duration::ZERO);
            place.send(Settlement { reservation: job.reservation, ending, waited, ran });
        }
    }

    async fn ended(&self, settlement: Settlement) {
        if self.endings.send(settlement).await.is_err() {
            tracing::error!(
                name: "job.unsettled", target: "reveille::job",
                "the settler is gone; the job will be rescued"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs_dry(&self) {
        *self.ran_dry.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When all that had been taken were over, if they are; until it is asked.
    fn ran_dry(&self) -> Option<Instant> {
        self.ran_dry.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How quickly jobs are worked off.
struct Pace {
    /// When jobs were taken last, and how many.
    last: Instant,
    taken: usize,
    per_second: f64,
}

impl Pace {
    fn new() -> Pace {
        Pace { last: Instant::now(), taken: 0, per_second: 0.0 }
    }

    /// So many are taken. If those before filled all slots and were over at some time, it is by them that the pace is known, and
    /// not by how long the claim took that brought these.
    fn took(&mut self, jobs: usize, slots: usize, ran_dry: Option<Instant>) {
        let (worked, over) = match ran_dry {
            Some(ran_dry) if self.taken >= slots => (self.taken, ran_dry.saturating_duration_since(self.last)),
            _ => (jobs, self.last.elapsed()),
        };
        self.per_second = worked as f64 / over.as_secs_f64().max(1e-6);
        (self.last, self.taken) = (Instant::now(), jobs);
    }

    /// How many jobs to claim beyond the slots: none, unless all the slots are expected to turn over within that time.
    fn ahead(&self, slots: usize, time: Duration) -> usize {
        let expected = (self.per_second * time.as_secs_f64()) as usize;
        if expected > slots { expected.min(MOST_AHEAD).min(self.taken.max(slots) * GROWTH) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::held::Held;
    use crate::job::{Payload, Priority, Reservation};

    fn waiting(id: i64, pauses: u64) -> Waiting {
        let now = SystemTime::now();
        let reservation = Reservation { id, worker: 1, attempt: 1, reserved_at: now, hint: 0 };
        let job = ReservedJob {
            reservation,
            queue: "q".into(),
            kind: "k".into(),
            payload: Payload::encode(&()).unwrap(),
            priority: Priority::Normal,
            failures: 0,
            max_attempts: 1,
            available_at: now,
            created_at: now,
            key: None,
            tags: vec![],
            metadata: None,
            timeout: None,
            cancel_requested: false,
            undecodable: None,
        };
        Waiting { claimed: (job, Held::default().take(reservation, false)), pauses }
    }

    fn ahead(jobs: impl IntoIterator<Item = Waiting>, endings: mpsc::Sender<Settlement>) -> Arc<Ahead> {
        let (jobs, pauses) = (Mutex::new(jobs.into_iter().collect()), Arc::default());
        Arc::new(Ahead { jobs, started: Notify::new(), ran_dry: Mutex::default(), endings, pauses })
    }

    #[tokio::test]
    async fn what_was_claimed_before_a_pause_never_starts_and_goes_back() {
        let (endings, mut inbox) = mpsc::channel(8);
        let ahead = ahead([waiting(1, 0), waiting(2, 0)], endings);
        let _pausing = AbortOnDropHandle::new(tokio::spawn(give_back_at_each_pause(Arc::clone(&ahead))));
        assert_eq!(ahead.next().map(|(job, _)| job.reservation.id), Some(1));
        ahead.pauses.add();
        // Resumed at once, and claimed again.
        ahead.lock().push_back(waiting(3, 1));
        assert_eq!(ahead.next().map(|(job, _)| job.reservation.id), Some(3), "not behind what goes back");
        assert!(ahead.next().is_none() && !ahead.is_waiting());
        let back = inbox.recv().await.unwrap();
        assert_eq!(back.reservation.id, 2);
        assert_eq!(back.ending, Ending::Waiting { failure: None, delay: Duration::ZERO });
    }

    #[tokio::test(start_paused = true)]
    async fn giving_back_can_be_broken_off_and_loses_no_job() {
        let (endings, mut inbox) = mpsc::channel(2);
        let ahead = ahead((0..10).map(|id| waiting(id, 0)), endings);
        let mut back = 0;
        while back < 10 {
            let given = tokio::time::timeout(Duration::from_millis(1), ahead.give_back(|_| true)).await;
            assert!(given.is_err(), "there is no room for all of them");
            while inbox.try_recv().is_ok() {
                back += 1;
            }
            assert_eq!(back + ahead.lock().len(), 10);
        }
    }

    #[test]
    fn of_many_workers_a_few_claim_at_a_time() {
        let took = Duration::from_millis(10);
        assert_eq!(turn_of(4, took), Duration::ZERO);
        for _ in 0..100 {
            let turn = turn_of(15, took);
            assert!((Duration::from_millis(11)..=Duration::from_millis(33)).contains(&turn), "{turn:?}");
        }
        assert_eq!(turn_of(1000, took), AHEAD.1);
    }

    #[test]
    fn only_quick_jobs_are_claimed_ahead() {
        let ahead = |per_second, slots| {
            let pace = Pace { last: Instant::now(), taken: MOST_AHEAD, per_second };
            pace.ahead(slots, AHEAD.0)
        };
        assert_eq!(ahead(0.0, 1), 0);
        assert_eq!(ahead(1000.0, 64), 0, "ten of them start in the next moment, into free slots");
        assert_eq!(ahead(10_000.0, 64), 100);
        assert_eq!(ahead(1e9, 64), MOST_AHEAD);
    }

    #[test]
    fn the_pace_is_that_of_the_jobs_if_they_filled_the_slots_and_else_that_of_the_claims() {
        let (began, over) = (Instant::now(), Duration::from_millis(1));
        let pace = |taken, ran_dry: bool| {
            let last = began.checked_sub(Duration::from_secs(10)).unwrap();
            let mut pace = Pace { last, taken, per_second: 0.0 };
            pace.took(20, 64, ran_dry.then_some(last + over));
            pace
        };
        assert_eq!(pace(64, true).per_second, 64_000.0);
        assert_eq!(pace(64, true).ahead(64, AHEAD.0), 64 * GROWTH, "and grows by no more at once");
        for slow in [pace(64, false), pace(63, true)] {
            assert!(slow.per_second <= 2.0, "{}", slow.per_second);
        }
    }
}
