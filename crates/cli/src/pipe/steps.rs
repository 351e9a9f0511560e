//! The steps of a child's life: when the worker stops it, and when it kills it.

use std::time::{Duration, Instant};

use super::child::Step;
use super::child_state::{ChildState, Stage};

/// How long the worker waits for a child.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// From the start until the child is ready.
    pub ready: Duration,
    /// Until the child takes a part of what is written to it.
    pub stalled: Duration,
    /// From the end of an attempt without an answer, which is up to 1 s after its timeout, until the child is stuck.
    pub stuck: Duration,
    /// For the exit of a child that is to exit.
    pub exit: Duration,
    /// The first pause before another child is started. The pause doubles with each start.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// After this time of life the pauses begin anew.
    pub long_life: Duration,
    /// The grace period of the runs of a child with a stuck run.
    pub grace: Duration,
}

impl Waits {
    /// Returns the waits of a worker with this grace period. `haste`: all other waits are shorter by this factor.
    pub fn new(grace: Duration, haste: u32) -> Waits {
        let seconds = |seconds| Duration::from_secs(seconds) / haste.max(1);
        Waits {
            ready: seconds(60),
            stalled: seconds(30),
            stuck: seconds(4),
            exit: seconds(5),
            first_pause: seconds(1) / 10,
            longest_pause: seconds(30),
            long_life: seconds(60),
            grace,
        }
    }
}

impl ChildState {
    /// Returns the next step of this child at a time.
    pub fn next_step(&mut self, waits: &Waits, now: Instant) -> Step {
        if self.is_killed {
            return Step::Kill("was killed, because its runs did not end within the grace period".into());
        }
        if let Some(until) = self.input_closed.map(|closed| closed + waits.exit)
            && until <= now
        {
            return Step::Fault("it has closed its standard input, and has not exited".into());
        }
        let input_closed = self.input_closed.map(|closed| closed + waits.exit);
        match self.stage {
            Stage::Starting => match self.started + waits.ready {
                until if until <= now => Step::Fault(format!("it was not ready within {:?}", waits.ready)),
                until => Step::Wait(Some(until)),
            },
            Stage::Ready => match self.abandoned().min().map(|since| since + waits.stuck) {
                Some(stuck) if stuck <= now => {
                    self.grace_until = now.checked_add(waits.grace);
                    self.stop();
                    self.next_step(waits, now)
                }
                stuck => Step::Wait(stuck.into_iter().chain(input_closed).min()),
            },
            Stage::Stopping => self.next_step_to_exit(waits, now),
            Stage::Ended => Step::Wait(None),
        }
    }

    /// Returns true if the child was right to exit. A child with a stuck run was told to stop, however it ends.
    pub fn may_exit(&self, well: bool) -> bool {
        self.stage == Stage::Stopping && (self.grace_until.is_some() || well && self.runs.is_empty())
    }

    fn next_step_to_exit(&mut self, waits: &Waits, now: Instant) -> Step {
        let stuck = self.abandoned().count();
        if stuck > 0 {
            let is_over = self.grace_until.is_some_and(|until| until <= now);
            if is_over || stuck == self.runs.len() {
                return Step::Kill(format!("was killed, because {stuck} of its runs did not end after their timeout"));
            }
            return Step::Wait(self.grace_until);
        }
        if !self.runs.is_empty() {
            return Step::Wait(None);
        }
        let has_lines = self.has_lines();
        match *self.exit_until.get_or_insert(now + waits.exit) {
            until if until > now && has_lines => Step::Wait(Some(until)),
            until if until <= now => Step::Kill(format!("was killed: it did not exit within {:?}", waits.exit)),
            until => Step::CloseInput(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waits() -> Waits {
        Waits::new(30 * SECOND, 1)
    }

    #[test]
    fn a_child_has_a_minute_to_be_ready() {
        let mut child = ChildState::new(1);
        let until = child.started + 60 * SECOND;
        assert!(matches!(child.next_step(&waits(), child.started), Step::Wait(Some(at)) if at == until));
        assert!(matches!(child.next_step(&waits(), until), Step::Fault(_)));
        child.stage = Stage::Ready;
        assert!(matches!(child.next_step(&waits(), until), Step::Wait(None)));
    }

    #[test]
    fn a_stopping_child_without_runs_has_five_seconds_to_exit() {
        let (mut child, now) = (ChildState::new(1), Instant::now());
        child.stop();
        let until = now + 5 * SECOND;
        assert!(matches!(child.next_step(&waits(), now), Step::Wait(Some(at)) if at == until), "`stop` is not written");
        assert!(!child.take_lines().is_empty());
        assert!(matches!(child.next_step(&waits(), now), Step::Wait(_)), "`stop` is being written");
        assert!(child.take_lines().is_empty());
        assert!(matches!(child.next_step(&waits(), now), Step::CloseInput(at) if at == until));
        assert!(child.may_exit(true) && !child.may_exit(false));
        assert!(matches!(child.next_step(&waits(), until), Step::Kill(_)));
    }

    #[test]
    fn a_child_that_takes_no_input_has_to_exit() {
        let (mut child, now) = (ChildState::new(1), Instant::now());
        (child.stage, child.input_closed) = (Stage::Ready, Some(now));
        assert!(matches!(child.next_step(&waits(), now), Step::Wait(Some(at)) if at == now + 5 * SECOND));
        assert!(matches!(child.next_step(&waits(), now + 5 * SECOND), Step::Fault(_)));
    }
}
