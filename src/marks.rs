//! Where the head of a queue is, so that a claim need not pass over the dead rows of what was claimed before.

use std::time::{Duration, Instant};

use crate::driver::{Claimed, Mark, Marks};

/// How far below the last place a claim begins to look, where that place is recent: transactions commit a little out of the
/// order of their beginnings.
const SLACK: Duration = Duration::from_millis(50);
/// What counts as recent. Further back only a sweep looks for what a long transaction left.
const RECENT: Duration = Duration::from_secs(1);
/// How often a busy claimer sweeps, at most.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// Sweeps take no more than this part of the time: a twentieth.
const SWEEP_SHARE: u32 = 20;
/// A sweep this quick is as good as any other look.
const CHEAP: Duration = Duration::from_millis(3);

/// A claimer's low-water marks. They are a hint: whatever lies below them is found by a sweep, which looks from the very start.
#[derive(Default)]
pub(crate) struct LowWater {
    marks: Marks,
    swept: Option<Swept>,
    /// The last look left something.
    busy: bool,
}

struct Swept {
    at: Instant,
    took: Duration,
}

impl LowWater {
    /// From where the next look starts: nowhere in particular, if it is to be a sweep.
    pub(crate) fn start(&self) -> Marks {
        if self.until_sweep().is_zero() { Marks::default() } else { self.marks }
    }

    /// How long until a sweep is affordable.
    pub(crate) fn until_sweep(&self) -> Duration {
        let Some(swept) = &self.swept else { return Duration::ZERO };
        let every = match (self.busy, swept.took <= CHEAP) {
            (false, true) => Duration::ZERO,
            _ => SWEEP_EVERY.max(swept.took * SWEEP_SHARE),
        };
        every.saturating_sub(swept.at.elapsed())
    }

    /// A reason to mistrust the marks: sweep next, whatever it costs.
    pub(crate) fn forget(&mut self) {
        self.swept = None;
    }

    /// What a look from `start` has found, which could have found `limit`.
    pub(crate) fn learn(&mut self, start: Marks, claimed: &Claimed, limit: usize, took: Duration) {
        if start == Marks::default() {
            self.swept = Some(Swept { at: Instant::now(), took });
        }
        self.busy = claimed.jobs.len() >= limit;
        let Some(now) = claimed.looked_at else { return };
        let edge = Mark { available_at: now - SLACK, id: 0 };
        // Levels that were looked at to their end, which is now.
        let exhausted = match claimed.jobs.last() {
            Some(last) if self.busy => last.priority.level() as usize,
            _ => self.marks.len(),
        };
        self.marks[..exhausted].fill(Some(edge));
        if let (true, Some(last)) = (self.busy, claimed.jobs.last()) {
            let age = now.duration_since(last.available_at).unwrap_or_default();
            let place = Mark { available_at: last.available_at, id: last.reservation.id };
            let slack = Mark { available_at: last.available_at - SLACK, id: 0 };
            self.marks[exhausted] = Some(if age < RECENT { slack } else { place });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::job::{Payload, Priority, Reservation, ReservedJob};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn job(id: i64, priority: Priority, available_at: SystemTime) -> ReservedJob {
        ReservedJob {
            reservation: Reservation { id, worker: 1, attempt: 1, reserved_at: at(100) },
            queue: "q".into(),
            kind: "k".into(),
            payload: Payload::encode(&()).unwrap(),
            priority,
            failures: 0,
            max_attempts: 1,
            available_at,
            created_at: available_at,
            key: None,
            tags: vec![],
            metadata: None,
            timeout: None,
            cancel_requested: false,
        }
    }

    fn claimed(jobs: Vec<ReservedJob>) -> Claimed {
        Claimed { jobs, due_in: None, looked_at: Some(at(100)) }
    }

    const QUICK: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_look_is_a_sweep_and_so_is_any_that_is_cheap_and_not_in_a_hurry() {
        let mut low = LowWater::default();
        assert_eq!(low.start(), Marks::default());
        low.learn(Marks::default(), &claimed(vec![]), 10, QUICK);
        assert_eq!(low.start(), Marks::default());
    }

    #[test]
    fn a_busy_claimer_goes_on_where_it_stood() {
        let mut low = LowWater::default();
        low.learn(Marks::default(), &claimed(vec![job(7, Priority::Normal, at(50))]), 1, QUICK);
        let edge = Some(Mark { available_at: at(100) - SLACK, id: 0 });
        assert_eq!(low.start(), [edge, edge, Some(Mark { available_at: at(50), id: 7 }), None]);
    }

    #[test]
    fn at_the_live_edge_it_leaves_some_slack() {
        let mut low = LowWater::default();
        low.learn(Marks::default(), &claimed(vec![job(7, Priority::Urgent, at(100))]), 1, QUICK);
        assert_eq!(low.start()[0], Some(Mark { available_at: at(100) - SLACK, id: 0 }));
    }

    #[test]
    fn a_look_that_found_all_moves_every_mark_to_now() {
        let mut low = LowWater::default();
        low.learn(Marks::default(), &claimed(vec![job(7, Priority::Low, at(50))]), 2, Duration::from_secs(1));
        assert_eq!(low.start(), [Some(Mark { available_at: at(100) - SLACK, id: 0 }); 4]);
    }

    #[test]
    fn a_dear_sweep_is_followed_by_a_longer_rest() {
        let mut low = LowWater::default();
        low.learn(Marks::default(), &claimed(vec![]), 10, Duration::from_millis(500));
        assert!(low.until_sweep() > Duration::from_secs(9), "{:?}", low.until_sweep());
        low.forget();
        assert_eq!(low.until_sweep(), Duration::ZERO);
    }

    #[test]
    fn what_was_not_looked_at_moves_no_mark() {
        let mut low = LowWater::default();
        low.learn(Marks::default(), &Claimed::default(), 10, Duration::from_secs(1));
        assert_eq!(low.marks, Marks::default());
    }
}
