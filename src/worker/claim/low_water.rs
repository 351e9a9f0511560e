//! Where the head of a queue is, so that a claim need not pass over the dead rows of what was claimed before.

use std::time::{Duration, Instant};

use crate::driver::{Claimed, Mark, Marks, Start};
use crate::worker::claim::look_budget::{EVERY, LookBudget};

/// How far below the last place a claim begins to look, where that place is recent: transactions commit a little out of
/// the order of their beginnings.
const SLACK: Duration = Duration::from_millis(50);
/// What counts as recent. Further back only a sweep looks for what a long transaction left.
const RECENT: Duration = Duration::from_secs(1);
/// How far below the marks to look for what came a little late.
const NEAR: Duration = Duration::from_secs(2);
/// A sweep this quick is as good as any other look.
const CHEAP: Duration = Duration::from_millis(3);

/// A claimer's low-water marks. They are a hint: what lies below them is found by looks back, or by a sweep, which is a
/// claim that looks from the very start.
#[derive(Default)]
pub(crate) struct LowWater {
    marks: Marks,
    /// The last look from the very start.
    whole: Option<LookBudget>,
    /// The last look back to a little below the marks.
    near: Option<LookBudget>,
    /// The last claim left something.
    busy: bool,
    /// Where claims under way may have begun when the last look back did, if there could be any.
    when_looked_back: Option<Marks>,
    /// The marks as they were before look backs lowered them.
    lowered_from: Marks,
    doubt: Option<Doubt>,
    /// How long the last claim took.
    claim_took: Duration,
}

/// A look back has seen jobs which other workers may just be claiming.
struct Doubt {
    since: Instant,
    /// Where to look whether they are still there.
    from: Marks,
}

/// The lower mark of each level.
pub(crate) fn lower(mut marks: Marks, others: Marks) -> Marks {
    marks.iter_mut().zip(others).for_each(|(mark, other)| *mark = other.min(*mark));
    marks
}

impl LowWater {
    /// From where the next claim starts: from nowhere in particular, which is a sweep, if that is cheap or was never
    /// made. In a full queue that others work as well, no lower than where these have got, unless something was left
    /// behind.
    pub(crate) fn start(&self, sharing: usize) -> Start {
        let marks = self.marks();
        let caught_up = marks.iter().zip(&self.lowered_from).all(|(mark, from)| mark >= from);
        let shared = sharing > 0 && self.busy && caught_up && marks != Marks::default();
        Start { marks, shared }
    }

    fn marks(&self) -> Marks {
        match &self.whole {
            Some(whole) if self.busy || whole.took > CHEAP => self.marks,
            _ => Marks::default(),
        }
    }

    /// Jobs may have appeared anywhere since the last look.
    pub(crate) fn stir(&mut self) {
        self.whole.iter_mut().chain(&mut self.near).for_each(|last| last.again = true);
    }

    /// How long until it is time to look back; `None`: no need to. `sharing`: how many other workers do the same.
    pub(crate) fn until_look_back(&self, sharing: usize) -> Option<Duration> {
        let whole = self.whole.as_ref().filter(|_| self.marks() != Marks::default())?;
        let near = self.near.as_ref().map_or(Some(Duration::ZERO), |near| near.until_next(sharing));
        near.into_iter().chain(whole.until_next(sharing)).chain(self.until_sure()).min()
    }

    /// How long until the claims that were under way when something was seen are most likely over.
    fn until_sure(&self) -> Option<Duration> {
        let wait = if self.busy { EVERY.max(self.claim_took * 2) } else { Duration::ZERO };
        self.doubt.as_ref().map(|doubt| wait.saturating_sub(doubt.since.elapsed()))
    }

    /// From where to look back, if it is time to. `under_way`: from where the claims look that are under way.
    pub(crate) fn look_back(&mut self, sharing: usize, under_way: Option<Marks>) -> Option<Marks> {
        if self.marks() == Marks::default() {
            return None;
        }
        if self.until_sure().is_some_and(|rest| !rest.is_zero()) {
            return None;
        }
        let beside = (sharing > 0).then_some(self.marks);
        self.when_looked_back = beside.into_iter().chain(under_way).reduce(lower);
        if let Some(doubt) = &self.doubt {
            return Some(doubt.from);
        }
        if let Some(whole) = self.whole.as_mut().filter(|whole| whole.is_due(sharing)) {
            whole.again = false;
            return Some(Marks::default());
        }
        if self.near.as_ref().is_some_and(|near| !near.is_due(sharing)) {
            return None;
        }
        self.near.get_or_insert(LookBudget::ended(Duration::ZERO, None)).again = false;
        Some(self.marks.map(|mark| mark.map(|mark| Mark { available_at: mark.available_at - NEAR, id: 0 })))
    }

    /// A look back from there has found where the levels begin, if there is anything due: the next claim starts no
    /// later. In a full queue with other claims under way, what lay above these when it began is where they have gone
    /// on since, and not left behind; what lay below may just be claimed by other workers, and counts when it is still
    /// there a little later. Whether the next claim would look lower than it would have before.
    pub(crate) fn looked_back(&mut self, from: Marks, heads: Marks, took: Duration, sharing: usize) -> bool {
        let before = self.marks();
        let shared = self.busy && sharing > 0;
        let mut doubt = Doubt { since: Instant::now(), from: self.marks };
        for (level, head) in heads.into_iter().enumerate() {
            let mark = &mut self.marks[level];
            let left_behind = match self.when_looked_back {
                Some(when) if self.busy => when[level].min(*mark),
                _ => *mark,
            };
            if head.is_none() || head >= left_behind {
                continue;
            }
            doubt.from[level] = head;
            // Right where this look began, so an earlier one has seen it.
            if !shared || head == from[level] {
                self.lowered_from[level] = self.lowered_from[level].max(*mark);
                *mark = head;
            }
        }
        let was_second_look = self.doubt.is_some();
        self.doubt = (shared && !was_second_look && doubt.from != self.marks).then_some(doubt);
        let last = if from == Marks::default() { &mut self.whole } else { &mut self.near };
        if let Some(last) = last {
            *last = last.followed_by(took);
        }
        lower(before, self.marks()) != before
    }

    /// A reason to mistrust the marks: sweep next, whatever it costs.
    pub(crate) fn forget(&mut self) {
        (self.whole, self.doubt) = (None, None);
    }

    /// What a look from `start` has found, which could have found `limit`.
    pub(crate) fn learn(&mut self, start: Marks, claimed: &Claimed, limit: usize, took: Duration) {
        if start == Marks::default() {
            self.whole = Some(LookBudget::ended(took, self.whole.as_ref()));
        }
        (self.busy, self.claim_took) = (claimed.jobs.len() >= limit || claimed.more, took);
        let Some(now) = claimed.looked_at else { return };
        let edge = Mark { available_at: now - SLACK, id: 0 };
        // Levels that were looked at to their end, which is now.
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
            // What a look back has found since this one began is still to be looked at.
            if *mark >= start {
                *mark = reached;
            }
        }
    }
}

#[cfg(test)]
mod tests;
