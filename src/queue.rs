//! What a queue can be set to.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Settings of a queue to change: `None` leaves one as it is, `Some(None)` puts it back to its default, which for a
/// limit is that there is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueueSettings {
    /// How long its finished jobs are kept, at most 30 days; default one day. Upkeep deletes them within an hour after
    /// that.
    pub retention: Option<Option<Duration>>,
    /// How long its dead jobs are kept, at most 36,500 days; default until they are revived or purged.
    pub dead_retention: Option<Option<Duration>>,
    /// Whether it starts no jobs.
    pub paused: Option<bool>,
    /// Whether enqueuing rings the bell.
    pub bell: Option<bool>,
    /// At most so many of its jobs run at once, all workers together.
    pub max_running: Option<Option<u32>>,
    /// At most so many of its jobs with the same key run at once.
    pub max_running_per_key: Option<Option<u32>>,
    /// Whether its jobs with the same key run one at a time, in the order in which they were enqueued.
    pub ordered: Option<bool>,
    /// At most so many of its jobs start in each rate period.
    pub rate_limit: Option<Option<u32>>,
    /// What the rates are for, a millisecond to 30 days; default one second.
    pub rate_period: Option<Option<Duration>>,
    /// How many may start at once after a rest; default 1.
    pub rate_burst: Option<Option<u32>>,
    /// At most so many of its jobs with the same key start in each rate period.
    pub rate_per_key: Option<Option<u32>>,
}

const MONTH: Duration = Duration::from_secs(30 * 86_400);
const CENTURY: Duration = Duration::from_secs(36_500 * 86_400);

impl QueueSettings {
    /// Those to change, by the names of their columns; that it is paused is no column.
    pub(crate) fn columns(&self) -> Result<Map<String, Value>> {
        if self.retention.flatten().is_some_and(|retention| retention > MONTH) {
            return Err(Error::invalid("retention must be 30 days at most"));
        }
        if self.dead_retention.flatten().is_some_and(|retention| retention > CENTURY) {
            return Err(Error::invalid("dead_retention must be 36500 days at most"));
        }
        if self.rate_period.flatten().is_some_and(|period| !(Duration::from_millis(1)..=MONTH).contains(&period)) {
            return Err(Error::invalid("rate_period must be a millisecond to 30 days"));
        }
        let mut columns = Map::new();
        for (name, flag) in [("bell", self.bell), ("ordered", self.ordered)] {
            columns.extend(flag.map(|flag| (name.into(), flag.into())));
        }
        let times =
            [("retention", self.retention), ("dead_retention", self.dead_retention), ("rate_period", self.rate_period)];
        for (name, time) in times {
            columns.extend(time.map(|time| (name.into(), time.map(|time| time.as_secs_f64()).into())));
        }
        let limits = [
            ("max_running", self.max_running),
            ("max_running_per_key", self.max_running_per_key),
            ("rate_limit", self.rate_limit),
            ("rate_burst", self.rate_burst),
            ("rate_per_key", self.rate_per_key),
        ];
        for (name, limit) in limits {
            if limit.flatten().is_some_and(|limit| !(1..=i32::MAX as u32).contains(&limit)) {
                return Err(Error::invalid(format!("{name} must be 1 to {}; to stop a queue, pause it", i32::MAX)));
            }
            columns.extend(limit.map(|limit| (name.into(), limit.into())));
        }
        Ok(columns)
    }
}
