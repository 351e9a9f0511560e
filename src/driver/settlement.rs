//! How an attempt ended, and how the store answers that.

use std::time::Duration;

use crate::job::{Payload, Reservation};

/// How one attempt ended, for the store to record.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settlement {
    /// The reservation under which the attempt ran. The ending counts only while this reservation stands.
    pub reservation: Reservation,
    /// What becomes of the job.
    pub ending: Ending,
    /// How long the job waited, from being due to being reserved.
    pub waited: Duration,
    /// How long the attempt ran.
    pub ran: Duration,
}

impl Settlement {
    /// Settles a reservation with an ending; the job waited no time and ran no time.
    pub fn new(reservation: Reservation, ending: Ending) -> Settlement {
        Settlement { reservation, ending, waited: Duration::ZERO, ran: Duration::ZERO }
    }

    /// Sets how long the job waited.
    #[must_use]
    pub fn waited(self, waited: Duration) -> Settlement {
        Settlement { waited, ..self }
    }

    /// Sets how long the attempt ran.
    #[must_use]
    pub fn ran(self, ran: Duration) -> Settlement {
        Settlement { ran, ..self }
    }
}

/// What becomes of a job after an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The job is done. If its handler returned a result to keep, this is the result.
    Completed(Option<Payload>),
    /// The job ended without being done.
    Cancelled,
    /// The job waits again: after a failure, or without one because it was snoozed or released.
    Waiting {
        /// The failure; `None` if the attempt did not fail.
        failure: Option<Failure>,
        /// How long until the job is due again.
        delay: Duration,
    },
    /// The job is dead.
    Dead(Failure),
    /// The handler has completed the job in a transaction of Postgres. The store only counts it, under this queue.
    Recorded(String),
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The reason that a program can act on.
    pub reason: FailureReason,
    /// The error text for a person.
    pub error: String,
}

impl Failure {
    /// Describes a failure.
    pub fn new(reason: FailureReason, error: impl Into<String>) -> Failure {
        Failure { reason, error: error.into() }
    }
}

/// The reason why an attempt failed. A store keeps it with the error text, and with the job if that dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The handler returned an error or panicked.
    Failed,
    /// The handler said that no further attempt can help.
    Permanent,
    /// The attempt took longer than its timeout.
    TimedOut,
    /// The worker died.
    Lost,
    /// The payload does not fit the kind.
    Undecodable,
}

impl FailureReason {
    /// Returns the reason that has this name in the database.
    pub(crate) fn from_name(name: &str) -> Option<FailureReason> {
        use FailureReason::{Failed, Lost, Permanent, TimedOut, Undecodable};
        [Failed, Permanent, TimedOut, Lost, Undecodable].into_iter().find(|reason| reason.name() == name)
    }

    /// Returns its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            FailureReason::Failed => "failed",
            FailureReason::Permanent => "permanent",
            FailureReason::TimedOut => "timed_out",
            FailureReason::Lost => "lost",
            FailureReason::Undecodable => "undecodable",
        }
    }
}

/// What became of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The ending is recorded.
    Counted,
    /// The reservation no longer stands, so the ending does not count.
    Lost,
    /// Another session has locked the job; the text names that session as far as the store can see it. The reservation
    /// stands: settle it again later.
    Locked(String),
}

impl Settled {
    /// Tells whether the ending is recorded.
    pub fn is_counted(&self) -> bool {
        *self == Settled::Counted
    }

    /// Tells whether to settle it again later.
    pub fn is_locked(&self) -> bool {
        matches!(self, Settled::Locked(_))
    }
}
