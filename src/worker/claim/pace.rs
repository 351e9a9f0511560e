//! How quickly jobs are worked off, and what that says of the next claim.

use std::time::{Duration, Instant};

/// How much work to claim ahead of free slots: 10 ms' worth for each worker on the queue, 100 ms' worth at most. A
/// worker alone counts twice, since it makes two claims at a time.
pub(super) const AHEAD: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// No more jobs than this are claimed ahead.
pub(super) const MOST_AHEAD: usize = 2000;
/// Claiming ahead grows by this factor at most from one claim to the next, since the jobs to come may be slower.
const GROWTH: usize = 4;
/// Of the workers that share a full queue, about so many claim at a time. More would be in each other's way: a claim
/// passes over the rows that others are about to reserve, and locks those that they have reserved since it began.
const AT_A_TIME: f64 = 5.0;

/// The turn of so many others: as long as makes a worker one of the few that claim at a time, but no longer than what
/// it has claimed ahead may last.
pub(super) fn turn_of(others: usize, took: Duration) -> Duration {
    let share = ((others as f64 + 1.0) / AT_A_TIME - 1.0).max(0.0);
    took.mul_f64(share * (0.5 + fastrand::f64())).min(AHEAD.1)
}

/// How quickly jobs are worked off.
pub(super) struct Pace {
    /// When jobs were taken last, and how many.
    last: Instant,
    taken: usize,
    per_second: f64,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { last: Instant::now(), taken: 0, per_second: 0.0 }
    }

    /// So many are taken. If those before filled all slots and were over at some time, it is by them that the pace is
    /// known, and not by how long the claim took that brought these.
    pub(super) fn took(&mut self, jobs: usize, slots: usize, ran_dry: Option<Instant>) {
        let (worked, over) = match ran_dry {
            Some(ran_dry) if self.taken >= slots => (self.taken, ran_dry.saturating_duration_since(self.last)),
            _ => (jobs, self.last.elapsed()),
        };
        self.per_second = worked as f64 / over.as_secs_f64().max(1e-6);
        (self.last, self.taken) = (Instant::now(), jobs);
    }

    /// How many jobs to claim beyond the slots: none, unless all the slots are expected to turn over within that time.
    pub(super) fn ahead(&self, slots: usize, time: Duration) -> usize {
        let expected = (self.per_second * time.as_secs_f64()) as usize;
        if expected > slots { expected.min(MOST_AHEAD).min(self.taken.max(slots) * GROWTH) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
