//! Looking at jobs and putting them right: what the command does, for programs.

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::database::Database;
use crate::driver::Postgres;
use crate::error::{Error, Result};
pub use crate::queue::QueueSettings;

mod dead_jobs;
pub mod doctor;
pub mod metrics;
mod queues;
mod record;
#[cfg(feature = "schedules")]
mod schedules;

pub use dead_jobs::{Batch, REASONS, Refused};
pub use queues::Backlog;
pub use record::Record;
pub(crate) use record::{as_bytes, records};

/// The administrator's view of a [`Database`]; made by [`Database::admin`].
#[derive(Debug, Clone)]
pub struct Admin {
    database: Database,
}

/// Which jobs to list, or to revive or purge.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only in this state: `ready`, `delayed`, `running`, `stuck`, `failing`; `dead`; `completed`, `cancelled`,
    /// `finished`. For dead jobs, a reason as well: `failed`, `permanent`, `timed_out`, `lost`, `undecodable`.
    pub state: Option<String>,
}

/// What became of running a finished job again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// A new job of this id was enqueued.
    Enqueued(i64),
    /// It has not ended.
    Live,
    /// It is dead: it is revived, not run again.
    Dead,
    /// Nothing is known of it; it never was, or its history is over.
    Unknown,
}

impl Database {
    /// For looking at jobs and putting them right.
    pub fn admin(&self) -> Admin {
        Admin { database: self.clone() }
    }
}

impl Admin {
    /// The rows of a view of Reveille's: `queue_stats`, `running_jobs`, `failing_jobs`, `dead_jobs_overview`,
    /// `worker_status`, `throughput`, `queue_limits`, `queue_totals`, `schedule_status`,
    /// `passed_over_jobs`.
    ///
    /// # Errors
    /// Invalid for any other name.
    pub async fn view(&self, name: &str) -> Result<Vec<Record>> {
        let sql = match name {
            "queue_stats" => as_bytes!("select to_jsonb(v) as record from reveille.queue_stats as v order by queue"),
            "running_jobs" => {
                as_bytes!("select to_jsonb(v) as record from reveille.running_jobs as v order by running_for desc")
            }
            "failing_jobs" => {
                as_bytes!("select to_jsonb(v) as record from reveille.failing_jobs as v order by id desc")
            }
            "dead_jobs_overview" => {
                as_bytes!("select to_jsonb(v) as record from reveille.dead_jobs_overview as v order by jobs desc")
            }
            "worker_status" => {
                as_bytes!("select to_jsonb(v) as record from reveille.worker_status as v order by started_at")
            }
            "queue_limits" => as_bytes!("select to_jsonb(v) as record from reveille.queue_limits as v order by queue"),
            "throughput" => {
                as_bytes!("select to_jsonb(v) as record from reveille.throughput as v order by minute desc, queue")
            }
            "queue_totals" => as_bytes!("select to_jsonb(v) as record from reveille.queue_totals as v order by queue"),
            "passed_over_jobs" => {
                as_bytes!("select to_jsonb(v) as record from reveille.passed_over_jobs as v order by id")
            }
            "schedule_status" => {
                as_bytes!("select to_jsonb(v) as record from reveille.schedule_status as v order by name")
            }
            _ => return Err(Error::invalid(format!("there is no view {name:?}"))),
        };
        records(&self.read("read a view", sql, &[]).await?)
    }

    /// What `reveille top` shows, of one moment: `at`, and up to 200 rows each of `queues`, `workers`, `running`,
    /// `failing`, `dead`, from the views, with times in seconds.
    ///
    /// # Errors
    /// What the server says; it may take 20 s.
    pub async fn overview(&self) -> Result<Record> {
        let sql = as_bytes!(include_str!("../../sql/overview.sql"));
        records(&self.database.read("read the overview", sql, &[]).await?)?
            .pop()
            .ok_or_else(|| Error::unavailable("read the overview: the server gave no answer"))
    }

    /// The names of all queues that have jobs, settings or a worker.
    ///
    /// # Errors
    /// What the server says.
    pub async fn queues(&self) -> Result<Vec<String>> {
        let sql = as_bytes!("select to_jsonb(v) as record from reveille.known_queues as v order by queue");
        records(&self.read("list queues", sql, &[]).await?)?.iter().map(|row| row.decode("queue")).collect()
    }

