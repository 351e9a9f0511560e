//! What links a job with others: its workflow, and the jobs that wait for each other.

use std::time::SystemTime;

use serde_json::value::RawValue;
use tokio_postgres::types::Type;

use super::record::of_json;
use super::workflow_row::{read_job_state, unknown};
use super::{Admin, Record, WorkflowJobState, as_bytes, records};
use crate::error::{Error, Result};
use crate::job::FiresOn;

/// What links a job with others, as [`Admin::job_links`] returns it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobLinks {
    /// The workflow; `None` if the job belongs to none.
    pub workflow: Option<WorkflowOfJob>,
    /// The first of the jobs that the job waits for or has waited for, in the order of their labels.
    pub prerequisites: Vec<JobLink>,
    /// The first of the jobs that wait for the job or have waited for it, in the order of their ids.
    pub waiters: Vec<JobLink>,
}

/// The workflow of a job. It is known until 30 days after its end, even if the job's history is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkflowOfJob {
    /// The id of the workflow.
    pub id: i64,
    /// The name of the workflow.
    pub name: String,
    /// The name of the job within the workflow.
    pub job_name: String,
    /// The state of the job.
    pub job_state: WorkflowJobState,
    /// The time at which the job ended.
    pub ended_at: Option<SystemTime>,
}

/// A job at the other end of a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobLink {
    /// The id of the job.
    pub job: i64,
    /// The name under which the waiting one of the two jobs reads the result of the other.
    pub label: String,
    /// The name of the job within its workflow; `None` if the job belongs to none.
    pub name: Option<String>,
    /// The outcome that meets the dependency.
    pub fires_on: FiresOn,
    /// The state of the dependency.
    pub state: DependencyState,
    /// The queue; `None` if the job's history is gone.
    pub queue: Option<String>,
    /// The kind; `None` if the job's history is gone.
    pub kind: Option<String>,
    /// The state of the job; `None` if the job's history is gone, and no workflow knows the job.
    pub job_state: Option<WorkflowJobState>,
}

/// The state of a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DependencyState {
    /// The prerequisite has not ended.
    Open,
    /// The outcome has come.
    Met,
    /// The prerequisite is dead, and the waiting job waits for its revival.
    Held,
    /// The outcome can no longer come.
    Skipped,
}

impl DependencyState {
    /// All states.
    pub const ALL: [DependencyState; 4] =
        [DependencyState::Open, DependencyState::Met, DependencyState::Held, DependencyState::Skipped];

    /// The state's name in the database, such as `open`.
    pub fn name(self) -> &'static str {
        match self {
            DependencyState::Open => "open",
            DependencyState::Met => "met",
            DependencyState::Held => "held",
            DependencyState::Skipped => "skipped",
        }
    }
}

impl Admin {
    /// Reads what links a job with others: its workflow, and up to `limit` jobs each that it waits for and that wait
    /// for it. A job without links has none of these; so has an id without a job.
    ///
    /// # Errors
    /// The server's error.
    pub async fn job_links(&self, id: i64, limit: u32) -> Result<JobLinks> {
        let sql = as_bytes!(include_str!("../../sql/job_links.sql"));
        let limit = i64::from(limit);
        let rows = self.read("read the links of a job", sql, &[(&id, Type::INT8), (&limit, Type::INT8)]).await?;
        let row = records(&rows)?.pop();
        let row =
            row.ok_or_else(|| Error::unavailable("cannot read the links of a job: the server returned no row"))?;
        let has_workflow = row.get("workflow").is_some_and(|json| json != "null");
        Ok(JobLinks {
            workflow: has_workflow.then(|| WorkflowOfJob::of(&row.part("workflow")?)).transpose()?,
            prerequisites: links(&row, "prerequisites")?,
            waiters: links(&row, "waiters")?,
        })
    }
}

fn links(row: &Record, column: &str) -> Result<Vec<JobLink>> {
    let links: Vec<Box<RawValue>> = row.decode(column)?;
    links.iter().map(|link| JobLink::of(&of_json(link.get())?)).collect()
}

impl WorkflowOfJob {
    fn of(row: &Record) -> Result<WorkflowOfJob> {
        Ok(WorkflowOfJob {
            id: row.decode("id")?,
            name: row.decode("name")?,
            job_name: row.decode("job_name")?,
            job_state: read_job_state(&row.decode::<String>("job_state")?)?,
            ended_at: row.time("ended_at"),
        })
    }
}

impl JobLink {
    fn of(row: &Record) -> Result<JobLink> {
        let (fires_on, state): (String, String) = (row.decode("fires_on")?, row.decode("state")?);
        let job_state: Option<String> = row.decode("job_state")?;
        Ok(JobLink {
            job: row.decode("job")?,
            label: row.decode("label")?,
            name: row.decode("name")?,
            fires_on: fires_on.parse().map_err(|_| unknown(&fires_on))?,
            state: DependencyState::ALL
                .into_iter()
                .find(|known| known.name() == state)
                .ok_or_else(|| unknown(&state))?,
            queue: row.decode("queue")?,
            kind: row.decode("kind")?,
            job_state: job_state.as_deref().map(read_job_state).transpose()?,
        })
    }
}
