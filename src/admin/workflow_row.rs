//! Workflows and their jobs as read from their rows.

use std::time::SystemTime;

use super::Record;
use crate::error::{Error, Result};
use crate::job::{FiresOn, WorkflowJobState, WorkflowState};

/// A row of the view `workflow_status`. Each field has the name of its column.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkflowRow {
    /// The id. Later workflows have higher ids.
    pub id: i64,
    /// The name; several workflows may have the same.
    pub name: String,
    /// The unique key.
    pub unique_key: Option<String>,
    /// The state.
    pub state: WorkflowState,
    /// The number of jobs.
    pub jobs: u64,
    /// The number of jobs that wait in their queues or run.
    pub live: u64,
    /// The number of blocked jobs: they wait for the ends of other jobs.
    pub blocked: u64,
    /// The number of completed jobs.
    pub completed: u64,
    /// The number of dead jobs.
    pub dead: u64,
    /// The number of cancelled jobs.
    pub cancelled: u64,
    /// The number of skipped jobs: the outcomes that they waited for can no longer come.
    pub skipped: u64,
    /// True once all jobs are enqueued.
    pub sealed: bool,
    /// The time at which the workflow was enqueued.
    pub created_at: Option<SystemTime>,
    /// The end.
    pub finished_at: Option<SystemTime>,
    /// The job whose handler enqueued the workflow.
    pub parent_id: Option<i64>,
    /// The schedule that started the workflow.
    pub schedule_id: Option<i64>,
    record: Record,
}

/// A row of the view `workflow_job_status`: a job of a workflow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkflowJobRow {
    /// The name of the job within the workflow.
    pub name: String,
    /// The id of the job.
    pub job: i64,
    /// The state.
    pub state: WorkflowJobState,
    /// The queue; `None` once the job has ended.
    pub queue: Option<String>,
    /// The kind; `None` once the job has ended.
    pub kind: Option<String>,
    /// The number of failed attempts of a live job.
    pub failures: u32,
    /// The time at which the job ended.
    pub ended_at: Option<SystemTime>,
    /// The jobs that the job waits for or has waited for: the first 100 of them.
    pub prerequisites: Vec<Prerequisite>,
    record: Record,
}

/// A job that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prerequisite {
    /// The name of the job within the workflow; the id of a job outside the workflow.
    pub name: String,
    /// The outcome that is waited for.
    pub fires_on: FiresOn,
}

impl WorkflowRow {
    /// All columns, as they are stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn from_record(record: Record) -> Result<WorkflowRow> {
        let count = |column| record.decode::<i64>(column).map(|jobs| jobs.max(0) as u64);
        Ok(WorkflowRow {
            id: record.decode("id")?,
            name: record.decode("name")?,
            unique_key: record.decode("unique_key")?,
            state: read_state(&record.decode::<String>("state")?)?,
            jobs: count("jobs")?,
            live: count("live")?,
            blocked: count("blocked")?,
            completed: count("completed")?,
            dead: count("dead")?,
            cancelled: count("cancelled")?,
            skipped: count("skipped")?,
            sealed: record.decode("sealed")?,
            created_at: record.time("created_at"),
            finished_at: record.time("finished_at"),
            parent_id: record.decode("parent_id")?,
            schedule_id: record.decode("schedule_id")?,
            record,
        })
    }
}

impl WorkflowJobRow {
    /// All columns, as they are stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn from_record(record: Record) -> Result<WorkflowJobRow> {
        let state: String = record.decode("state")?;
        let names = record.decode::<Vec<String>>("prerequisites")?.into_iter();
        let fires_on: Vec<String> = record.decode("fires_on")?;
        let prerequisites = names.zip(&fires_on).map(|(name, fires_on)| {
            Ok(Prerequisite { name, fires_on: fires_on.parse().map_err(|_| unknown(fires_on))? })
        });
        Ok(WorkflowJobRow {
            name: record.decode("name")?,
            job: record.decode("job")?,
            state: read_job_state(&state)?,
            queue: record.decode("queue")?,
            kind: record.decode("kind")?,
            failures: record.decode::<Option<u32>>("failures")?.unwrap_or_default(),
            ended_at: record.time("ended_at"),
            prerequisites: prerequisites.collect::<Result<_>>()?,
            record,
        })
    }
}

pub(super) fn read_state(name: &str) -> Result<WorkflowState> {
    WorkflowState::from_name(name).ok_or_else(|| unknown(name))
}

pub(super) fn read_job_state(name: &str) -> Result<WorkflowJobState> {
    WorkflowJobState::from_name(name).ok_or_else(|| unknown(name))
}

pub(super) fn unknown(name: &str) -> Error {
    Error::unavailable(format!(
        "cannot read a workflow: the server answered {name:?}, which this version does not know"
    ))
}
