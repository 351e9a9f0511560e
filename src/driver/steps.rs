//! Steps: what handlers have done, as the store keeps it, and the events that jobs wait for.

use std::time::Duration;

use crate::job::Payload;

/// A step of a job, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The value that the code of a step returned.
    Value(Payload),
    /// A sleep.
    Sleep(SleepState),
    /// A wait for an event.
    Wait(WaitState),
}

/// The state of a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepState {
    /// The sleep goes on.
    Open,
    /// The sleep is over.
    Over,
}

/// The state of a wait for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitState {
    /// The wait goes on.
    Open,
    /// The event has come, with this payload.
    Event(Payload),
    /// The event did not come in time.
    TimedOut,
}

impl Step {
    /// Returns the kind of the step, for an error.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Step::Value(_) => "a step",
            Step::Sleep(_) => "a sleep",
            Step::Wait(_) => "a wait for an event",
        }
    }
}

/// A sleep or a wait that a handler begins, with the longest time that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pausing {
    /// A sleep of this length.
    Sleep(Duration),
    /// A wait for the event that has the name of the step, for at most this long.
    Event(Duration),
}

/// The answer of a store that has recorded a step.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// The step as the store keeps it. If the store had a step of this name, that step stays as it is.
    pub step: Step,
    /// The number of the job's failures. It is 0 after something new was recorded.
    pub failures: u32,
    /// The time until a sleep or a wait ends that is not over.
    pub left: Duration,
}

impl Recorded {
    /// Describes a step that is over.
    pub fn new(step: Step, failures: u32) -> Recorded {
        Recorded { step, failures, left: Duration::ZERO }
    }

    /// Sets the time until a sleep or a wait ends.
    #[must_use]
    pub fn left(self, left: Duration) -> Recorded {
        Recorded { left, ..self }
    }
}
