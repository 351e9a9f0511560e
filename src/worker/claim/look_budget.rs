//! The time of the last search below the low-water marks, and the time at which another search is affordable.

use std::time::{Duration, Instant};

/// Two searches below the marks are at least 50 ms apart.
pub(crate) const LOOK_BACK_EVERY: Duration = Duration::from_millis(50);
/// After a search, a worker that works its queue alone rests 20 times as long as the search took: its searches take
/// about a twentieth of the time. Workers that share a queue each rest longer, in proportion to their number, so that
/// the searches of all of them together take about a tenth of the time.
const REST_FACTOR: u32 = 20;

/// The cost of the last search of one sort, which decides how soon the next search of this sort may begin. A claimer
/// has two budgets: one for searches of the whole queue, and one for searches that start a little below the marks.
pub(crate) struct LookBudget {
    ended_at: Instant,
    /// The duration of this search or of the previous search, whichever is shorter. Thus a single slow search does not
    /// count: the machine may have stood still.
    pub(crate) took: Duration,
    took_itself: Duration,
    /// True if jobs may have appeared below the marks since this search began, so that another search is needed.
    pub(crate) needs_another: bool,
    /// A random factor of this worker's rest until its next search, so that the workers of a queue take turns.
    jitter: f64,
}

impl LookBudget {
    /// Returns the budget after a search that took the time `took`. `before`: the budget after the previous search.
    pub(crate) fn after(took: Duration, before: Option<&LookBudget>) -> LookBudget {
        let shorter = before.map_or(took, |before| took.min(before.took_itself));
        LookBudget {
            ended_at: Instant::now(),
            took: shorter,
            took_itself: took,
            needs_another: true,
            jitter: fastrand::f64(),
        }
    }

    /// Returns the budget after the next search, which took the time `took`. `needs_another` is kept: the search has
    /// not found the jobs that appeared after it began.
    pub(crate) fn followed_by(&self, took: Duration) -> LookBudget {
        LookBudget { needs_another: self.needs_another, ..LookBudget::after(took, Some(self)) }
    }

    /// Returns the time until another search is affordable; `None` if none is needed. `sharing`: the number of other
    /// workers that search.
    pub(crate) fn until_next(&self, sharing: usize) -> Option<Duration> {
        let rest = LOOK_BACK_EVERY.max(self.took.saturating_mul(REST_FACTOR));
        // Each of n workers rests for a random time of up to n * `rest`, so that the workers take turns. All of them
        // together make about two searches per `rest`.
        let rest = if sharing == 0 { rest } else { rest.mul_f64(self.jitter * (sharing + 1) as f64) };
        self.needs_another.then(|| rest.saturating_sub(self.ended_at.elapsed()))
    }

    pub(crate) fn is_due(&self, sharing: usize) -> bool {
        self.until_next(sharing).is_some_and(|rest| rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(100);
    const SLOW: Duration = Duration::from_millis(500);

    #[test]
    fn a_single_slow_look_does_not_delay_the_next() {
        let mut last = LookBudget::after(QUICK, None);
        for (took, soon) in [(SLOW, true), (SLOW, false), (QUICK, true)] {
            last = LookBudget::after(took, Some(&last));
            assert_eq!(last.until_next(0).unwrap() <= LOOK_BACK_EVERY, soon, "{took:?}");
        }
    }

    #[test]
    fn three_of_four_workers_look_later_than_a_single_worker() {
        let alone = SLOW * REST_FACTOR;
        let later = (0..1000).filter(|_| LookBudget::after(SLOW, None).until_next(3).unwrap() > alone).count();
        assert!((600..900).contains(&later), "{later} of 1000, where three of four are expected");
    }
}
