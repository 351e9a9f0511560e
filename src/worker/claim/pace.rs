//! The pace at which the jobs of a queue run, the number of jobs to claim ahead, and the rest between two claims.

use std::time::{Duration, Instant};

/// The jobs claimed ahead are as many as start within 10 ms for each worker on the queue, and within 100 ms at most. A
/// single worker counts twice, since it makes two claims at a time.
pub(super) const AHEAD_PER_WORKER: Duration = Duration::from_millis(10);
pub(super) const LONGEST_AHEAD: Duration = Duration::from_millis(100);
/// At most 2000 jobs are claimed ahead.
pub(super) const MOST_AHEAD: usize = 2000;
/// From one claim to the next, the number of jobs claimed ahead grows fourfold at most, since the next jobs may be
/// slower.
const AHEAD_GROWTH: usize = 4;
/// About five of the workers that share a full queue claim at the same time. More claims would slow each other down.
/// Each claim passes over rows that other claims are about to reserve, and locks rows that other claims have reserved
/// since the claim began.
const CLAIMS_AT_A_TIME: f64 = 5.0;

/// Returns the rest after a claim that took the time `took`, so that about five workers claim at a time. The rest is at
/// most 100 ms, since the jobs claimed ahead last no longer.
pub(super) fn rest_between_claims(other_workers: usize, took: Duration) -> Duration {
    let share = ((other_workers as f64 + 1.0) / CLAIMS_AT_A_TIME - 1.0).max(0.0);
    took.mul_f64(share * (0.5 + fastrand::f64())).min(LONGEST_AHEAD)
}

/// The number of jobs that run per second.
pub(super) struct Pace {
    /// The time at which the slots took the last jobs.
    taken_at: Instant,
    /// The number of jobs that the slots took at `taken_at`.
    taken: usize,
    per_second: f64,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { taken_at: Instant::now(), taken: 0, per_second: 0.0 }
    }

    /// Learns from a claim that returned `jobs` jobs. `ran_dry`: the time at which all earlier jobs were over, if they
    /// are over.
    ///
    /// If the earlier jobs filled all slots and are over, their running time sets the pace. Otherwise the time between
    /// the two claims sets the pace.
    pub(super) fn learn(&mut self, jobs: usize, slots: usize, ran_dry: Option<Instant>) {
        let (ended, within) = match ran_dry {
            Some(ran_dry) if self.taken >= slots => (self.taken, ran_dry.saturating_duration_since(self.taken_at)),
            _ => (jobs, self.taken_at.elapsed()),
        };
        self.per_second = ended as f64 / within.as_secs_f64().max(1e-6);
        (self.taken_at, self.taken) = (Instant::now(), jobs);
    }

    /// Returns the number of jobs to claim ahead. It is 0 if the slots alone can take all jobs that are expected to
    /// start within `time`.
    pub(super) fn ahead(&self, slots: usize, time: Duration) -> usize {
        let expected = (self.per_second * time.as_secs_f64()) as usize;
        if expected > slots { expected.min(MOST_AHEAD).min(self.taken.max(slots) * AHEAD_GROWTH) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_five_of_many_workers_claim_at_a_time() {
        let took = Duration::from_millis(10);
        assert_eq!(rest_between_claims(4, took), Duration::ZERO);
        for _ in 0..100 {
            let rest = rest_between_claims(15, took);
            assert!((Duration::from_millis(11)..=Duration::from_millis(33)).contains(&rest), "{rest:?}");
        }
        assert_eq!(rest_between_claims(1000, took), LONGEST_AHEAD);
    }

    #[test]
    fn only_quick_jobs_are_claimed_ahead() {
        let ahead = |per_second, slots| {
            let pace = Pace { taken_at: Instant::now(), taken: MOST_AHEAD, per_second };
            pace.ahead(slots, AHEAD_PER_WORKER)
        };
        assert_eq!(ahead(0.0, 1), 0);
        assert_eq!(ahead(1000.0, 64), 0, "ten jobs start within 10 ms, in free slots");
        assert_eq!(ahead(10_000.0, 64), 100);
        assert_eq!(ahead(1e9, 64), MOST_AHEAD);
    }

    #[test]
    fn the_pace_is_that_of_the_jobs_if_they_filled_all_slots() {
        let (began, ran_for) = (Instant::now(), Duration::from_millis(1));
        let pace = |taken, ran_dry: bool| {
            let taken_at = began.checked_sub(Duration::from_secs(10)).unwrap();
            let mut pace = Pace { taken_at, taken, per_second: 0.0 };
            pace.learn(20, 64, ran_dry.then_some(taken_at + ran_for));
            pace
        };
        assert_eq!(pace(64, true).per_second, 64_000.0);
        assert_eq!(pace(64, true).ahead(64, AHEAD_PER_WORKER), 64 * AHEAD_GROWTH, "it grows fourfold at most");
        for slow in [pace(64, false), pace(63, true)] {
            assert!(slow.per_second <= 2.0, "{}", slow.per_second);
        }
    }
}
