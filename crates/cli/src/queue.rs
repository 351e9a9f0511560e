use std::time::Duration;

use clap::{Args, Subcommand};
use reveille::admin::{Admin, QueueSettings};

use crate::connection::{Connection, duration};
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct Pause {
    queue: String,
    /// Also if nothing is known of the queue yet: before its first job.
    #[arg(long)]
    create: bool,
}

impl Pause {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
        if !self.create && !is_known(&admin, &self.queue, "; --create pauses it before its first job").await? {
            return Err(Failure::NotFound);
        }
        admin.pause(&self.queue).await?;
        Ok(output::line(format!("paused {}", self.queue))?)
    }
}

#[derive(Args)]
pub struct Resume {
    queue: String,
}

impl Resume {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
        if !is_known(&admin, &self.queue, "").await? {
            return Err(Failure::NotFound);
        }
        admin.resume(&self.queue).await?;
        Ok(output::line(format!("resumed {}", self.queue))?)
    }
}

/// Whether anything is known of a queue; else that is said, with what to do.
pub async fn is_known(admin: &Admin, queue: &str, advice: &str) -> Result<bool, Failure> {
    let known = admin.is_known(queue).await?;
    if !known {
        let queue = output::plain(queue);
        say!("no queue {queue}: it has no settings, job, worker or count{advice}");
    }
    Ok(known)
}

#[derive(Subcommand)]
pub enum Queue {
    /// Change settings of a queue.
    ///
    /// retention=12h (of finished jobs: 0 to 30days, default 1day), dead_retention=90days (of dead jobs, default for
    /// ever), paused=true|false, bell=true|false; and its limits, kept by all workers together: max_running=5,
    /// max_running_per_key=1, ordered=true|false (one at a time of a key, in order), rate_limit=100, rate_period=1s,
    /// rate_burst=10, rate_per_key=5. Each can be put back by =default.
    Set(Set),
    /// The queues that have limits, and how far these are used.
    Limits(Limits),
}

#[derive(Args)]
pub struct Limits {
    /// Print one JSON object a queue.
    #[arg(long)]
    json: bool,
}

impl Limits {
    async fn run(self, connection: &Connection) -> Outcome {
        let limits = connection.database().await?.admin().view("queue_limits").await?;
        let columns = [
            "queue",
            "max_running",
            "running",
            "max_running_per_key",
            "ordered",
            "most_running_per_key",
            "rate_limit",
            "rate_period",
            "rate_burst",
            "rate_per_key",
        ];
        Ok(output::print(&limits, &columns, self.json)?)
    }
}

impl Queue {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self {
            Queue::Set(set) => set.run(connection).await,
            Queue::Limits(limits) => limits.run(connection).await,
        }
    }
}

#[derive(Args)]
pub struct Set {
    queue: String,
    #[arg(required = true, value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Set {
    async fn run(self, connection: &Connection) -> Outcome {
        let settings = parse(&self.settings)?;
        connection.database().await?.admin().set_queue(&self.queue, settings).await?;
        Ok(output::line(format!("set {}", self.queue))?)
    }
}

const SETTINGS: &str = "retention, paused, bell, dead_retention, max_running, max_running_per_key, ordered, rate_limit, rate_period, \
    rate_burst or rate_per_key";

/// Settings as they are written: `key=value`.
pub fn parse(settings: &[String]) -> Result<QueueSettings, Failure> {
    let mut parsed = QueueSettings::default();
    for setting in settings {
        let (key, value) = setting.split_once('=').ok_or_else(|| format!("{setting:?} is not KEY=VALUE"))?;
        match key {
            "retention" => parsed.retention = Some(time(key, value)?),
            "dead_retention" => parsed.dead_retention = Some(time(key, value)?),
            "rate_period" => parsed.rate_period = Some(time(key, value)?),
            "paused" => parsed.paused = Some(yes_or_no(key, value, false)?),
            "bell" => parsed.bell = Some(yes_or_no(key, value, true)?),
            "ordered" => parsed.ordered = Some(yes_or_no(key, value, false)?),
            "max_running" => parsed.max_running = Some(count(key, value)?),
            "max_running_per_key" => parsed.max_running_per_key = Some(count(key, value)?),
            "rate_limit" => parsed.rate_limit = Some(count(key, value)?),
            "rate_burst" => parsed.rate_burst = Some(count(key, value)?),
            "rate_per_key" => parsed.rate_per_key = Some(count(key, value)?),
            _ => return Err(format!("unknown setting {key:?}; use {SETTINGS}").into()),
        }
    }
    Ok(parsed)
}

fn time(key: &str, value: &str) -> Result<Option<Duration>, Failure> {
    match value {
        DEFAULT => Ok(None),
        value => Ok(Some(duration(value).map_err(|error| format!("{key}: {error}"))?)),
    }
}

fn count(key: &str, value: &str) -> Result<Option<u32>, Failure> {
    match value {
        DEFAULT => Ok(None),
        value => {
            value.parse().map(Some).map_err(|_| format!("{key} must be a number or default, not {value:?}").into())
        }
    }
}

fn yes_or_no(key: &str, value: &str, default: bool) -> Result<bool, Failure> {
    match value {
        DEFAULT => Ok(default),
        value => value.parse().map_err(|_| format!("{key} must be true, false or default, not {value:?}").into()),
    }
}

/// What puts a setting back.
const DEFAULT: &str = "default";

#[derive(Args)]
pub struct Prune {}

impl Prune {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match connection.database().await?.admin().prune().await? {
            Some(emptied) => output::line(format!("emptied {emptied} days of history"))?,
            None => output::line("a worker is pruning right now")?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn settings_are_read_as_they_are_written(hours in 0u64..720, paused: Option<bool>, bell: Option<bool>) {
            let flag = |key, value: Option<bool>| value.map(|value| format!("{key}={value}"));
            let all = [Some(format!("retention={hours}h")), flag("paused", paused), flag("bell", bell)];
            let read = parse(&all.into_iter().flatten().collect::<Vec<_>>()).ok();
            let read = read.map(|read| (read.retention, read.paused, read.bell));
            let retention = std::time::Duration::from_secs(hours * 3600);
            prop_assert_eq!(read, Some((Some(Some(retention)), paused, bell)));
        }

        #[test]
        fn others_are_refused(setting in "(retention|paused|bell|ordered|rate_limit|max_running|[a-z_]*)=?.*") {
            let known = setting.split_once('=').is_some_and(|(key, _)| SETTINGS.split([',', ' ']).any(|known| known == key));
            prop_assert!(known || parse(&[setting]).is_err());
        }

        #[test]
        fn limits_are_numbers_or_put_back(limit: u32, text in "[a-z]{1,6}") {
            let read = |value: &str| parse(&[format!("max_running={value}")]).ok().map(|read| read.max_running);
            prop_assert_eq!(read(&limit.to_string()), Some(Some(Some(limit))));
            prop_assert_eq!(read("default"), Some(Some(None)));
            prop_assert_eq!(read(&text), None);
        }
    }
}
