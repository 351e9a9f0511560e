//! The low-water marks of a claimer: where the head of its queue is. A claim starts there, so that it need not pass
//! over the dead rows of earlier jobs.

use std::time::{Duration, Instant};

use crate::driver::{Claimed, Mark, Marks, Start};
use crate::worker::claim::look_budget::{LOOK_BACK_EVERY, LookBudget};

/// A claim starts 50 ms below the last place if that place is recent, since transactions commit a little out of order.
const SLACK: Duration = Duration::from_millis(50);
/// A place is recent if its due time is less than 1 s ago. Below older places, only looks back find late commits.
const RECENT: Duration = Duration::from_secs(1);
/// A look back starts 2 s below the marks, unless it starts at the very start of the queue.
const NEAR: Duration = Duration::from_secs(2);
/// A sweep that takes at most 3 ms costs no more than a look from the marks.
const CHEAP: Duration = Duration::from_millis(3);

/// A claimer's low-water marks.
///
/// They are a hint. A job below them is found by a look back, or by a sweep, which is a claim from the very start of
/// the queue.
#[derive(Default)]
pub(crate) struct LowWater {
    marks: Marks,
    last_sweep: Option<LookBudget>,
    /// The last look back that started 2 s below the marks.
    last_near_look: Option<LookBudget>,
    /// Whether the last claim left due jobs behind.
    busy: bool,
    /// When the last look back began, the lowest place from which a claim under way might take jobs; `None` if no claim
    /// could be under way.
    claimed_from: Option<Marks>,
    /// The marks before look backs lowered them.
    lowered_from: Marks,
    second_look: Option<SecondLook>,
    last_claim_took: Duration,
}

/// A look back has seen jobs below the marks that other workers may be claiming just now. A second look back finds out
/// whether they were left behind.
struct SecondLook {
    seen_at: Instant,
    from: Marks,
}

/// The lower mark of each level.
pub(crate) fn lower(mut marks: Marks, others: Marks) -> Marks {
    marks.iter_mut().zip(others).for_each(|(mark, other)| *mark = other.min(*mark));
    marks
}

impl LowWater {
    /// Where the next claim starts. `sharing`: how many other claims are made of the queue at the same time.
    ///
    /// In a full queue, the claim may start where these other claims have got. It may not while this claimer still
    /// claims jobs that were left behind.
    pub(crate) fn start(&self, sharing: usize) -> Start {
        let marks = self.marks();
        let caught_up = marks.iter().zip(&self.lowered_from).all(|(mark, from)| mark >= from);
        let shared = sharing > 0 && self.busy && caught_up && marks != Marks::default();
        Start { marks, shared }
    }

    /// The marks of the next claim. They are empty, which makes it a sweep, if the last sweep was cheap or if there was
    /// none.
    fn marks(&self) -> Marks {
        match &self.last_sweep {
            Some(sweep) if self.busy || sweep.took > CHEAP => self.marks,
            _ => Marks::default(),
        }
    }

    /// Notes that jobs may have appeared anywhere since the last look, so that looks back are needed.
    pub(crate) fn jobs_may_have_appeared(&mut self) {
        self.last_sweep.iter_mut().chain(&mut self.last_near_look).for_each(|look| look.needs_another = true);
    }

    /// How long until the next look back; `None` if none is needed. `sharing`: how many other workers look back.
    pub(crate) fn until_look_back(&self, sharing: usize) -> Option<Duration> {
        let sweep = self.last_sweep.as_ref().filter(|_| self.marks() != Marks::default())?;
        let near = self.last_near_look.as_ref().map_or(Some(Duration::ZERO), |near| near.until_next(sharing));
        near.into_iter().chain(sweep.until_next(sharing)).chain(self.until_second_look()).min()
    }

    /// How long until the claims that were under way at the first look are most likely over.
    fn until_second_look(&self) -> Option<Duration> {
        let wait = if self.busy { LOOK_BACK_EVERY.max(self.last_claim_took * 2) } else { Duration::ZERO };
        self.second_look.as_ref().map(|second_look| wait.saturating_sub(second_look.seen_at.elapsed()))
    }

    /// Where a look back has to start, if it is time for one. `under_way`: the lowest place from which this claimer's
    /// own claims under way may take jobs.
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

    /// Learns from a look back, which has found these heads of the levels. A head that was left behind lowers its mark.
    /// Returns whether the next claim starts lower than it would have before.
    ///
    /// In a full queue, a head that claims under way may take is not left behind. If other workers claim too, they may
    /// be taking a head below all known claims. Such a head counts only if a second look finds it again.
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
            // A head right where this look began was seen by an earlier look.
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

    /// Forgets the marks, since jobs may be due below them. The next claim is a sweep, whatever it costs.
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
        // The claim has looked at these levels up to the present.
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
            // A mark below the start was lowered by a look back since this claim began, and stays.
            if *mark >= start {
                *mark = reached;
            }
        }
    }
}

#[cfg(test)]
mod tests;
