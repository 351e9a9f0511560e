//! When the next job of a queue is due, as its claimer was told last, so that it need not ask at each look.

use std::time::Duration;

use tokio::time::Instant;

/// How often to ask at least: the answer also tells of limits that were set.
const EVERY: Duration = Duration::from_millis(50);

/// Until when none of the delayed jobs becomes due.
#[derive(Default)]
pub(crate) struct NextDue {
    known_until: Option<Instant>,
    none_delayed: bool,
}

impl NextDue {
    /// A look has told when the next job is due, if there is one. `looked`: at all there is.
    pub(crate) fn learn(&mut self, due_in: Option<Duration>, looked: bool) {
        self.known_until = Some(Instant::now() + due_in.map_or(EVERY, |due_in| due_in.min(EVERY)));
        self.none_delayed = looked && due_in.is_none();
    }

    /// Whether there was none to become due.
    pub(crate) fn none_delayed(&self) -> bool {
        self.none_delayed
    }

    /// Whether that is still to come.
    pub(crate) fn is_known(&self) -> bool {
        self.known_until.is_some_and(|until| until > Instant::now())
    }

    /// After how long to look or ask again; never zero, which would say that a job is due. `None`: nothing was told yet.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let until = self.known_until?;
        Some(until.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn a_delayed_job_is_looked_for_when_it_is_due_however_often_was_looked_before() {
        let mut next = NextDue::default();
        assert!(!next.is_known() && next.remaining().is_none());
        next.learn(Some(MOMENT * 2), true);
        assert_eq!((next.is_known(), next.remaining()), (true, Some(MOMENT * 2)));
        tokio::time::advance(MOMENT).await;
        assert_eq!((next.is_known(), next.remaining()), (true, Some(MOMENT)));
        tokio::time::advance(MOMENT).await;
        assert!(!next.is_known() && next.remaining().is_some_and(|remaining| !remaining.is_zero()));
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_is_delayed_it_is_asked_from_time_to_time() {
        let mut next = NextDue::default();
        for told in [None, Some(Duration::MAX)] {
            next.learn(told, true);
            assert_eq!(next.remaining(), Some(EVERY));
            tokio::time::advance(EVERY).await;
            assert!(!next.is_known());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_due_and_locked_is_asked_for_again() {
        let mut next = NextDue::default();
        next.learn(Some(Duration::ZERO), true);
        assert!(!next.is_known());
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_known_to_be_delayed_only_where_a_look_at_all_of_them_has_found_none() {
        let mut next = NextDue::default();
        assert!(!next.none_delayed());
        for (due_in, looked, none) in [(None, true, true), (Some(MOMENT), true, false), (None, false, false)] {
            next.learn(due_in, looked);
            assert_eq!(next.none_delayed(), none);
        }
    }
}
