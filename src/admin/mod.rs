//! Administration: reading and changing jobs, queues and schedules. The command `reveille` uses this module.
//!
//! ```no_run
//! # async fn example(database: reveille::Database) -> reveille::Result<()> {
//! use reveille::admin::{Filter, QueueSettings};
//!
//! let admin = database.admin();
//! for job in admin.jobs(&Filter::new().queue("mail"), 20).await? {
//!     println!("{} {}", job.id, job.kind);
//! }
//! admin.set_queue("mail", QueueSettings::new().max_running(8)).await?;
//! admin.pause("mail").await?;
//! admin.revive_dead(&Filter::new().kind("send_welcome")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The guide: [live control](crate::guide::features::control), [dead jobs](crate::guide::jobs::dead_jobs),
//! [monitoring](crate::guide::running::monitoring).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::database::{Database, Param};
pub use crate::driver::FailureReason;
use crate::error::{Error, Result};
pub use crate::job::{Cancelled, Retried, RetriedJob, WorkflowJobState, WorkflowState};
pub use crate::queue::{Pause, QueueSettings};

mod actions;
mod actor;
mod bulk;
mod dead_jobs;
pub mod doctor;
mod edit;
mod enqueue;
mod filter;
mod follow;
mod history;
#[cfg(feature = "http")]
pub mod http;
mod iso_time;
mod job_links;
mod job_row;
mod jobs;
pub mod metrics;
mod overview;
mod page;
mod prune;
mod queues;
mod recent;
mod record;
mod rights;
mod runs;
#[cfg(feature = "schedules")]
mod schedules;
mod slices;
mod sort;
mod step_row;
mod views;
mod workers;
mod workflow_layers;
mod workflow_row;
mod workflows;

use actor::Actor;

pub use actions::{ActionFilter, ActionRow, ActionState};
pub use bulk::{Bulk, BulkAction, BulkResult, JobCount, RefusedJob, Start};
pub use edit::{Edited, JobEdit};
pub use filter::{Filter, REASONS, StateFilter};
pub use follow::Follower;
pub use job_links::{DependencyState, JobLink, JobLinks, WorkflowOfJob};
pub use job_row::{FailedAttempt, JobRow};
pub use jobs::RunAgain;
pub use overview::OverviewList;
pub use page::{JobPage, PagePlace};
pub use queues::{Backlog, QueueUse, RemovedQueue};
pub use recent::{DeadError, DeadGroup, DeadJobs, DeadKind, Deaths, KindHistory};
pub use record::Record;
pub(crate) use record::{as_bytes, records};
pub use rights::Rights;
#[cfg(feature = "schedules")]
pub use schedules::ScheduleRow;
pub use sort::Sort;
pub use step_row::{StepKind, StepRow};
pub use views::View;
pub use workers::WorkerRow;
pub use workflow_row::{Prerequisite, WorkflowJobRow, WorkflowRow};
pub use workflows::{WorkflowFilter, WorkflowValues};

/// The administrator's view of a [`Database`]; made by [`Database::admin`].
#[derive(Debug, Clone)]
pub struct Admin {
    database: Database,
    /// The actor on whose behalf changes are made and recorded.
    actor: Option<Arc<Actor>>,
}

impl Database {
    /// Returns the [`Admin`], which reads and changes jobs, queues and schedules.
    pub fn admin(&self) -> Admin {
        Admin { database: self.clone(), actor: None }
    }
}

impl Admin {
    /// Reads a time as Postgres does: `2026-12-24 18:00+01`, `tomorrow`, …
    ///
    /// # Errors
    /// Invalid if the text is no time, or if the time is infinite.
    pub async fn read_time(&self, text: &str) -> Result<SystemTime> {
        let sql = "select time, isfinite(time) as finite from (select $1::text::timestamptz as time) as read";
        let rows = self.query("read a time", sql, &[(&text, Type::TEXT)]).await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::unavailable("cannot read the text as a time: the server returned no row"))?;
        match row.try_get("time") {
            Ok(time) if row.get("finite") => Ok(time),
            _ => Err(Error::invalid(format!(
                "{text:?} is not a time at which a job can be due; use one such as tomorrow"
            ))),
        }
    }

    /// Reads a length of time as Postgres reads an interval: `5 minutes`, `1 day 2:30`, `PT5M`, … A month has the
    /// length of the next month.
    ///
    /// # Errors
    /// Invalid if the text is no interval, or if the interval is infinite or negative.
    pub async fn read_duration(&self, text: &str) -> Result<Duration> {
        let sql = "select extract(epoch from now() + $1::text::interval - now())::double precision as seconds";
        let rows = self.query("read a length of time", sql, &[(&text, Type::TEXT)]).await?;
        let seconds = rows.first().map_or(f64::NAN, |row| row.get("seconds"));
        Duration::try_from_secs_f64(seconds).map_err(|_| {
            Error::invalid(format!("{text:?} is not a length of time from 0 on; use one such as 5 minutes"))
        })
    }

    async fn query(&self, what: &str, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.database.run(what, sql, params).await
    }

    async fn read(&self, what: &str, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.database.read(what, sql, params).await
    }
}
