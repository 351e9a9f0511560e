//! The states of jobs.

use std::fmt;

use crate::error::{Error, Result};

/// The state of a job, from its enqueue to its end.
///
/// A live job is ready, delayed, parked or running. A blocked job waits for other jobs, and becomes live once they have
/// ended. A job that has ended is completed, cancelled or dead. A dead job can be revived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// The job waits for the ends of other jobs.
    Blocked,
    /// The job is due and waits for a worker.
    Ready,
    /// The job is not due yet.
    Delayed,
    /// The job is due, but its kind or key is paused.
    Parked,
    /// A worker has reserved the job.
    Running,
    /// The job's handler has completed the job.
    Completed,
    /// The job was ended without being completed.
    Cancelled,
    /// The job is dead: no further attempt will be made.
    Dead,
}

impl JobState {
    const ALL: [JobState; 8] = [
        JobState::Blocked,
        JobState::Ready,
        JobState::Delayed,
        JobState::Parked,
        JobState::Running,
        JobState::Completed,
        JobState::Cancelled,
        JobState::Dead,
    ];

    /// The state's name in the database and in JSON, such as `completed`.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Blocked => "blocked",
            JobState::Ready => "ready",
            JobState::Delayed => "delayed",
            JobState::Parked => "parked",
            JobState::Running => "running",
            JobState::Completed => "completed",
            JobState::Cancelled => "cancelled",
            JobState::Dead => "dead",
        }
    }

    /// True if the job waits for an attempt: the job is ready, delayed or parked.
    pub fn is_waiting(self) -> bool {
        matches!(self, JobState::Ready | JobState::Delayed | JobState::Parked)
    }

    /// True if the job has ended: the job is completed, cancelled or dead.
    pub fn is_ended(self) -> bool {
        matches!(self, JobState::Completed | JobState::Cancelled | JobState::Dead)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for JobState {
    type Err = Error;

    /// Reads a state's [name](JobState::name).
    fn from_str(text: &str) -> Result<JobState> {
        JobState::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| {
            Error::invalid(format!(
                "unknown job state {text:?}; use blocked, ready, delayed, parked, running, completed, cancelled or dead"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_by_its_name() {
        for state in JobState::ALL {
            assert_eq!(state.to_string().parse::<JobState>().unwrap(), state);
            let is_live = state.is_waiting() || state == JobState::Running;
            assert_eq!(state == JobState::Blocked, !state.is_ended() && !is_live);
            assert!(!(state.is_ended() && is_live));
        }
        assert!("live".parse::<JobState>().unwrap_err().is_invalid());
    }
}
