//! Administering schedules.

use std::time::SystemTime;

use serde_json::json;
use tokio_postgres::types::{ToSql, Type};

use super::actor::{Changed, difference};
use super::{Admin, Record, View};
use crate::database::insert::seconds;
use crate::error::Result;
use crate::schedule::{CatchUp, Schedule, Timing};

/// A row of the view `schedule_status`. Each field has the name of its column.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScheduleRow {
    /// The name.
    pub name: String,
    /// The cron text, or the interval as `every 00:00:10`.
    pub timing: String,
    /// The zone of the cron text.
    pub time_zone: String,
    /// The kind of the schedule's jobs.
    pub kind: String,
    /// The queue of the schedule's jobs.
    pub queue: String,
    /// The catch-up: what the schedule does about missed ticks.
    pub catch_up: CatchUp,
    /// The next tick. `None` while the schedule is paused, while it has an error, or until a worker has computed the
    /// tick.
    pub next_at: Option<SystemTime>,
    /// The last tick that enqueued a job.
    pub last_at: Option<SystemTime>,
    /// True if the schedule is paused.
    pub paused: bool,
    /// True if a worker once declared the schedule and no live worker declares it now.
    pub stale: bool,
    /// The reason why no tick can be computed.
    pub error: Option<String>,
    record: Record,
}

impl ScheduleRow {
    /// All columns, as they are stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    fn from_record(record: Record) -> Result<ScheduleRow> {
        Ok(ScheduleRow {
            name: record.decode("name")?,
            timing: record.decode("timing")?,
            time_zone: record.decode("time_zone")?,
            kind: record.decode("kind")?,
            queue: record.decode("queue")?,
            catch_up: record.decode::<String>("catch_up")?.parse()?,
            next_at: record.time("next_at"),
            last_at: record.time("last_at"),
            paused: record.decode("paused")?,
            stale: record.decode("stale")?,
            error: record.decode("error")?,
            record,
        })
    }
}

impl Admin {
    /// Adds a schedule, or changes the schedule with this name. Returns the schedule's id.
    ///
    /// A changed schedule keeps its next tick. But if its timing changes, the next tick is computed again.
    ///
    /// # Errors
    /// Invalid if the cron text or time zone cannot be read, or if the job could not be stored; in these cases, nothing
    /// is sent to the server. Else the server's error.
    pub async fn add_schedule(&self, schedule: &Schedule) -> Result<i64> {
        schedule.check()?;
        let Schedule { name, timing, time_zone, catch_up, job, .. } = schedule;
        let (cron, every) = match timing {
            Timing::Cron(cron) => (Some(cron), None),
            Timing::Every(every) => (None, Some(seconds(*every))),
        };
        let tags = (!job.tags.is_empty()).then_some(&job.tags);
        let params: [(&(dyn ToSql + Sync), Type); 14] = [
            (name, Type::TEXT),
            (&cron, Type::TEXT),
            (&every, Type::FLOAT8),
            (time_zone, Type::TEXT),
            (&catch_up.name(), Type::TEXT),
            (&job.kind, Type::TEXT),
            (&job.payload, Type::JSONB),
            (&job.queue, Type::TEXT),
            (&job.priority.level(), Type::INT2),
            (&(job.max_attempts as i32), Type::INT4),
            (&job.timeout.map(seconds), Type::FLOAT8),
            (&job.key, Type::TEXT),
            (&tags, Type::TEXT_ARRAY),
            (&job.metadata, Type::JSONB),
        ];
        let mut change = self.change("add a schedule");
        let before = change.settings(Changed::Schedule(name)).await?;
        let id = change.row(include_str!("../../sql/add_schedule.sql"), &params).await?.get("id");
        let after = change.settings(Changed::Schedule(name)).await?;
        change.record("schedule", json!({"schedule": name}), difference("scheduled", before, after)).await?;
        Ok(id)
    }

    /// Lists all schedules, in the order of their names.
    ///
    /// # Errors
    /// The server's error.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>> {
        self.view(View::ScheduleStatus).await?.into_iter().map(ScheduleRow::from_record).collect()
    }

    /// Pauses a schedule: it enqueues nothing until it is resumed. Returns false if no schedule has this name.
    ///
    /// # Errors
    /// The server's error.
    pub async fn pause_schedule(&self, name: &str) -> Result<bool> {
        let sql = "select reveille.pause_schedule($1) as found";
        self.on_schedule("pause a schedule", sql, name, ("pause_schedule", "paused")).await
    }

    /// Resumes a paused schedule from its next tick after now. Returns false if no schedule has this name.
    ///
    /// # Errors
    /// The server's error.
    pub async fn resume_schedule(&self, name: &str) -> Result<bool> {
        let sql = "select reveille.resume_schedule($1) as found";
        self.on_schedule("resume a schedule", sql, name, ("resume_schedule", "resumed")).await
    }

    /// Removes a schedule, but not the jobs that it has enqueued. Returns false if no schedule has this name.
    ///
    /// If a worker declares the schedule in its code, the schedule comes back when that worker starts again.
    ///
    /// # Errors
    /// The server's error.
    pub async fn remove_schedule(&self, name: &str) -> Result<bool> {
        let sql = "select reveille.unschedule($1) as found";
        self.on_schedule("remove a schedule", sql, name, ("unschedule", "removed")).await
    }

    /// Enqueues one job of a schedule now, in addition to its ticks, even while the schedule is paused.
    ///
    /// Returns the job's id, or `None` if no schedule has this name.
    ///
    /// # Errors
    /// The server's error.
    pub async fn trigger_schedule(&self, name: &str) -> Result<Option<i64>> {
        let sql = "select reveille.trigger_schedule($1) as id";
        let mut change = self.change("trigger a schedule");
        let job: Option<i64> = change.row(sql, &[(&name, Type::TEXT)]).await?.get("id");
        let detail = match job {
            Some(job) => json!({"answer": "triggered", "job": job}),
            None => json!({"answer": "unknown"}),
        };
        change.record("trigger_schedule", json!({"schedule": name}), detail).await?;
        Ok(job)
    }

    /// Calls a function that changes a schedule. Its record has the name of the action and the answer if a schedule was
    /// found.
    async fn on_schedule(
        &self,
        what: &str,
        sql: &'static str,
        name: &str,
        (action, done): (&str, &str),
    ) -> Result<bool> {
        let mut change = self.change(what);
        let before = change.settings(Changed::Schedule(name)).await?;
        let found = change.row(sql, &[(&name, Type::TEXT)]).await?.get("found");
        let after = change.settings(Changed::Schedule(name)).await?;
        let detail = difference(if found { done } else { "unknown" }, before, after);
        change.record(action, json!({"schedule": name}), detail).await?;
        Ok(found)
    }
}
