//! When the next job of a queue is due, as its claimer was told last, so that it need not ask at each look.

use std::time::Duration;

use tokio::time::Instant;

/// How often to ask at least: the answer also tells of limits that were set.
const EVERY: Duration = Duration::from_millis(50);
/// While asleep, how soon to ask after a burst: what was enqueued with it may be due sooner than this, and is late by as much at most, since
/// another burst before that brings a claim, which takes all that is due.
const AFTER_A_BURST: Duration = Duration::from_millis(20);
/// How often to ask at least while one burst follows another.
const AMONG_BURSTS: Duration = Duration::from_millis(250);

/// Until when none of the delayed jobs becomes due.
#[derive(Default)]
pub(crate) struct NextDue {
    told: Option<Told>,
}

/// What was told last: when, and when the next one becomes due.
struct Told {
    at: Instant,
    due: Option<Instant>,
    /// When all that was due had been taken.
    taken: Instant,
}

impl Told {
    fn known_until(&self) -> Instant {
        self.due.unwrap_or(self.at + EVERY).min(self.at + EVERY)
    }

    /// The same for who sleeps.
    fn to_ask_at(&self) -> Instant {
        let at = (self.taken + AFTER_A_BURST).min(self.at + AMONG_BURSTS);
        self.due.unwrap_or(at).min(at)
    }
}

impl NextDue {
    /// A look has told when the next job is due, if there is one.
    pub(crate) fn learn(&mut self, due_in: Option<Duration>) {
        let at = Instant::now();
        let due = due_in.and_then(|due_in| at.checked_add(due_in));
        self.told = Some(Told { at, due, taken: at });
    }

    /// A claim has taken all that was due.
    pub(crate) fn all_taken(&mut self) {
        self.told.iter_mut().for_each(|told| told.taken = Instant::now());
    }

    /// Whether that is still to come.
    pub(crate) fn is_known(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.known_until() > Instant::now())
    }

    /// Whether that is still to come, and who sleeps need not ask after a burst.
    pub(crate) fn is_fresh(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.to_ask_at() > Instant::now())
    }

    /// Whether it is only time to ask again, while none is due as far as was told.
    pub(crate) fn is_to_be_asked(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.due.is_none_or(|due| due > Instant::now())) && !self.is_fresh()
    }

    /// After how long to look or ask again; never zero, which would say that a job is due. `None`: nothing was told yet.
    pub(crate) fn remaining(&self, asleep: bool) -> Option<Duration> {
        let told = self.told.as_ref()?;
        let until = if asleep { told.to_ask_at() } else { told.known_until() };
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
        next.learn(Some(MOMENT * 2));
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
            next.learn(told);
            assert_eq!(next.remaining(false), Some(EVERY));
            tokio::time::advance(EVERY).await;
            assert!(!next.is_known());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sleeps_asks_when_no_burst_has_come_for_a_moment_and_among_bursts_from_time_to_time() {
        let mut next = NextDue::default();
        next.all_taken();
        assert!(!next.is_fresh() && !next.is_to_be_asked(), "nothing was told");
        next.learn(None);
        let began = Instant::now();
        while began.elapsed() < AMONG_BURSTS {
            let until = AFTER_A_BURST.min(AMONG_BURSTS - began.elapsed());
            assert_eq!((next.is_fresh(), next.is_to_be_asked(), next.remaining(true)), (true, false, Some(until)));
            tokio::time::advance(MOMENT).await;
            next.all_taken();
        }
        assert!(!next.is_fresh() && next.is_to_be_asked());
        next.learn(None);
        tokio::time::advance(AFTER_A_BURST).await;
        assert!(next.is_known() && !next.is_fresh() && next.is_to_be_asked());
        assert!(next.remaining(true) < Some(MOMENT) && next.remaining(false) > Some(MOMENT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_job_of_which_is_known_is_looked_for_when_it_is_due_and_not_asked_about() {
        let mut next = NextDue::default();
        for due_in in [MOMENT, AMONG_BURSTS * 2] {
            next.learn(Some(due_in));
            tokio::time::advance(due_in - Duration::from_millis(1)).await;
            next.all_taken();
            assert_eq!(next.is_to_be_asked(), due_in > AMONG_BURSTS);
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(!next.is_fresh() && !next.is_to_be_asked());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_due_and_locked_is_asked_for_again() {
        let mut next = NextDue::default();
        next.learn(Some(Duration::ZERO));
        assert!(!next.is_known());
    }
}
