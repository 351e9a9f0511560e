//! When the next job of a queue is due, as its claimer was told last, so that it need not ask at each look.

use std::time::Duration;

use tokio::time::Instant;

/// How often to ask at least: the answer also tells of limits that were set.
const EVERY: Duration = Duration::from_millis(50);
/// The same while asleep, since what is enqueued then may be due sooner than this and is not looked for: one that is delayed by less, and
/// enqueued beside others so soon after the last answer, may start late by as much.
const EVERY_ASLEEP: Duration = Duration::from_millis(20);

/// Until when none of the delayed jobs becomes due.
#[derive(Default)]
pub(crate) struct NextDue {
    told: Option<Told>,
    none_delayed: bool,
}

/// What was told last: when, and by when one becomes due or it is to be asked again.
struct Told {
    at: Instant,
    known_until: Instant,
    none_soon: bool,
}

impl NextDue {
    /// A look has told when the next job is due, if there is one. `looked`: at all there is.
    pub(crate) fn learn(&mut self, due_in: Option<Duration>, looked: bool) {
        let (now, none_soon) = (Instant::now(), due_in.is_none_or(|due_in| due_in > EVERY));
        let known_until = now + due_in.map_or(EVERY, |due_in| due_in.min(EVERY));
        self.told = Some(Told { at: now, known_until, none_soon });
        self.none_delayed = looked && due_in.is_none();
    }

    /// Whether there was none to become due.
    pub(crate) fn none_delayed(&self) -> bool {
        self.none_delayed
    }

    /// Whether that is still to come.
    pub(crate) fn is_known(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.known_until > Instant::now())
    }

    /// Whether that is still to come, and was told so lately that who sleeps need not ask.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_known() && self.told.as_ref().is_some_and(|told| told.at.elapsed() < EVERY_ASLEEP)
    }

    /// Whether it is only time to ask again, while none is due as far as was told.
    pub(crate) fn is_to_be_asked(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.none_soon) && !self.is_fresh()
    }

    /// After how long to look or ask again; never zero, which would say that a job is due. `None`: nothing was told yet.
    pub(crate) fn remaining(&self, asleep: bool) -> Option<Duration> {
        let told = self.told.as_ref()?;
        let until = if asleep { told.known_until.min(told.at + EVERY_ASLEEP) } else { told.known_until };
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
        assert!(!next.is_known() && next.remaining(false).is_none());
        next.learn(Some(MOMENT * 2), true);
        for left in [MOMENT * 2, MOMENT] {
            assert_eq!((next.is_known(), next.remaining(false), next.remaining(true)), (true, Some(left), Some(left)));
            tokio::time::advance(MOMENT).await;
        }
        assert!(!next.is_known() && next.remaining(false).is_some_and(|remaining| !remaining.is_zero()));
        assert!(!next.is_to_be_asked(), "it is due");
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_is_delayed_it_is_asked_from_time_to_time() {
        let mut next = NextDue::default();
        for told in [None, Some(Duration::MAX)] {
            next.learn(told, true);
            assert_eq!(next.remaining(false), Some(EVERY));
            tokio::time::advance(EVERY).await;
            assert!(!next.is_known());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sleeps_asks_more_often() {
        let mut next = NextDue::default();
        assert!(!next.is_fresh() && !next.is_to_be_asked());
        next.learn(None, true);
        assert_eq!((next.is_fresh(), next.is_to_be_asked(), next.remaining(true)), (true, false, Some(EVERY_ASLEEP)));
        tokio::time::advance(EVERY_ASLEEP).await;
        assert!(next.is_known() && !next.is_fresh() && next.is_to_be_asked());
        assert!(next.remaining(true) < Some(MOMENT) && next.remaining(false) > Some(MOMENT));
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
