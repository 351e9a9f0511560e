use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand};
use reveille::admin::{Admin, Pause, QueueSettings, Record, RemovedQueue, View};
use serde_json::json;

use crate::connection::{Connection, duration};
use crate::{Failure, Outcome, output};

/// The jobs that a pause covers.
#[derive(Args)]
pub struct Covered {
    /// The name of the queue. With --kind or --key: only their jobs in this queue, instead of all queues.
    #[arg(required_unless_present_any = ["kind", "key"])]
    queue: Option<String>,
    /// Only jobs of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only jobs with this key.
    #[arg(long)]
    key: Option<String>,
}

impl Covered {
    fn pause(&self) -> Pause {
        let pause = self.queue.iter().fold(Pause::new(), |pause, queue| pause.queue(queue));
        let pause = self.kind.iter().fold(pause, |pause, kind| pause.kind(kind));
        self.key.iter().fold(pause, |pause, key| pause.key(key))
    }

    fn is_of_queue(&self) -> bool {
        self.kind.is_none() && self.key.is_none()
    }

    /// Prints what was done.
    fn answer(&self, done: &str, json: bool) -> Outcome {
        let Covered { queue, kind, key } = self;
        let object = if self.is_of_queue() {
            json!({"queue": queue, "answer": done})
        } else {
            json!({"queue": queue, "kind": kind, "key": key, "answer": done})
        };
        Ok(output::answer(json, object, format_args!("{done} {self}"))?)
    }
}

impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue.as_deref().map(output::plain);
        if self.is_of_queue() {
            return write!(f, "{}", queue.unwrap_or_default());
        }
        let parts = [("kind", &self.kind), ("key", &self.key)];
        let named = parts.iter().filter_map(|(what, name)| Some(format!("{what} {}", output::plain(name.as_ref()?))));
        let place = queue.map_or("all queues".into(), |queue| format!("queue {queue}"));
        write!(f, "{} in {place}", named.collect::<Vec<_>>().join(" with "))
    }
}

#[derive(Args)]
pub struct PauseCommand {
    #[command(flatten)]
    covered: Covered,
    /// Pause the queue even if nothing is known of it, before its first job.
    #[arg(long)]
    create: bool,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl PauseCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.operator().await?;
        if let (Some(queue), false) = (&self.covered.queue, self.create)
            && !is_known(&admin, queue, "--create pauses it before its first job").await?
        {
            return Err(Failure::NotFound);
        }
        admin.pause(self.covered.pause()).await?;
        self.covered.answer("paused", self.json)
    }
}

#[derive(Args)]
pub struct ResumeCommand {
    #[command(flatten)]
    covered: Covered,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl ResumeCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.operator().await?;
        let covered = &self.covered;
        match &covered.queue {
            Some(queue) if covered.is_of_queue() => {
                if !is_known(&admin, queue, SEE_STATUS).await? {
                    return Err(Failure::NotFound);
                }
            }
            queue => {
                let wanted = [("queue", queue), ("kind", &covered.kind), ("key", &covered.key)];
                let is_wanted = |pause: &Record| {
                    wanted
                        .iter()
                        .all(|(column, name)| pause.decode::<Option<String>>(column).ok().as_ref() == Some(*name))
                };
                if !admin.view(View::PauseStatus).await?.iter().any(is_wanted) {
                    say!("no pause of {covered}; `reveille queue pauses` lists the pauses");
                    return Err(Failure::NotFound);
                }
            }
        }
        admin.resume(covered.pause()).await?;
        covered.answer("resumed", self.json)
    }
}

/// Prints what was done to a queue.
fn answer(done: &str, queue: &str, json: bool) -> Outcome {
    Ok(output::answer(json, json!({"queue": queue, "answer": done}), format_args!("{done} {queue}"))?)
}

pub const SEE_STATUS: &str = "`reveille status` lists the queues";

/// Returns true if the queue is known. Otherwise, this prints a message with the advice.
pub async fn is_known(admin: &Admin, queue: &str, advice: &str) -> Result<bool, Failure> {
    let known = admin.is_known(queue).await?;
    if !known {
        let queue = output::plain(queue);
        say!("no queue {queue}: it has no settings, job, worker or counts; {advice}");
    }
    Ok(known)
}

#[derive(Subcommand)]
pub enum QueueCommand {
    /// Change settings of a queue. KEY=default restores the default of a setting.
    ///
    /// Kept jobs: retention=12h (how long finished jobs are kept: 0 to 30days, default 1day), dead_retention=90days
    /// (how long dead jobs are kept, default without end).
    ///
    /// Starts: paused=true|false, bell=true|false (false: no NOTIFY, so jobs wait for the next poll).
    ///
    /// Limits, which all workers keep together: max_running=5, max_running_per_key=1, ordered=true|false (one job of a
    /// key at a time, in the order of their ids), rate_limit=100, rate_period=1s, rate_burst=10, rate_per_key=5.
    Set(SetQueue),
    /// List the queues that have limits, and the present use of the limits.
    Limits(ListLimits),
    /// List the pauses of queues, kinds and keys, and the number of jobs that each keeps parked.
    Pauses(ListPauses),
    /// Remove the settings and counters of a queue that nothing uses.
    ///
    /// A queue is in use while it has jobs that wait, run or are dead, a worker, or a schedule that enqueues into it.
    /// The history of its jobs stays for a day.
    Remove(RemoveQueue),
}

