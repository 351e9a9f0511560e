//! What a job is: its kind, its settings, the two shapes it has in Rust (about to be enqueued, and reserved), and how
//! it ends.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

mod new_job;
pub(crate) mod outcome;
pub(crate) mod payload;
mod reserved;
pub(crate) mod retry_policy;
mod state;
mod storable;
pub(crate) mod trace_context;
pub(crate) mod unique;

pub use new_job::{Due, Enqueueable, MAX_PAYLOAD, NewJob};
pub(crate) use new_job::{check_name, check_timeout};
pub use outcome::{Completed, IntoOutcome, Outcome};
pub use payload::Payload;
pub use reserved::{Reservation, ReservedJob};
pub use retry_policy::RetryPolicy;
pub use state::JobState;
pub use trace_context::TraceContext;
pub use unique::{UniqueMode, UniqueUntil};

/// A kind of job: the type of its payload, with the settings that all jobs of the kind share.
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
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// The kind's name in the database, 1 to 128 characters. Renaming the type leaves jobs alone; changing this orphans
    /// them.
    const KIND: &'static str;
    /// The queue that jobs of this kind go to unless told otherwise.
    const QUEUE: &'static str = "default";
    /// Their priority unless told otherwise.
    const PRIORITY: Priority = Priority::Normal;
    /// At how many failures such a job is dead unless told otherwise.
    const MAX_ATTEMPTS: u32 = 20;
    /// How long one attempt may take unless the job says otherwise; `None`: as long as it likes.
    const TIMEOUT: Option<Duration> = None;

    /// When a failed job of this kind is tried again.
    fn retry_policy() -> RetryPolicy {
        RetryPolicy::default()
    }
}

/// What runs first within a queue; lower numbers are more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// 0: before all others.
    Urgent,
    /// 1.
    High,
    /// 2: the default.
    #[default]
    Normal,
    /// 3: when nothing else is due.
    Low,
}

impl Priority {
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

    /// By name (`urgent`, `high`, `normal`, `low`) or number (0 to 3).
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

/// What became of an enqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The job's id: the new one's, or that of the job which holds the unique key, live or ended.
    pub id: i64,
    /// Whether another job holds the unique key, so that none was added.
    pub existed: bool,
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
        fn what_is_no_priority_is_refused(text in ".*") {
            let known = ["urgent", "high", "normal", "low", "0", "1", "2", "3"].contains(&text.as_str());
            proptest::prop_assert_eq!(text.parse::<Priority>().is_ok(), known);
        }
    }
}
