//! The fixed start of a change of many jobs.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The start of a change of many jobs, which decides which jobs it can meet.
///
/// A job with an id above `highest_id` came later, and is not touched. A dead or finished job that ended after `time`
/// is not touched either. Since ids rise, each job is changed once at most.
///
/// [`Bulk::start`](crate::admin::Bulk::start) returns the start. A later request, perhaps of another process, gives it
/// to [`Bulk::starting_at`](crate::admin::Bulk::starting_at).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Start {
    /// The highest id at the start.
    pub highest_id: i64,
    /// The time of the start, by the database's clock.
    pub time: SystemTime,
    /// The number of jobs that passed the filter when they were counted; `None` if they were not counted to the end.
    pub matching: Option<u64>,
}

impl Start {
    /// Makes a start that was stored elsewhere. The jobs were not counted.
    pub fn new(highest_id: i64, time: SystemTime) -> Start {
        Start { highest_id, time, matching: None }
    }

    /// Sets the number of jobs that were counted at this start, for the record of the run.
    #[must_use]
    pub fn matching(self, count: u64) -> Start {
        Start { matching: Some(count), ..self }
    }
}

impl Serialize for Start {
    /// Writes the fields as an array.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.highest_id, self.time, self.matching).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Start, D::Error> {
        let (highest_id, time, matching) = Deserialize::deserialize(deserializer)?;
        Ok(Start { highest_id, time, matching })
    }
}

/// The answer of [`Bulk::count_up_to`](crate::admin::Bulk::count_up_to).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobCount {
    /// The number of jobs that were counted.
    pub jobs: u64,
    /// True if these are all; false if there may be more.
    pub is_exact: bool,
}
