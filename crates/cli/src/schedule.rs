use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use reveille::admin::ScheduleRow;
use reveille::job::{NewJob, Payload, Priority};
use reveille::schedule::{CatchUp, Schedule};
use serde_json::json;

use crate::connection::{Connection, duration};
use crate::enqueue::object;
use crate::{Failure, Outcome, output};

#[derive(Subcommand)]
pub enum ScheduleCommand {
    /// Add a schedule, or change the schedule with that name. A changed schedule keeps its next tick unless the timing
    /// changes.
    Add(AddSchedule),
    /// List the schedules.
    List(ListSchedules),
    /// Pause a schedule: it enqueues nothing until it is resumed.
    Pause(OneSchedule),
    /// Resume a paused schedule, from its next tick after now.
    Resume(OneSchedule),
    /// Enqueue one job of a schedule now, in addition to its ticks.
    Trigger(OneSchedule),
    /// Remove a schedule. If a worker declares the schedule in its code, the schedule comes back when that worker
    /// starts again.
    Remove(OneSchedule),
    /// Show the next ticks of a cron text. This needs no database.
    Next(NextTicks),
}

#[derive(Args)]
pub struct AddSchedule {
    /// The name of the schedule.
    name: String,
    /// The kind of the schedule's jobs, which decides which handler runs them.
    kind: String,
    /// The payload that the handler gets: JSON.
    #[arg(default_value = "{}")]
    payload: String,
    /// The cron text: minute, hour, day of the month, month and day of the week, like '0 3 * * *'. A text of six fields
    /// begins with the second. Or @hourly, @daily, @weekly, @monthly, @yearly.
    #[arg(long, required_unless_present = "every", conflicts_with = "every")]
    cron: Option<String>,
    /// The interval, in place of --cron, like 5m.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    every: Option<Duration>,
    /// The time zone of the cron text, like Europe/Berlin.
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    time_zone: String,
    /// What to do about ticks that were missed because no worker ran: skip (enqueue nothing), one (one job for all
    /// missed ticks), all (one job for each missed tick).
    #[arg(long, default_value = "one", value_name = "POLICY")]
    catch_up: CatchUp,
    /// The queue of the schedule's jobs.
    #[arg(long, default_value = "default")]
    queue: String,
    /// The priority of the schedule's jobs: urgent, high, normal, low, or 0 to 3.
    #[arg(long, default_value = "normal")]
    priority: Priority,
    /// The number of failures at which a job is dead.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    max_attempts: u32,
    /// The time that one attempt may take, like 30s.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// The key of the schedule's jobs: what they belong to, such as a tenant.
    #[arg(long)]
    key: Option<String>,
    /// A label of the schedule's jobs. May be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Facts about the schedule's jobs: a JSON object.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct ListSchedules {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct OneSchedule {
    /// The name of the schedule.
    name: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct NextTicks {
    /// The cron text.
    cron: String,
    /// The time zone of the cron text, like Europe/Berlin.
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    time_zone: String,
    /// The number of ticks to show.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    count: u16,
    /// Show the ticks after this local time of the time zone, like 2026-03-28 or 2026-03-28T12:00. Default: now.
    #[arg(long, value_name = "TIME")]
    after: Option<DateTime>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl ScheduleCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self {
            ScheduleCommand::Add(add) => add.run(connection).await,
            ScheduleCommand::List(list) => list.run(connection).await,
            ScheduleCommand::Pause(one) => {
                let found = connection.operator().await?.pause_schedule(&one.name).await?;
                one.answer("paused", found)
            }
            ScheduleCommand::Resume(one) => {
                let found = connection.operator().await?.resume_schedule(&one.name).await?;
                one.answer("resumed", found)
            }
            ScheduleCommand::Trigger(one) => {
                let job = connection.operator().await?.trigger_schedule(&one.name).await?;
                let Some(job) = job else { return one.answer("triggered", false) };
                let object = json!({"schedule": one.name, "answer": "triggered", "job": job});
                Ok(output::answer(one.json, object, job)?)
            }
            ScheduleCommand::Remove(one) => {
                let found = connection.operator().await?.remove_schedule(&one.name).await?;
                one.answer("removed", found)
            }
            ScheduleCommand::Next(next) => next.run(),
        }
    }
}

/// Prints what was done to a schedule.
fn answer(done: &str, name: &str, json: bool) -> Outcome {
    Ok(output::answer(json, json!({"schedule": name, "answer": done}), format_args!("{done} {name}"))?)
}

impl OneSchedule {
    /// Prints what was done to the schedule, if it was found.
    fn answer(&self, done: &str, found: bool) -> Outcome {
        if found {
            return answer(done, &self.name, self.json);
        }
        say!("no schedule {}; `reveille schedule list` shows all", self.name);
        Err(Failure::NotFound)
    }
}

impl AddSchedule {
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
            (Some(cron), _) => Schedule::cron(&self.name, cron, &job)?,
            (None, every) => Schedule::every(&self.name, every.unwrap_or_default(), &job)?,
        };
        let schedule = schedule.time_zone(self.time_zone).catch_up(self.catch_up);
        // Computes a tick, which refuses a misspelt zone before the command connects.
        schedule.ticks_after(SystemTime::now())?.next();
        connection.operator().await?.add_schedule(&schedule).await?;
        answer("scheduled", &self.name, self.json)
    }
}

impl ListSchedules {
    async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 9] =
            ["name", "timing", "time_zone", "kind", "next_at", "last_at", "paused", "stale", "error"];
        let schedules = connection.database().await?.admin().schedules().await?;
        Ok(output::print(schedules.iter().map(ScheduleRow::record), &COLUMNS, self.json)?)
    }
}

impl NextTicks {
    fn run(self) -> Outcome {
        let job = NewJob::new("preview", Payload::parse("{}")?);
        let schedule = Schedule::cron("preview", &self.cron, &job)?.time_zone(&self.time_zone);
        // Computes a tick first, because its error tells the user how to write the zone.
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
