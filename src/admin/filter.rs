//! Filters: the jobs that a listing shows, or that an operation changes.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::database::insert::seconds;
use crate::driver::FailureReason;
use crate::error::{Error, Result};
use crate::job::{JobState, Payload};

/// All reasons for which a job can be dead.
pub const REASONS: [FailureReason; 5] = [
    FailureReason::Failed,
    FailureReason::Permanent,
    FailureReason::TimedOut,
    FailureReason::Lost,
    FailureReason::Undecodable,
];

/// Chooses jobs: a job passes if it meets all conditions of the filter. A new filter has no condition.
///
/// Without a state or a reason, a filter chooses live jobs. Only [`Admin::bulk`](crate::admin::Admin::bulk) chooses the
/// jobs that its action is for.
///
/// ```
/// use std::time::Duration;
///
/// use reveille::admin::{Filter, StateFilter};
/// use reveille::job::{JobState, Payload};
///
/// # fn example() -> reveille::Result<()> {
/// let dead_mails = Filter::new().queue("mail").state(JobState::Dead).error("connection refused");
/// let stuck = Filter::new().state(StateFilter::Stuck);
/// let of_an_import = Filter::new().tag("import").older_than(Duration::from_secs(3600));
/// let of_a_user = Filter::new().kind("send_welcome").payload(Payload::parse(r#"{"user_id": 7}"#)?);
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Filter {
    pub(super) queue: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) state: Option<StateFilter>,
    pub(super) reason: Option<FailureReason>,
    pub(super) key: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) since: Option<SystemTime>,
    pub(super) older_than: Option<Duration>,
    pub(super) newer_than: Option<Duration>,
    pub(super) error: Option<String>,
    pub(super) error_line: Option<String>,
    pub(super) payload: Option<Payload>,
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

/// The most characters of one condition that the record of an action keeps.
const LONGEST_RECORDED: usize = 500;
/// The most tags of a filter that the record of an action keeps.
const MOST_RECORDED_TAGS: usize = 64;

/// The table that a listing reads, and the state of the jobs that it lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    Live(Option<&'static str>),
    Blocked,
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

    /// Chooses only jobs with this key.
    pub fn key(mut self, key: impl Into<String>) -> Filter {
        self.key = Some(key.into());
        self
    }

    /// Chooses only jobs that have this tag. If this is called several times, only jobs that have all of the tags.
    pub fn tag(mut self, tag: impl Into<String>) -> Filter {
        self.tags.push(tag.into());
        self
    }

    /// Chooses only live or blocked jobs that were enqueued at this time or later, or only jobs that ended at this time
    /// or later.
    pub fn since(mut self, time: SystemTime) -> Filter {
        self.since = Some(time);
        self
    }

    /// Chooses only live jobs that were enqueued this long ago or earlier, or only jobs that ended this long ago or
    /// earlier, by the database's clock.
    pub fn older_than(mut self, age: Duration) -> Filter {
        self.older_than = Some(age);
        self
    }

    /// Chooses only live jobs that were enqueued this long ago or later, or only jobs that ended this long ago or
    /// later, by the database's clock.
    pub fn newer_than(mut self, age: Duration) -> Filter {
        self.newer_than = Some(age);
        self
    }

    /// Chooses only jobs whose last error contains this text. Upper and lower case differ, and no character has a
    /// special meaning.
    pub fn error(mut self, text: impl Into<String>) -> Filter {
        self.error = Some(text.into());
        self
    }

    /// Chooses only jobs whose last error has this first line, as a whole. An error can begin with an empty line. Of a
    /// line of 500 characters or more, the first 500 count. [`Admin::dead_errors`](crate::admin::Admin::dead_errors)
    /// groups jobs by the same lines.
    pub fn error_line(mut self, line: impl Into<String>) -> Filter {
        self.error_line = Some(line.into());
        self
    }

    /// Chooses only jobs whose payload contains this JSON, as the operator `@>` of Postgres defines it: each member of
    /// an object has this value, and each element of an array is in the array.
    pub fn payload(mut self, contained: Payload) -> Filter {
        self.payload = Some(contained);
        self
    }

    /// True if the filter has no condition.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Returns the conditions by name, for the record of an action: all but the payload and the time since which jobs
    /// pass. Long texts are cut.
    pub(super) fn described(&self) -> Value {
        let cut = |text: &str| Value::from(text.chars().take(LONGEST_RECORDED).collect::<String>());
        let text = |text: &Option<String>| text.as_deref().map(cut);
        let tags: Vec<Value> = self.tags.iter().take(MOST_RECORDED_TAGS).map(|tag| cut(tag)).collect();
        let conditions = [
            ("queue", text(&self.queue)),
            ("kind", text(&self.kind)),
            ("state", self.state.map(|state| state.name().into())),
            ("reason", self.reason.map(|reason| reason.name().into())),
            ("key", text(&self.key)),
            ("tags", (!tags.is_empty()).then_some(tags.into())),
            ("older_than", self.older_than.map(|age| seconds(age).into())),
            ("newer_than", self.newer_than.map(|age| seconds(age).into())),
            ("error", text(&self.error)),
            ("error_line", text(&self.error_line)),
        ];
        let conditions = conditions.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        conditions.collect::<Map<String, Value>>().into()
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
            (Some(StateFilter::Is(JobState::Blocked)), None) => Listing::Blocked,
            (Some(StateFilter::Is(JobState::Dead)), None) => Listing::Dead(None),
            (Some(StateFilter::Finished), None) => Listing::Finished(None),
            (Some(state @ StateFilter::Is(JobState::Completed | JobState::Cancelled)), None) => {
                Listing::Finished(Some(state.name()))
            }
            (Some(state), None) => Listing::Live(Some(state.name())),
        })
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
                "unknown state {name:?}; use blocked, ready, delayed, parked, running, stuck, failing, dead, \
                 completed, cancelled or finished"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_by_its_name() {
        let names = "blocked ready delayed parked running stuck failing dead completed cancelled finished";
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
        assert_eq!(state(JobState::Blocked.into()), Listing::Blocked);
        assert_eq!(state(StateFilter::Stuck), Listing::Live(Some("stuck")));
        assert_eq!(state(JobState::Cancelled.into()), Listing::Finished(Some("cancelled")));
        assert_eq!(state(StateFilter::Finished), Listing::Finished(None));
        assert_eq!(state(JobState::Dead.into()), Listing::Dead(None));
        assert_eq!(listing(Filter::new().reason(FailureReason::Lost)), Listing::Dead(Some(FailureReason::Lost)));
        let lost = Filter::new().reason(FailureReason::Lost).state(StateFilter::Finished);
        assert!(lost.listing().unwrap_err().is_invalid());
    }
}
