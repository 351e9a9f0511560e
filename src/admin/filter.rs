//! Filters: the jobs that a listing shows, or that an operation changes.

use std::str::FromStr;

use crate::driver::FailureReason;
use crate::error::{Error, Result};
use crate::job::JobState;

/// All reasons for which a job can be dead.
pub const REASONS: [FailureReason; 5] = [
    FailureReason::Failed,
    FailureReason::Permanent,
    FailureReason::TimedOut,
    FailureReason::Lost,
    FailureReason::Undecodable,
];

/// Chooses jobs by queue, kind, state and reason. A new filter chooses all live jobs.
///
/// ```
/// use reveille::admin::{Filter, StateFilter};
/// use reveille::job::JobState;
///
/// let dead_mails = Filter::new().queue("mail").state(JobState::Dead);
/// let stuck = Filter::new().state(StateFilter::Stuck);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Filter {
    pub(super) queue: Option<String>,
    pub(super) kind: Option<String>,
    state: Option<StateFilter>,
    reason: Option<FailureReason>,
}

/// The states by which jobs can be listed: each [`JobState`], and three further states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateFilter {
    /// Jobs in exactly this state.
    Is(JobState),
    /// Running jobs that are stuck: their handler was asked to stop at least five seconds ago, and still runs.
    Stuck,
    /// Live jobs that have failed at least once.
    Failing,
    /// Completed and cancelled jobs.
    Finished,
}

/// The table that a listing reads, and the state of the jobs that it lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    Live(Option<&'static str>),
    Dead(Option<FailureReason>),
    Finished(Option<&'static str>),
}

impl Filter {
    /// Returns a filter that chooses all live jobs.
    pub fn new() -> Filter {
        Filter::default()
    }

    /// Chooses only jobs of this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Filter {
        self.queue = Some(queue.into());
        self
    }

    /// Chooses only jobs of this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Filter {
        self.kind = Some(kind.into());
        self
    }

    /// Chooses jobs by their state: a [`JobState`] or a [`StateFilter`].
    pub fn state(mut self, state: impl Into<StateFilter>) -> Filter {
        self.state = Some(state.into());
        self
    }

    /// Chooses only jobs that are dead for this reason.
    pub fn reason(mut self, reason: FailureReason) -> Filter {
        self.reason = Some(reason);
        self
    }

    /// # Errors
    /// Invalid if the filter asks for a reason and for a state other than dead.
    pub(super) fn listing(&self) -> Result<Listing> {
        Ok(match (self.state, self.reason) {
            (None | Some(StateFilter::Is(JobState::Dead)), Some(reason)) => Listing::Dead(Some(reason)),
            (Some(state), Some(reason)) => {
                let (state, reason) = (state.name(), reason.name());
                return Err(Error::invalid(format!(
                    "no {state} job has the reason {reason:?}: only dead jobs have one; drop the state or the reason"
                )));
            }
            (None, None) => Listing::Live(None),
            (Some(StateFilter::Is(JobState::Dead)), None) => Listing::Dead(None),
            (Some(StateFilter::Finished), None) => Listing::Finished(None),
            (Some(state @ StateFilter::Is(JobState::Completed | JobState::Cancelled)), None) => {
                Listing::Finished(Some(state.name()))
            }
            (Some(state), None) => Listing::Live(Some(state.name())),
        })
    }

    /// The reason of the dead jobs that an operation is to change; `None` for any reason.
    ///
    /// # Errors
    /// Invalid if the filter asks for a state other than dead.
    pub(super) fn dead_reason(&self) -> Result<Option<&'static str>> {
        match (self.state, self.listing()?) {
            (None, _) | (_, Listing::Dead(_)) => Ok(self.reason.map(FailureReason::name)),
            (Some(state), _) => {
                let state = state.name();
                Err(Error::invalid(format!("{state} jobs can be neither revived nor purged: only dead jobs can")))
            }
        }
    }
}

impl StateFilter {
    /// The state's name in the command: the name of the [`JobState`], or `stuck`, `failing` or `finished`.
    pub fn name(self) -> &'static str {
        match self {
            StateFilter::Is(state) => state.name(),
            StateFilter::Stuck => "stuck",
            StateFilter::Failing => "failing",
            StateFilter::Finished => "finished",
        }
    }
}

impl From<JobState> for StateFilter {
    fn from(state: JobState) -> StateFilter {
        StateFilter::Is(state)
    }
}

impl FromStr for StateFilter {
    type Err = Error;

    /// Reads a state by its name.
    fn from_str(name: &str) -> Result<StateFilter> {
        let across = [StateFilter::Stuck, StateFilter::Failing, StateFilter::Finished];
        let state = name.parse().ok().map(StateFilter::Is);
        state.or_else(|| across.into_iter().find(|state| state.name() == name)).ok_or_else(|| {
            Error::invalid(format!(
                "unknown state {name:?}; use ready, delayed, running, stuck, failing, dead, completed, cancelled or \
                 finished"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_by_its_name() {
        let names = "ready delayed running stuck failing dead completed cancelled finished";
        for name in names.split(' ') {
            assert_eq!(name.parse::<StateFilter>().unwrap().name(), name);
        }
        let error = "lost".parse::<StateFilter>().unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("\"lost\""), "{error}");
    }

    #[test]
    fn each_filter_lists_the_table_that_has_its_jobs() {
        let listing = |filter: Filter| filter.listing().unwrap();
        let state = |state: StateFilter| listing(Filter::new().state(state));
        assert_eq!(listing(Filter::new()), Listing::Live(None));
        assert_eq!(state(JobState::Delayed.into()), Listing::Live(Some("delayed")));
        assert_eq!(state(StateFilter::Stuck), Listing::Live(Some("stuck")));
        assert_eq!(state(JobState::Cancelled.into()), Listing::Finished(Some("cancelled")));
        assert_eq!(state(StateFilter::Finished), Listing::Finished(None));
        assert_eq!(state(JobState::Dead.into()), Listing::Dead(None));
        assert_eq!(listing(Filter::new().reason(FailureReason::Lost)), Listing::Dead(Some(FailureReason::Lost)));
    }

    #[test]
    fn only_dead_jobs_have_a_reason_and_are_revived() {
        let lost = Filter::new().reason(FailureReason::Lost);
        assert_eq!(lost.clone().state(JobState::Dead).dead_reason().unwrap(), Some("lost"));
        assert_eq!(lost.dead_reason().unwrap(), Some("lost"));
        assert_eq!(Filter::new().dead_reason().unwrap(), None);
        assert!(lost.state(StateFilter::Finished).listing().unwrap_err().is_invalid());
        assert!(Filter::new().state(JobState::Ready).dead_reason().unwrap_err().is_invalid());
    }
}
