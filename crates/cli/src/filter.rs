//! The options that choose jobs. All commands that list or change many jobs have them.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use reveille::admin::{Filter, REASONS, StateFilter};
use reveille::driver::FailureReason;
use reveille::job::{JobState, Payload};

use crate::Failure;
use crate::connection::duration;

/// The heading of these options in the help.
pub const HEADING: &str = "Filter";

/// The names of the states.
const STATES: [&str; 11] = [
    "blocked",
    "ready",
    "delayed",
    "parked",
    "running",
    "stuck",
    "failing",
    "dead",
    "completed",
    "cancelled",
    "finished",
];

/// A job is chosen if it meets all of these conditions.
///
/// Flatten this as the last field of a command: the heading also holds for the fields behind it.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = HEADING)]
pub struct FilterArgs {
    /// Only jobs of this queue.
    #[arg(long)]
    pub queue: Option<String>,
    /// Only jobs of this kind.
    #[arg(long)]
    pub kind: Option<String>,
    /// Only jobs in this state.
    #[arg(long, value_parser = states())]
    pub state: Option<String>,
    /// Only jobs that are dead for this reason.
    #[arg(long, value_parser = reasons())]
    pub reason: Option<FailureReason>,
    /// Only jobs with this key.
    #[arg(long)]
    pub key: Option<String>,
    /// Only jobs with this tag. May be repeated: only jobs with all of the tags.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only live jobs that were enqueued longer ago than this, or ended jobs that ended longer ago, like 2h or 7days.
    #[arg(long, value_parser = duration, value_name = "AGE")]
    pub older_than: Option<Duration>,
    /// Only live jobs that were enqueued within this time, or ended jobs that ended within it.
    #[arg(long, value_parser = duration, value_name = "AGE")]
    pub newer_than: Option<Duration>,
    /// Only jobs whose last error contains this text.
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// Only jobs whose payload contains this JSON, like '{"user_id": 7}' (the operator @> of Postgres).
    #[arg(long, value_name = "JSON")]
    pub payload: Option<String>,
}

/// Returns the parser of a state. The parser also accepts a reason, such as `lost`.
fn states() -> PossibleValuesParser {
    let reasons = REASONS.map(|reason| PossibleValue::new(reason.name()).hide(true));
    let states = STATES.map(PossibleValue::new);
    states.into_iter().chain(reasons).collect::<Vec<_>>().into()
}

fn reasons() -> impl TypedValueParser<Value = FailureReason> {
    PossibleValuesParser::new(REASONS.map(FailureReason::name)).try_map(|name| {
        REASONS.into_iter().find(|reason| reason.name() == name).ok_or_else(|| format!("unknown reason {name:?}"))
    })
}

impl FilterArgs {
    /// Returns the filter of a command that is only for dead jobs.
    pub fn dead_filter(&self) -> Result<Filter, Failure> {
        let filter = self.filter()?;
        match self.state.as_deref() {
            None => Ok(filter.state(JobState::Dead)),
            Some(state) if state == "dead" || REASONS.into_iter().any(|reason| reason.name() == state) => Ok(filter),
            Some(state) => Err(format!("{state} jobs are not dead; `reveille jobs --state {state}` lists them").into()),
        }
    }

    /// Returns the filter. As a state, this also accepts a reason, such as `lost`: it stands for the jobs that are dead
    /// for this reason.
    pub fn filter(&self) -> Result<Filter, Failure> {
        let mut filter = Filter::new();
        filter = self.queue.iter().fold(filter, Filter::queue);
        filter = self.kind.iter().fold(filter, Filter::kind);
        filter = self.key.iter().fold(filter, Filter::key);
        filter = self.tags.iter().fold(filter, Filter::tag);
        filter = self.error.iter().fold(filter, Filter::error);
        filter = self.reason.into_iter().fold(filter, Filter::reason);
        filter = self.older_than.into_iter().fold(filter, Filter::older_than);
        filter = self.newer_than.into_iter().fold(filter, Filter::newer_than);
        if let Some(state) = &self.state {
            filter = match REASONS.into_iter().find(|reason| reason.name() == state) {
                Some(reason) => filter.reason(reason),
                None => filter.state(state.parse::<StateFilter>()?),
            };
        }
        if let Some(json) = &self.payload {
            let payload = Payload::parse(json).map_err(|error| format!("--payload: {error}"))?;
            filter = filter.payload(payload);
        }
        Ok(filter)
    }
}