#[derive(Args)]
pub struct RemoveQueue {
    /// The name of the queue.
    queue: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl RemoveQueue {
    async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.operator().await?;
        let removed = admin.remove_queue(&self.queue).await?;
        match removed {
            RemovedQueue::Removed => return answer("removed", &self.queue, self.json),
            RemovedQueue::InUse(used) => {
                if self.json {
                    output::line(json!({"queue": self.queue, "answer": "in_use", "used_by": used.to_string()}))?;
                }
                say!("queue {} is in use: {used}; it can be removed once nothing uses it", self.queue);
            }
            _ => say!("no queue {}: it has no settings, job, worker or counts; {SEE_STATUS}", self.queue),
        }
        Err(Failure::NotFound)
    }
}

#[derive(Args)]
pub struct ListLimits {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl ListLimits {
    async fn run(self, connection: &Connection) -> Outcome {
        let limits = connection.database().await?.admin().view(View::QueueLimits).await?;
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

#[derive(Args)]
pub struct ListPauses {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl ListPauses {
    async fn run(self, connection: &Connection) -> Outcome {
        let pauses = connection.database().await?.admin().view(View::PauseStatus).await?;
        Ok(output::print(&pauses, &["queue", "kind", "key", "paused_at", "parked"], self.json)?)
    }
}

impl QueueCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self {
            QueueCommand::Set(set) => set.run(connection).await,
            QueueCommand::Limits(limits) => limits.run(connection).await,
            QueueCommand::Pauses(pauses) => pauses.run(connection).await,
            QueueCommand::Remove(remove) => remove.run(connection).await,
        }
    }
}

#[derive(Args)]
pub struct SetQueue {
    /// The name of the queue.
    queue: String,
    /// The settings.
    #[arg(required = true, value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl SetQueue {
    async fn run(self, connection: &Connection) -> Outcome {
        let settings = parse(&self.settings)?;
        connection.operator().await?.set_queue(&self.queue, settings).await?;
        answer("set", &self.queue, self.json)
    }
}

const SETTINGS: &str = "retention, paused, bell, dead_retention, max_running, max_running_per_key, ordered, \
    rate_limit, rate_period, rate_burst or rate_per_key";

/// Reads settings that are written as `key=value`.
pub fn parse(settings: &[String]) -> Result<QueueSettings, Failure> {
    let mut parsed = QueueSettings::new();
    for setting in settings {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| format!("{setting:?} is not KEY=VALUE; write it like max_running=5"))?;
        parsed = match key {
            "retention" => parsed.retention(time(key, value)?),
            "dead_retention" => parsed.dead_retention(time(key, value)?),
            "rate_period" => parsed.rate_period(time(key, value)?),
            "paused" => parsed.paused(yes_or_no(key, value, false)?),
            "bell" => parsed.bell(yes_or_no(key, value, true)?),
            "ordered" => parsed.ordered(yes_or_no(key, value, false)?),
            "max_running" => parsed.max_running(count(key, value)?),
            "max_running_per_key" => parsed.max_running_per_key(count(key, value)?),
            "rate_limit" => parsed.rate_limit(count(key, value)?),
            "rate_burst" => parsed.rate_burst(count(key, value)?),
            "rate_per_key" => parsed.rate_per_key(count(key, value)?),
            _ => return Err(format!("unknown setting {key:?}; use {SETTINGS}").into()),
        };
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

/// The value that restores the default of a setting.
const DEFAULT: &str = "default";

#[derive(Args)]
pub struct PruneCommand {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl PruneCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let emptied = connection.operator().await?.prune().await?;
        let (answer, text) = match emptied {
            Some(emptied) => ("pruned", format!("emptied {emptied} days of history")),
            None => ("busy", "a worker is already doing the upkeep".to_owned()),
        };
        Ok(output::answer(self.json, json!({"answer": answer, "emptied_days": emptied}), text)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTING: &str = "(retention|paused|bell|ordered|rate_limit|max_running|[a-z_]*)=?.*";

    proptest! {
        #[test]
        fn settings_are_read_as_they_are_written(hours in 0u64..720, paused: Option<bool>, bell: Option<bool>) {
            let flag = |key, value: Option<bool>| value.map(|value| format!("{key}={value}"));
            let all = [Some(format!("retention={hours}h")), flag("paused", paused), flag("bell", bell)];
            let mut expected = QueueSettings::new().retention(Duration::from_secs(hours * 3600));
            expected = paused.map_or(expected, |paused| expected.paused(paused));
            expected = bell.map_or(expected, |bell| expected.bell(bell));
            prop_assert_eq!(parse(&all.into_iter().flatten().collect::<Vec<_>>()).ok(), Some(expected));
        }

        #[test]
        fn unknown_settings_are_refused(setting in SETTING) {
            let is_known = |key| SETTINGS.split([',', ' ']).any(|known| known == key);
            let known = setting.split_once('=').is_some_and(|(key, _)| is_known(key));
            prop_assert!(known || parse(&[setting]).is_err());
        }

        #[test]
        fn a_limit_is_a_number_or_put_back(limit: u32, text in "[a-z]{1,6}") {
            let read = |value: &str| parse(&[format!("max_running={value}")]).ok();
            prop_assert_eq!(read(&limit.to_string()), Some(QueueSettings::new().max_running(limit)));
            prop_assert_eq!(read("default"), Some(QueueSettings::new().max_running(None)));
            prop_assert_eq!(read(&text), None);
        }
    }
}
