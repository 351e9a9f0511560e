//! How an attempt ended, and what the store answers to that.

use std::time::Duration;

use crate::job::{Payload, Reservation};

/// How one attempt is to be recorded.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Under which reservation it ran: the fence.
    pub reservation: Reservation,
    /// What becomes of the job.
    pub ending: Ending,
    /// How long it waited, from being due to being reserved.
    pub waited: Duration,
    /// How long it ran.
    pub ran: Duration,
}

/// What becomes of a job after an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// It is done, with what its handler returned to be kept.
    Completed(Option<Payload>),
    /// It ended without being done.
    Cancelled,
    /// It waits again: after a failure, or without one (snoozed, released).
    Waiting {
        /// What failed; `None`: nothing did.
        failure: Option<Failure>,
        /// When it is due again.
        delay: Duration,
    },
    /// It is dead.
    Dead(Failure),
    /// Its handler completed it in a transaction of its own: it is only to be counted, under this queue.
    Recorded(String),
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In a word.
    pub reason: Reason,
    /// For a person.
    pub error: String,
}

/// Why an attempt failed, in a word; kept with the error, and with the job if it dies of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its handler returned an error or panicked.
    Failed,
    /// Its handler said that no further attempt can help.
    Permanent,
    /// It took longer than it may.
    TimedOut,
    /// Its worker died.
    Lost,
    /// Its payload does not fit its kind.
    Undecodable,
}

impl Reason {
    /// The one of that name.
    pub(crate) fn from_name(name: &str) -> Option<Reason> {
        [Reason::Failed, Reason::Permanent, Reason::TimedOut, Reason::Lost, Reason::Undecodable]
            .into_iter()
            .find(|reason| reason.name() == name)
    }

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Failed => "failed",
            Reason::Permanent => "permanent",
            Reason::TimedOut => "timed_out",
            Reason::Lost => "lost",
            Reason::Undecodable => "undecodable",
        }
    }
}

/// What became of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is recorded.
    Counted,
    /// The reservation no longer stands: the ending does not count.
    Lost,
    /// Somebody else has locked the job, who is named as far as is known. The reservation stands: settle it again
    /// later.
    Locked(String),
}

impl Settled {
    /// Whether it is recorded.
    pub fn is_counted(&self) -> bool {
        *self == Settled::Counted
    }

    /// Whether it is to be tried again.
    pub fn is_locked(&self) -> bool {
        matches!(self, Settled::Locked(_))
    }
}
