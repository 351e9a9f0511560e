//! Settlements, and the store's answers to them.

use std::time::Duration;

use super::kind_count::KindCounter;
use crate::error::Error;
use crate::job::{Payload, Reservation};

/// The record of how one attempt ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settlement {
    /// The reservation under which the attempt ran. The ending counts only while this reservation stands.
    pub reservation: Reservation,
    /// The state that the job gets.
    pub ending: Ending,
    /// The time from the job's due time to its reservation.
    pub waited: Duration,
    /// The run time of the attempt.
    pub ran: Duration,
    /// The worker's counter for the job's kind.
    pub(crate) kind_counter: Option<KindCounter>,
}

impl Settlement {
    /// Settles a reservation with an ending. The job's waiting time and run time are zero.
    pub fn new(reservation: Reservation, ending: Ending) -> Settlement {
        Settlement { reservation, ending, waited: Duration::ZERO, ran: Duration::ZERO, kind_counter: None }
    }

    /// Sets the time from the job's due time to its reservation.
    #[must_use]
    pub fn waited(self, waited: Duration) -> Settlement {
        Settlement { waited, ..self }
    }

    /// Sets the run time of the attempt.
    #[must_use]
    pub fn ran(self, ran: Duration) -> Settlement {
        Settlement { ran, ..self }
    }

    /// Counts the attempt by its kind, unless it neither completed nor failed. Call this once the ending is recorded.
    pub(crate) fn count_kind(&self) {
        let Some(counter) = &self.kind_counter else { return };
        match self.ending {
            Ending::Completed(_) | Ending::Recorded(_) => counter.add(false, self.waited, self.ran),
            Ending::Dead(_) | Ending::Waiting { failure: Some(_), .. } => counter.add(true, self.waited, self.ran),
            Ending::Cancelled | Ending::Released | Ending::Waiting { failure: None, .. } => {}
        }
    }
}

/// The state that a job gets after an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The job is completed. The payload is the result, if the handler returned a result to keep.
    Completed(Option<Payload>),
    /// The job is cancelled.
    Cancelled,
    /// The job is back in its queue after a failed attempt or a snooze, or because its kind has no handler.
    Waiting {
        /// The failure; `None` if the attempt did not fail.
        failure: Option<Failure>,
        /// The time until the job is due again.
        delay: Duration,
    },
    /// The job is back in its queue and keeps its due time, and so its place among the waiting jobs. The worker had not
    /// started the job, or its handler stopped because the worker shuts down.
    Released,
    /// The job is a dead job.
    Dead(Failure),
    /// The handler has completed the job in a transaction of Postgres. The store only counts the job, in the counters
    /// of this queue.
    Recorded(String),
}

/// The failure of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The reason, for programs.
    pub reason: FailureReason,
    /// The error text, for people.
    pub error: String,
}

impl Failure {
    /// Describes a failure.
    pub fn new(reason: FailureReason, error: impl Into<String>) -> Failure {
        Failure { reason, error: error.into() }
    }

    /// Logs that the job is dead because of this failure.
    pub(crate) fn log_death(&self, id: i64) {
        let Failure { reason, error } = self;
        tracing::error!(name: "job.dead", target: "reveille::job", id, reason = reason.name(), error, "dead");
    }
}

/// The reason why an attempt failed. The store keeps the reason with the error text, and with a dead job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The handler returned an error or panicked.
    Failed,
    /// The handler returned that no further attempt can help.
    Permanent,
    /// The attempt took longer than its timeout.
    TimedOut,
    /// The worker died, or the process in which its handler worked.
    Lost,
    /// The payload does not decode to the kind.
    Undecodable,
}

impl FailureReason {
    /// Returns the reason that has this name in the database.
    pub(crate) fn from_name(name: &str) -> Option<FailureReason> {
        use FailureReason::{Failed, Lost, Permanent, TimedOut, Undecodable};
        [Failed, Permanent, TimedOut, Lost, Undecodable].into_iter().find(|reason| reason.name() == name)
    }

    /// Returns the name of the reason in the database.
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

/// The fate of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The ending is recorded.
    Counted,
    /// The reservation no longer stands, so the ending does not count.
    Lost,
    /// Another session has locked the job. The text names that session as far as the store can see it. The reservation
    /// stands: try again to settle the job.
    Locked(String),
}

impl Settled {
    /// Returns whether the ending is recorded.
    pub fn is_counted(&self) -> bool {
        *self == Settled::Counted
    }

    /// Returns whether to try again to settle the job.
    pub fn is_locked(&self) -> bool {
        matches!(self, Settled::Locked(_))
    }
}

/// The error for the result of a linked job that a store refuses.
pub(crate) fn too_large_result(id: i64) -> Error {
    Error::invalid(format!(
        "cannot settle: the result of job {id} is larger than 1 MiB, the limit for a job that others wait for or that \
         belongs to a workflow; keep large data elsewhere and return a reference"
    ))
}
