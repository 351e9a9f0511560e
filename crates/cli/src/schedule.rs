use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use reveille::job::Payload;
use reveille::job::{NewJob, Priority};
use reveille::schedule::{CatchUp, Schedule as NewSchedule};
use serde_json::json;

use crate::connection::{Connection, duration};
use crate::enqueue::object;
use crate::{Failure, Outcome, output};

#[derive(Subcommand)]
pub enum Schedule {
    /// Add a schedule, or change the one of that name; its next tick stays unless the timing changes.
    Add(Add),
    /// List the schedules.
    List(List),
    /// Enqueue nothing by a schedule until it is resumed.
    Pause(Named),
    /// Go on with a schedule, from its next tick after now.
    Resume(Named),
    /// Enqueue one job of a schedule now, beside its ticks.
    Trigger(Named),
    /// Remove a schedule. One that a worker declares in its code is back when such a worker starts.
    Remove(Named),
    /// Show when a cron text is due next; needs no database.
    Next(Next),
}

#[derive(Args)]
pub struct Add {
    /// What it is called.
    name: String,
    /// Which handler runs its jobs.
    kind: String,
    /// What the handler gets: JSON.
    #[arg(default_value = "{}")]
    payload: String,
    /// When: minute, hour, day of the month, month and day of the week, like '0 3 * * *'; with seconds first if there
    /// are six fields; or @hourly, @daily, @weekly, @monthly, @yearly.
    #[arg(long, required_unless_present = "every", conflicts_with = "every")]
    cron: Option<String>,
    /// Or at this interval, like 5m.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    every: Option<Duration>,
    /// The zone of the cron text, like Europe/Berlin.
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    time_zone: String,
    /// Ticks that are missed because no worker is there: skip (none of them), one (a single job for all), all (a job
    /// for each).
    #[arg(long, default_value = "one", value_name = "POLICY")]
    catch_up: CatchUp,
    /// The queue that its jobs go to.
    #[arg(long, default_value = "default")]
    queue: String,
    /// urgent, high, normal, low, or 0 to 3.
    #[arg(long, default_value = "normal")]
    priority: Priority,
    /// At how many failures such a job is dead.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: u32,
    /// How long one attempt may take, like 30s.
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
    /// What its jobs belong to, such as a tenant.
    #[arg(long)]
    key: Option<String>,
    /// A free label; may be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Free facts about its jobs: a JSON object.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
}

#[derive(Args)]
pub struct List {
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Named {
    /// The schedule.
    name: String,
}

#[derive(Args)]
pub struct Next {
    /// The cron text.
    cron: String,
    /// Its zone, like Europe/Berlin.
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    time_zone: String,
    /// How many ticks to show.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// The first ones after this local time of the zone, like 2026-03-28 or 2026-03-28T12:00; default: now.
    #[arg(long, value_name = "TIME")]
    after: Option<DateTime>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Schedule {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self {
            Schedule::Add(add) => add.run(connection).await,
            Schedule::List(list) => list.run(connection).await,
            Schedule::Pause(Named { name }) => {
                let found = connection.database().await?.admin().pause_schedule(&name).await?;
                answer(&name, found.then(|| format!("paused {name}")))
            }
            Schedule::Resume(Named { name }) => {
                let found = connection.database().await?.admin().resume_schedule(&name).await?;
                answer(&name, found.then(|| format!("resumed {name}")))
            }
            Schedule::Trigger(Named { name }) => {
                let job = connection.database().await?.admin().trigger_schedule(&name).await?;
                answer(&name, job.map(|id| id.to_string()))
            }
            Schedule::Remove(Named { name }) => {
                let found = connection.database().await?.admin().remove_schedule(&name).await?;
                answer(&name, found.then(|| format!("removed {name}")))
            }
            Schedule::Next(next) => next.run(),
        }
    }
}

fn answer(name: &str, done: Option<String>) -> Outcome {
    match done {
        Some(done) => Ok(output::line(done)?),
        None => {
            say!("no schedule {}", name);
            Err(Failure::NotFound)
        }
    }
}

impl Add {
    async fn run(self, connection: &Connection) -> Outcome {
        let mut job = NewJob::new(self.kind, Payload::parse(&self.payload)?)
            .queue(self.queue)
            .priority(self.priority)
            .max_attempts(self.max_attempts);
        job.timeout = self.timeout;
        job.key = self.key;
        job.tags = self.tags;
        job.metadata = self.metadata.as_deref().map(object).transpose()?;
        let schedule = match (self.cron, self.every) {
            (Some(cron), _) => NewSchedule::cron(&self.name, cron, &job)?,
            (None, every) => NewSchedule::every(&self.name, every.unwrap_or_default(), &job)?,
        };
        let schedule = schedule.time_zone(self.time_zone).catch_up(self.catch_up);
        // Whoever misspells a zone need not be connected to hear of it.
        schedule.ticks_after(SystemTime::now())?.next();
        connection.database().await?.admin().add_schedule(&schedule).await?;
        Ok(output::line(format!("scheduled {}", self.name))?)
    }
}

impl List {
    async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 9] =
            ["name", "timing", "time_zone", "kind", "next_at", "last_at", "paused", "stale", "error"];
        let schedules = connection.database().await?.admin().schedules().await?;
        Ok(output::print(&schedules, &COLUMNS, self.json)?)
    }
}

impl Next {
    fn run(self) -> Outcome {
        let job = NewJob::new("preview", Payload::parse("{}")?);
        let schedule = NewSchedule::cron("preview", &self.cron, &job)?.time_zone(&self.time_zone);
        // First, since it says what is wrong with the zone.
        schedule.ticks_after(SystemTime::now())?.next();
        let zone = TimeZone::get(&self.time_zone).map_err(|error| error.to_string())?;
        let after = match self.after {
            Some(after) => zone.to_timestamp(after).map_err(|error| error.to_string())?,
            None => Timestamp::now(),
        };
        for tick in schedule.ticks_after(after.into())?.take(self.count.into()) {
            let tick = Timestamp::try_from(tick).map_err(|error| error.to_string())?;
            let local: Zoned = tick.to_zoned(zone.clone());
            if self.json {
                let local = local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
                output::line(json!({"at": tick.to_string(), "local": local}))?;
            } else {
                output::line(local.strftime("%a %Y-%m-%d %H:%M:%S %:z %Z"))?;
            }
        }
        Ok(())
    }
}
