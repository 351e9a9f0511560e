//! When something was looked at last, and when another look is affordable.

use std::time::{Duration, Instant};

/// How often to look below the marks, at most.
pub(crate) const EVERY: Duration = Duration::from_millis(50);
/// The part of the time that looking below the marks may take, of all workers of a queue together: a twentieth.
const SHARE: u32 = 20;

/// A look at the whole queue, or back to a little below the marks.
pub(crate) struct LookBudget {
    at: Instant,
    /// The shorter of this one and the one before: a machine that stood still for a moment says nothing of what the
    /// next will take.
    pub(crate) took: Duration,
    /// This one alone.
    took_itself: Duration,
    /// Jobs may have appeared there since.
    pub(crate) again: bool,
    /// By which the rest until the next one is made longer or shorter, so that workers that share a queue take turns.
    jitter: f64,
}

impl LookBudget {
    pub(crate) fn ended(took: Duration, before: Option<&LookBudget>) -> LookBudget {
        let shorter = before.map_or(took, |before| took.min(before.took_itself));
        LookBudget { at: Instant::now(), took: shorter, took_itself: took, again: true, jitter: fastrand::f64() }
    }

    /// The next one is over; what has appeared since it began is still to be looked at.
    pub(crate) fn followed_by(&self, took: Duration) -> LookBudget {
        LookBudget { again: self.again, ..LookBudget::ended(took, Some(self)) }
    }

    /// How long until another one is affordable; `None` if there is no need for one.
    pub(crate) fn until_next(&self, sharing: usize) -> Option<Duration> {
        let rest = EVERY.max(self.took.saturating_mul(SHARE));
        // Of several that draw lots, the first comes about as soon as one alone would.
        let rest = if sharing == 0 { rest } else { rest.mul_f64(self.jitter * (sharing + 1) as f64) };
        self.again.then(|| rest.saturating_sub(self.at.elapsed()))
    }

    pub(crate) fn is_due(&self, sharing: usize) -> bool {
        self.until_next(sharing).is_some_and(|rest| rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(100);
    const DEAR: Duration = Duration::from_millis(500);

    #[test]
    fn one_look_that_took_long_does_not_delay_the_next() {
        let mut last = LookBudget::ended(QUICK, None);
        for (took, soon) in [(DEAR, true), (DEAR, false), (QUICK, true)] {
            last = LookBudget::ended(took, Some(&last));
            assert_eq!(last.until_next(0).unwrap() <= EVERY, soon, "{took:?}");
        }
    }

    #[test]
    fn of_several_workers_most_look_later_than_one_alone_would() {
        let alone = DEAR * SHARE;
        let later = (0..1000).filter(|_| LookBudget::ended(DEAR, None).until_next(3).unwrap() > alone).count();
        assert!((600..900).contains(&later), "{later} of 1000, where three of four are expected");
    }
}