    /// Jobs in one state, newest first; without a state, all live ones.
    pub async fn jobs(&self, filter: &Filter, limit: u32) -> Result<Vec<Record>> {
        let state = filter.state.as_deref();
        let (sql, state) = match state {
            None | Some("ready" | "delayed" | "running" | "stuck" | "failing") => {
                (as_bytes!(include_str!("../../sql/list_jobs.sql")), state)
            }
            Some("dead") => (as_bytes!(include_str!("../../sql/list_dead_jobs.sql")), None),
            Some(reason) if REASONS.contains(&reason) => {
                (as_bytes!(include_str!("../../sql/list_dead_jobs.sql")), state)
            }
            Some("completed" | "cancelled") => (as_bytes!(include_str!("../../sql/list_finished_jobs.sql")), state),
            Some("finished") => (as_bytes!(include_str!("../../sql/list_finished_jobs.sql")), None),
            Some(unknown) => {
                return Err(Error::invalid(format!(
                    "unknown state {unknown:?}; use ready, delayed, running, stuck, failing, dead, completed, cancelled or finished"
                )));
            }
        };
        let limit = i64::from(limit);
        let params: [(&(dyn ToSql + Sync), Type); 4] =
            [(&filter.queue, Type::TEXT), (&filter.kind, Type::TEXT), (&limit, Type::INT8), (&state, Type::TEXT)];
        records(&self.read("list jobs", sql, &params).await?)
    }

    /// One job, wherever it is; `None` if nothing is known of it.
    pub async fn job(&self, id: i64) -> Result<Option<Record>> {
        let rows =
            self.read("look up a job", as_bytes!(include_str!("../../sql/job.sql")), &[(&id, Type::INT8)]).await?;
        Ok(records(&rows)?.pop())
    }

    /// Make a job due now: `due`, `revived`, `running`, `finished` or `unknown`, as `reveille.retry` says.
    pub async fn retry(&self, id: i64) -> Result<String> {
        self.text("retry a job", "select reveille.retry($1) as text", &[(&id, Type::INT8)]).await
    }

    /// Enqueue a new job that is like one that has finished or was cancelled: with its kind, payload, queue,
    /// priority, number of attempts, key, tags and metadata. It has no parent and no unique key, and its timeout is
    /// its kind's. As its payload is copied as it is stored, it passes no middleware.
    ///
    /// # Errors
    /// What the server says.
    pub async fn run_again(&self, id: i64) -> Result<Again> {
        let rows = self.query("run a job again", include_str!("../../sql/run_again.sql"), &[(&id, Type::INT8)]).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("run a job again: the server gave no answer"))?;
        Ok(match (row.get("id"), row.get("state")) {
            (Some(new), _) => Again::Enqueued(new),
            (None, "live") => Again::Live,
            (None, "dead") => Again::Dead,
            (None, _) => Again::Unknown,
        })
    }

    /// Cancel a job: `cancelled`, `requested`, `finished`, `dead` or `unknown`, as `reveille.cancel` says.
    pub async fn cancel(&self, id: i64) -> Result<String> {
        self.text("cancel a job", "select reveille.cancel($1) as text", &[(&id, Type::INT8)]).await
    }

    /// Ask a worker to shut down as it does at a signal: its `run_until` finishes what runs, and returns. Whether there
    /// is such a worker; ids are in the view `worker_status`.
    pub async fn stop_worker(&self, id: i64) -> Result<bool> {
        let sql = "select reveille.stop_worker($1) as stops";
        let rows = self.query("stop a worker", sql, &[(&id, Type::INT8)]).await?;
        Ok(rows.first().is_some_and(|row| row.get("stops")))
    }

    /// A time as Postgres reads it: `2026-12-24 18:00+01`, `tomorrow`, …
    ///
    /// # Errors
    /// Invalid if it is no time.
    pub async fn read_time(&self, text: &str) -> Result<SystemTime> {
        let rows = self
            .query(
                "read a time",
                "select time, isfinite(time) as finite from (select $1::text::timestamptz as time) as read",
                &[(&text, Type::TEXT)],
            )
            .await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("read a time: the server gave no answer"))?;
        match row.try_get("time") {
            Ok(time) if row.get("finite") => Ok(time),
            _ => Err(Error::invalid(format!("{text:?} is no time that a job can be due at"))),
        }
    }

    /// Do the upkeep that workers do each minute: returns how many daily partitions of the history were emptied, or
    /// `None` if a worker is at it.
    pub async fn prune(&self) -> Result<Option<u32>> {
        let rows = self.query("read the clock", "select clock_timestamp() as now", &[]).await?;
        let now: Option<SystemTime> = rows.first().map(|row| row.get("now"));
        Ok(Postgres::new(self.database.clone())?.do_all_chores(now).await?.emptied)
    }

    async fn text(&self, what: &str, sql: &'static str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<String> {
        let rows = self.query(what, sql, params).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable(format!("{what}: the server gave no answer")))?;
        Ok(row.get("text"))
    }

    async fn query(&self, what: &str, sql: &'static str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>> {
        self.database.run(what, sql, params).await
    }

    async fn read(&self, what: &str, sql: &'static str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>> {
        self.database.read(what, sql, params).await
    }
}
