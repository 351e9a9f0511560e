//! The low-water marks of a claimer. A claim starts at the marks, so that it need not pass over the dead rows of
//! earlier jobs.

use std::time::{Duration, Instant};

use crate::driver::{Claimed, Mark, Marks, Start};
use crate::worker::claim::look_budget::{LOOK_BACK_EVERY, LookBudget};

/// If the last place that the claims have reached is recent, the next claim starts 50 ms below this place. Transactions
/// commit a little out of order, so a job below this place may have become visible only now.
const SLACK: Duration = Duration::from_millis(50);
/// A place is recent if its due time is less than 1 s ago. Below an older place, only looks back find jobs that were
/// committed late.
const RECENT: Duration = Duration::from_secs(1);
/// A near look back starts 2 s below the marks. A look back over the whole queue starts at the very start of the queue.
const NEAR: Duration = Duration::from_secs(2);
/// A sweep is a claim from the very start of the queue. A sweep of at most 3 ms costs no more than a claim from the
/// marks.
const CHEAP: Duration = Duration::from_millis(3);

/// The low-water marks of one claimer.
///
/// The marks are a guess: due jobs may appear below them. These jobs are found by a look back, or by a sweep: a claim
/// from the very start of the queue.
#[derive(Default)]
pub(crate) struct LowWater {
    marks: Marks,
    last_sweep: Option<LookBudget>,
    /// The last look back that started 2 s before the due times of the marks.
    last_near_look: Option<LookBudget>,
    /// True if the last claim found a full queue, so that due jobs were left.
    busy: bool,
    /// For each level, the lowest place from which a claim under way could take jobs when the last look back began.
    /// `None` if no claim could be under way then.
    claimed_from: Option<Marks>,
    /// The marks as they were before looks back lowered them.
    lowered_from: Marks,
    second_look: Option<SecondLook>,
    last_claim_took: Duration,
}

/// A request for a second look back. The first look back has seen due jobs below the marks, and other workers may be
/// claiming these jobs just now. If the second look back finds such a job again, the claims have passed this job.
struct SecondLook {
    seen_at: Instant,
    from: Marks,
}

/// Returns the lower mark of each level.
pub(crate) fn lower(mut marks: Marks, others: Marks) -> Marks {
    marks.iter_mut().zip(others).for_each(|(mark, other)| *mark = other.min(*mark));
    marks
}

impl LowWater {
    /// Returns the start of the next claim. `sharing`: the number of other claims on the queue at the same time.
    ///
    /// In a full queue, the claim may start at the place that the other claims have reached. After a look back has
    /// lowered this claimer's marks, the claim starts at these marks instead, to take the jobs that the claims have
    /// passed.
    pub(crate) fn start(&self, sharing: usize) -> Start {
        let marks = self.marks();
        let caught_up = marks.iter().zip(&self.lowered_from).all(|(mark, from)| mark >= from);
        let shared = sharing > 0 && self.busy && caught_up && marks != Marks::default();
        Start { marks, shared }
    }

    /// Returns the marks of the next claim. Empty marks make this claim a sweep. The first claim is a sweep, and so is
    /// the first claim after `forget`. Any other claim is a sweep if the queue is not full and the last sweep was
    /// cheap.
    fn marks(&self) -> Marks {
        match &self.last_sweep {
            Some(sweep) if self.busy || sweep.took > CHEAP => self.marks,
            _ => Marks::default(),
        }
    }

    /// Notes that jobs may have appeared at any place since the last look, so that looks back are needed.
    pub(crate) fn jobs_may_have_appeared(&mut self) {
        self.last_sweep.iter_mut().chain(&mut self.last_near_look).for_each(|look| look.needs_another = true);
    }

    /// Returns the time until the next look back; `None` if none is needed. `sharing`: the number of other workers that
    /// look back.
    pub(crate) fn until_look_back(&self, sharing: usize) -> Option<Duration> {
        let sweep = self.last_sweep.as_ref().filter(|_| self.marks() != Marks::default())?;
        let near = self.last_near_look.as_ref().map_or(Some(Duration::ZERO), |near| near.until_next(sharing));
        near.into_iter().chain(sweep.until_next(sharing)).chain(self.until_second_look()).min()
    }

    /// Returns the time until the second look back; `None` if none is requested. In a full queue, the claims under way
    /// at the first look back are most likely over after this time.
    fn until_second_look(&self) -> Option<Duration> {
        let wait = if self.busy { LOOK_BACK_EVERY.max(self.last_claim_took * 2) } else { Duration::ZERO };
        self.second_look.as_ref().map(|second_look| wait.saturating_sub(second_look.seen_at.elapsed()))
    }

