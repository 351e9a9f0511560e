//! Jobs: their kinds and settings, their two types in Rust ([`NewJob`] and [`ReservedJob`]), and their endings.
//!
//! ```
//! use std::time::Duration;
//!
//! use reveille::Job;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Export { account: i64 }
//!
//! impl Job for Export {
//!     const KIND: &'static str = "export";
//!     const QUEUE: &'static str = "exports";
//!     const MAX_ATTEMPTS: u32 = 5;
//!     const TIMEOUT: Option<Duration> = Some(Duration::from_secs(600));
//! }
//! ```
//!
//! The guide: [the life of a job](crate::guide::jobs::life), [errors and retries](crate::guide::jobs::errors),
//! [payloads](crate::guide::jobs::payloads).

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

mod check;
pub(crate) mod graph;
pub(crate) mod linked;
mod new_job;
pub(crate) mod outcome;
pub(crate) mod payload;
mod request;
mod reserved;
pub(crate) mod retry_policy;
mod state;
mod storable;
pub(crate) mod trace_context;
pub(crate) mod unique;
mod workflow_state;

pub(crate) use check::{check_event, check_key, check_name, check_timeout};
pub use linked::{Dependency, FiresOn, Input, Labels, LinkedJob, LinkedJobs, LinkedTarget};
pub use new_job::{Due, Enqueueable, MAX_PAYLOAD, NewJob};
pub use outcome::{Completed, IntoOutcome, Outcome};
pub use payload::Payload;
pub use request::{Cancelled, Retried, RetriedJob};
pub use reserved::{Reservation, ReservedJob};
pub use retry_policy::RetryPolicy;
pub use state::JobState;
pub use trace_context::TraceContext;
pub use unique::{UniqueMode, UniqueUntil};
pub use workflow_state::{WorkflowJobState, WorkflowState};

/// A kind of job: the type of the payload, with the settings that all jobs of the kind share.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct SendWelcome { user_id: i64 }
///
/// impl reveille::Job for SendWelcome {
///     const KIND: &'static str = "send_welcome";
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a job",
    label = "this type does not implement `Job`",
    note = "derive `Serialize` and `Deserialize` for the type, and name its kind: \
            `impl reveille::Job for … {{ const KIND: &'static str = \"…\"; }}`",
    note = "a handler takes its job first, and by value"
)]
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// The kind's name in the database, 1 to 128 characters.
    ///
    /// Renaming the type changes nothing. After a change of this constant, no handler runs the jobs that were enqueued
    /// with the old kind.
    const KIND: &'static str;
    /// The queue of jobs of this kind, unless a job names another queue.
    const QUEUE: &'static str = "default";
    /// The priority of jobs of this kind, unless a job has another priority.
    const PRIORITY: Priority = Priority::Normal;
    /// The number of failures at which a job of this kind is dead, unless the job has another number.
    const MAX_ATTEMPTS: u32 = 20;
    /// The time that one attempt may take, unless the job has a timeout. With `None`, the worker's timeout applies.
    const TIMEOUT: Option<Duration> = None;

    /// The delays after which failed jobs of this kind are tried again.
    fn retry_policy() -> RetryPolicy {
        RetryPolicy::default()
    }
}

/// The priority of a job: due jobs of a more urgent level start first within their queue. Lower numbers are more
/// urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// 0: before jobs of all other levels.
    Urgent,
    /// 1.
    High,
    /// 2: the default.
    #[default]
    Normal,
    /// 3: when no job of another level is due.
    Low,
}

impl Priority {
    /// All priorities, most urgent first.
    pub const ALL: [Priority; 4] = [Priority::Urgent, Priority::High, Priority::Normal, Priority::Low];

    /// The name of the priority, such as `high`.
    pub fn name(self) -> &'static str {
        match self {
            Priority::Urgent => "urgent",
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }

    pub(crate) fn level(self) -> i16 {
        self as i16
    }

    pub(crate) fn from_level(level: i16) -> Priority {
        match level {
            0 => Priority::Urgent,
            1 => Priority::High,
            2 => Priority::Normal,
            _ => Priority::Low,
        }
    }
}

impl std::str::FromStr for Priority {
    type Err = Error;

    /// Reads a name (`urgent`, `high`, `normal`, `low`) or a number (0 to 3).
    fn from_str(text: &str) -> Result<Priority> {
        match text {
            "urgent" | "0" => Ok(Priority::Urgent),
            "high" | "1" => Ok(Priority::High),
            "normal" | "2" => Ok(Priority::Normal),
            "low" | "3" => Ok(Priority::Low),
            _ => Err(Error::invalid(format!("unknown priority {text:?}; use urgent, high, normal, low or 0 to 3"))),
        }
    }
}

/// The answer to an enqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enqueued {
    /// The id of the new job, or of the live or ended job that holds the unique key.
    pub id: i64,
    /// True if another job holds the unique key, so that no job was added.
    pub existed: bool,
}

impl Enqueued {
    /// Makes the answer of a store. `id` is the job that the store has added or, if `existed`, the job that holds the
    /// unique key.
    pub fn new(id: i64, existed: bool) -> Enqueued {
        Enqueued { id, existed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_read_by_name_or_number() {
        assert_eq!("high".parse::<Priority>().unwrap(), Priority::High);
        assert_eq!("3".parse::<Priority>().unwrap(), Priority::Low);
        assert!("4".parse::<Priority>().unwrap_err().is_invalid());
        for level in 0..4 {
            assert_eq!(Priority::from_level(level).level(), level);
        }
    }

    proptest::proptest! {
        #[test]
        fn other_text_is_refused_as_a_priority(text in ".*") {
            let known = ["urgent", "high", "normal", "low", "0", "1", "2", "3"].contains(&text.as_str());
            proptest::prop_assert_eq!(text.parse::<Priority>().is_ok(), known);
        }
    }
}
