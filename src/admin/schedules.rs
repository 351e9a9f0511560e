//! Schedules, for who administers them.

use tokio_postgres::types::{ToSql, Type};

use super::{Admin, Record, as_bytes, records};
use crate::database::insert::seconds;
use crate::error::{Error, Result};
use crate::schedule::{Schedule, Timing};

impl Admin {
    /// Add a schedule, or change the one of its name, whose next tick stays unless the timing changes; returns its id.
    ///
    /// # Errors
    /// Invalid, before anything is sent, if its cron text or time zone makes no sense or its job could not be stored.
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
        let rows = self.query("add a schedule", include_str!("../../sql/add_schedule.sql"), &params).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("add a schedule: the server gave no answer"))?;
        Ok(row.get("id"))
    }

    /// All schedules, as `reveille.schedule_status` shows them.
    pub async fn schedules(&self) -> Result<Vec<Record>> {
        let sql = as_bytes!("select to_jsonb(v) as record from reveille.schedule_status as v order by name");
        records(&self.query("list schedules", sql, &[]).await?)
    }

    /// Enqueue nothing by this schedule until it is resumed; whether there is one.
    pub async fn pause_schedule(&self, name: &str) -> Result<bool> {
        self.on_schedule("pause a schedule", "select reveille.pause_schedule($1) as found", name).await
    }

    /// Go on with a schedule, from its next tick after now; whether there is one.
    pub async fn resume_schedule(&self, name: &str) -> Result<bool> {
        self.on_schedule("resume a schedule", "select reveille.resume_schedule($1) as found", name).await
    }

    /// Remove a schedule, but not what it has enqueued; whether there was one. One that a worker declares in its code
    /// is back when such a worker starts.
    pub async fn remove_schedule(&self, name: &str) -> Result<bool> {
        self.on_schedule("remove a schedule", "select reveille.unschedule($1) as found", name).await
    }

    /// Enqueue one job of a schedule now, beside its ticks and even if it is paused; its id, or `None` if there is no
    /// such schedule.
    pub async fn trigger_schedule(&self, name: &str) -> Result<Option<i64>> {
        let sql = "select reveille.trigger_schedule($1) as id";
        let rows = self.query("trigger a schedule", sql, &[(&name, Type::TEXT)]).await?;
        Ok(rows.first().and_then(|row| row.get("id")))
    }

    async fn on_schedule(&self, what: &str, sql: &'static str, name: &str) -> Result<bool> {
        let rows = self.query(what, sql, &[(&name, Type::TEXT)]).await?;
        Ok(rows.first().is_some_and(|row| row.get("found")))
    }
}
