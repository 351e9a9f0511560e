//! The settings of a queue, and pauses.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::job::{check_key, check_name};

/// The jobs that a pause covers: the jobs of a queue, a kind or a key, or of several of these together.
///
/// The name of a queue stands for the whole queue: `admin.pause("mail")`.
///
/// ```
/// use reveille::admin::Pause;
///
/// let one_card = Pause::new().kind("charge").key("card 7");
/// let mails_of_one_queue = Pause::new().kind("send_mail").queue("bulk");
/// let a_queue: Pause = "mail".into();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct Pause {
    pub(crate) queue: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) key: Option<String>,
}

impl Pause {
    /// Returns a pause that covers nothing yet. It needs a queue, a kind or a key.
    pub fn new() -> Pause {
        Pause::default()
    }

    /// Covers only jobs of this queue. Default: of all queues.
    pub fn queue(mut self, queue: impl Into<String>) -> Pause {
        self.queue = Some(queue.into());
        self
    }

    /// Covers only jobs of this kind. Default: of all kinds.
    pub fn kind(mut self, kind: impl Into<String>) -> Pause {
        self.kind = Some(kind.into());
        self
    }

    /// Covers only jobs with this key. Default: with any key, and jobs without a key.
    pub fn key(mut self, key: impl Into<String>) -> Pause {
        self.key = Some(key.into());
        self
    }

    /// True if the pause is of a whole queue: it names no kind and no key.
    pub fn is_of_queue(&self) -> bool {
        self.kind.is_none() && self.key.is_none()
    }

    /// True if the pause covers a job with these values.
    pub fn covers(&self, queue: &str, kind: &str, key: Option<&str>) -> bool {
        self.queue.as_deref().is_none_or(|paused| paused == queue)
            && self.kind.as_deref().is_none_or(|paused| paused == kind)
            && self.key.as_deref().is_none_or(|paused| Some(paused) == key)
    }

    /// # Errors
    /// Invalid for a bad name or key, or for a pause without a queue, a kind and a key.
    pub(crate) fn check(&self) -> Result<()> {
        if *self == Pause::default() {
            return Err(Error::invalid("a pause needs a queue, a kind or a key"));
        }
        for (what, name) in [("queue", &self.queue), ("kind", &self.kind)] {
            name.as_deref().map_or(Ok(()), |name| check_name(what, name))?;
        }
        check_key("key", self.key.as_deref())
    }
}

impl From<&str> for Pause {
    fn from(queue: &str) -> Pause {
        Pause::new().queue(queue)
    }
}

impl From<&String> for Pause {
    fn from(queue: &String) -> Pause {
        Pause::new().queue(queue)
    }
}

/// Changes to some settings of a queue. All settings that are not set here stay unchanged.
///
/// A setting that is set to `None` gets its default again. By default, a queue has no limits.
///
/// ```
/// use reveille::admin::QueueSettings;
///
/// let limited = QueueSettings::new().max_running(50).max_running_per_key(2);
/// let unlimited = QueueSettings::new().max_running(None).max_running_per_key(None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct QueueSettings {
    pub(crate) paused: Option<bool>,
    pub(crate) bell: Option<bool>,
    pub(crate) ordered: Option<bool>,
    // In each of the following fields, the outer `None` keeps the setting, and the inner `None` restores its default.
    pub(crate) retention: Option<Option<Duration>>,
    pub(crate) dead_retention: Option<Option<Duration>>,
    pub(crate) max_running: Option<Option<u32>>,
    pub(crate) max_running_per_key: Option<Option<u32>>,
    pub(crate) rate_limit: Option<Option<u32>>,
    pub(crate) rate_period: Option<Option<Duration>>,
    pub(crate) rate_burst: Option<Option<u32>>,
    pub(crate) rate_per_key: Option<Option<u32>>,
}

