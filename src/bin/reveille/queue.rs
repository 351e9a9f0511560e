use clap::{Args, Subcommand};
use reveille::admin::QueueSettings;

use crate::connection::{Connection, duration};
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct Pause {
    queue: String,
}

impl Pause {
    pub async fn run(self, connection: &Connection) -> Outcome {
        connection.database().await?.admin().pause(&self.queue).await?;
        Ok(output::line(format!("paused {}", self.queue))?)
    }
}

#[derive(Args)]
pub struct Resume {
    queue: String,
}

impl Resume {
    pub async fn run(self, connection: &Connection) -> Outcome {
        connection.database().await?.admin().resume(&self.queue).await?;
        Ok(output::line(format!("resumed {}", self.queue))?)
    }
}

#[derive(Subcommand)]
pub enum Queue {
    /// Change settings of a queue: retention=12h (0 to 30days, or default), paused=true|false, bell=true|false.
    Set(Set),
}

impl Queue {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let Queue::Set(set) = self;
        set.run(connection).await
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

fn parse(settings: &[String]) -> Result<QueueSettings, Failure> {
    let mut parsed = QueueSettings::default();
    for setting in settings {
        let (key, value) = setting.split_once('=').ok_or_else(|| format!("{setting:?} is not KEY=VALUE"))?;
        match key {
            "retention" if value == "default" => parsed.retention = Some(None),
            "retention" => {
                parsed.retention = Some(Some(duration(value).map_err(|error| format!("retention: {error}"))?))
            }
            "paused" => parsed.paused = Some(yes_or_no(key, value)?),
            "bell" => parsed.bell = Some(yes_or_no(key, value)?),
            _ => return Err(format!("unknown setting {key:?}; use retention, paused or bell").into()),
        }
    }
    Ok(parsed)
}

fn yes_or_no(key: &str, value: &str) -> Result<bool, Failure> {
    value.parse().map_err(|_| format!("{key} must be true or false, not {value:?}").into())
}

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
        fn others_are_refused(setting in "(retention|paused|bell|[a-z]*)=?.*") {
            let known = ["retention=", "paused=", "bell="].iter().any(|key| setting.starts_with(key));
            prop_assert!(known || parse(&[setting]).is_err());
        }
    }
}