    /// Returns the start of a look back, if it is time for a look back. `under_way`: the lowest place from which this
    /// claimer's own claims under way may take jobs.
    pub(crate) fn next_look_back(&mut self, sharing: usize, under_way: Option<Marks>) -> Option<Marks> {
        if self.marks() == Marks::default() {
            return None;
        }
        if self.until_second_look().is_some_and(|rest| !rest.is_zero()) {
            return None;
        }
        let by_others = (sharing > 0).then_some(self.marks);
        self.claimed_from = by_others.into_iter().chain(under_way).reduce(lower);
        if let Some(second_look) = &self.second_look {
            return Some(second_look.from);
        }
        if let Some(sweep) = self.last_sweep.as_mut().filter(|sweep| sweep.is_due(sharing)) {
            sweep.needs_another = false;
            return Some(Marks::default());
        }
        if self.last_near_look.as_ref().is_some_and(|near| !near.is_due(sharing)) {
            return None;
        }
        self.last_near_look.get_or_insert(LookBudget::after(Duration::ZERO, None)).needs_another = false;
        Some(self.marks.map(|mark| mark.map(|mark| Mark { available_at: mark.available_at - NEAR, id: 0 })))
    }

    /// Learns from a look back. `heads` are the places of the first due jobs that it found, one for each level. If the
    /// claims have passed the first due job of a level, this job's place becomes the mark of the level. Returns true if
    /// the next claim now starts at a lower place.
    ///
    /// In a full queue, a claim under way may still take any job above the claim's start, so such a job does not count
    /// as passed. Claims of other workers may even start below all starts that this worker knows. If other workers
    /// claim, a job below all known starts counts as passed only if a second look back finds it again.
    pub(crate) fn learn_heads(&mut self, from: Marks, heads: Marks, took: Duration, sharing: usize) -> bool {
        let before = self.marks();
        let shared = self.busy && sharing > 0;
        let mut second_look = SecondLook { seen_at: Instant::now(), from: self.marks };
        for (level, head) in heads.into_iter().enumerate() {
            let mark = &mut self.marks[level];
            let left_behind_below = match self.claimed_from {
                Some(claimed_from) if self.busy => claimed_from[level].min(*mark),
                _ => *mark,
            };
            if head.is_none() || head >= left_behind_below {
                continue;
            }
            second_look.from[level] = head;
            // A job that stands exactly at the start of this look back was already seen by the first look back.
            if !shared || head == from[level] {
                self.lowered_from[level] = self.lowered_from[level].max(*mark);
                *mark = head;
            }
        }
        let was_second_look = self.second_look.is_some();
        self.second_look = (shared && !was_second_look && second_look.from != self.marks).then_some(second_look);
        let last = if from == Marks::default() { &mut self.last_sweep } else { &mut self.last_near_look };
        if let Some(last) = last {
            *last = last.followed_by(took);
        }
        lower(before, self.marks()) != before
    }

    /// Forgets the marks, since jobs may be due below the marks. The next claim is a sweep, even if the last sweep was
    /// slow.
    pub(crate) fn forget(&mut self) {
        (self.last_sweep, self.second_look) = (None, None);
    }

    /// Learns from a claim that started at `start` and asked for `limit` jobs.
    pub(crate) fn learn(&mut self, start: Marks, claimed: &Claimed, limit: usize, took: Duration) {
        if start == Marks::default() {
            self.last_sweep = Some(LookBudget::after(took, self.last_sweep.as_ref()));
        }
        (self.busy, self.last_claim_took) = (claimed.jobs.len() >= limit || claimed.more, took);
        let Some(now) = claimed.looked_at else { return };
        let edge = Mark { available_at: now - SLACK, id: 0 };
        // In the first `exhausted` levels, the claim has searched up to the present.
        let exhausted = match claimed.jobs.last() {
            Some(last) if self.busy => last.priority.level() as usize,
            _ => self.marks.len(),
        };
        let mut reached = self.marks;
        reached[..exhausted].fill(Some(edge));
        if let (true, Some(last)) = (self.busy, claimed.jobs.last()) {
            let age = now.duration_since(last.available_at).unwrap_or_default();
            let place = Mark { available_at: last.available_at, id: last.reservation.id };
            let slack = Mark { available_at: last.available_at - SLACK, id: 0 };
            reached[exhausted] = Some(if age < RECENT { slack } else { place });
        }
        for ((mark, reached), start) in self.marks.iter_mut().zip(reached).zip(start) {
            // A mark below the start of this claim stays: a look back has lowered this mark since the claim began.
            if *mark >= start {
                *mark = reached;
            }
        }
    }
}

#[cfg(test)]
mod tests;