const LONGEST_RETENTION: Duration = Duration::from_secs(30 * 86_400);
const LONGEST_DEAD_RETENTION: Duration = Duration::from_secs(36_500 * 86_400);
const SHORTEST_RATE_PERIOD: Duration = Duration::from_millis(1);
const LONGEST_RATE_PERIOD: Duration = Duration::from_secs(30 * 86_400);

impl QueueSettings {
    /// Returns changes that change nothing yet.
    pub fn new() -> QueueSettings {
        QueueSettings::default()
    }

    /// Pauses or resumes the queue. A paused queue starts no jobs.
    pub fn paused(mut self, paused: bool) -> QueueSettings {
        self.paused = Some(paused);
        self
    }

    /// Turns the queue's bell on or off. Without the bell, workers find new jobs only by polling. Default: on.
    pub fn bell(mut self, bell: bool) -> QueueSettings {
        self.bell = Some(bell);
        self
    }

    /// Turns order on or off: jobs with the same key run one at a time, in the order in which they were enqueued.
    /// Default: off.
    pub fn ordered(mut self, ordered: bool) -> QueueSettings {
        self.ordered = Some(ordered);
        self
    }

    /// Sets the time for which finished jobs are kept: 0 to 30 days, default one day. Upkeep deletes the jobs within an
    /// hour after that time.
    pub fn retention(mut self, retention: impl Into<Option<Duration>>) -> QueueSettings {
        self.retention = Some(retention.into());
        self
    }

    /// Sets the time for which dead jobs are kept: 0 to 36,500 days. Default: until they are revived or purged.
    pub fn dead_retention(mut self, retention: impl Into<Option<Duration>>) -> QueueSettings {
        self.dead_retention = Some(retention.into());
        self
    }

    /// Limits the number of jobs of the queue that run at once, in all workers together.
    pub fn max_running(mut self, limit: impl Into<Option<u32>>) -> QueueSettings {
        self.max_running = Some(limit.into());
        self
    }

    /// Limits the number of jobs with the same key that run at once, in all workers together.
    pub fn max_running_per_key(mut self, limit: impl Into<Option<u32>>) -> QueueSettings {
        self.max_running_per_key = Some(limit.into());
        self
    }

    /// Limits the number of jobs of the queue that start in each [rate period](QueueSettings::rate_period).
    pub fn rate_limit(mut self, limit: impl Into<Option<u32>>) -> QueueSettings {
        self.rate_limit = Some(limit.into());
        self
    }

    /// Limits the number of jobs with the same key that start in each [rate period](QueueSettings::rate_period).
    pub fn rate_per_key(mut self, limit: impl Into<Option<u32>>) -> QueueSettings {
        self.rate_per_key = Some(limit.into());
        self
    }

    /// Sets the period of the rates: 1 ms to 30 days, default one second.
    pub fn rate_period(mut self, period: impl Into<Option<Duration>>) -> QueueSettings {
        self.rate_period = Some(period.into());
        self
    }

    /// Sets the number of jobs that may start at once after a time in which no job has started. Default 1.
    pub fn rate_burst(mut self, burst: impl Into<Option<u32>>) -> QueueSettings {
        self.rate_burst = Some(burst.into());
        self
    }

    /// Returns the changed settings by their columns in `reveille.queues`. `paused` is left out, because a function of
    /// the schema pauses and resumes queues.
    ///
    /// # Errors
    /// Invalid if a setting is out of its range.
    pub(crate) fn columns(&self) -> Result<Map<String, Value>> {
        if self.retention.flatten().is_some_and(|retention| retention > LONGEST_RETENTION) {
            return Err(Error::invalid("retention must be 30 days at most"));
        }
        if self.dead_retention.flatten().is_some_and(|retention| retention > LONGEST_DEAD_RETENTION) {
            return Err(Error::invalid("dead_retention must be 36500 days at most"));
        }
        let rate_periods = SHORTEST_RATE_PERIOD..=LONGEST_RATE_PERIOD;
        if self.rate_period.flatten().is_some_and(|period| !rate_periods.contains(&period)) {
            return Err(Error::invalid("rate_period must be 1 ms to 30 days"));
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
