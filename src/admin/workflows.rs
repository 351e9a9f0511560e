//! Administering workflows.

use std::time::SystemTime;

use serde_json::json;
use tokio_postgres::types::Type;

use super::{Admin, Record, as_bytes, records};
use crate::error::{Error, Result};
use crate::job::{FiresOn, Payload, Retried};

/// The state of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkflowState {
    /// At least one job runs, or can start, or waits for one that can.
    Running,
    /// Dead jobs hold up all others, until they are revived or the workflow is cancelled.
    Stalled,
    /// The workflow is being cancelled: workers cancel its jobs.
    Cancelling,
    /// The workflow has ended: no job is dead or was cancelled.
    Completed,
    /// The workflow has ended: at least one job is dead.
    Failed,
    /// The workflow has ended: it was cancelled.
    Cancelled,
}

/// Chooses workflows: a workflow passes if it meets all conditions. A new filter has no condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct WorkflowFilter {
    name: Option<String>,
    state: Option<WorkflowState>,
    before: Option<i64>,
}

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

/// The state of a job of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkflowJobState {
    /// The job waits for the ends of other jobs.
    Blocked,
    /// The job is not due yet.
    Delayed,
    /// The job is due.
    Ready,
    /// A worker has reserved the job.
    Running,
    /// The job has ended, and no worker has applied its end yet.
    Ended,
    /// The job is completed.
    Completed,
    /// The job is dead.
    Dead,
    /// The job was cancelled.
    Cancelled,
    /// The job was skipped: the outcome that it waited for can no longer come.
    Skipped,
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

/// The answer of [`Admin::retry_workflow`] for one dead job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetriedJob {
    /// The name of the job within the workflow.
    pub name: String,
    /// The id of the job.
    pub job: i64,
    /// What was done; `None` if the job stays dead because a live job has its id or its unique key.
    pub retried: Option<Retried>,
}

impl Admin {
    /// Lists at most `limit` workflows that pass the filter, newest first. Their rows have no input and no result. A
    /// workflow is kept for 30 days after its end.
    ///
    /// # Errors
    /// The server's error.
    pub async fn workflows(&self, filter: &WorkflowFilter, limit: u32) -> Result<Vec<WorkflowRow>> {
        let sql = as_bytes!(include_str!("../../sql/list_workflows.sql"));
        let (state, limit) = (filter.state.map(WorkflowState::name), i64::from(limit));
        let params = [
            (&filter.name as _, Type::TEXT),
            (&state as _, Type::TEXT),
            (&filter.before as _, Type::INT8),
            (&limit as _, Type::INT8),
        ];
        let rows = self.read("list workflows", sql, &params).await?;
        records(&rows)?.into_iter().map(WorkflowRow::from_record).collect()
    }

    /// Returns one workflow; `None` if no workflow has this id, or if the workflow ended more than 30 days ago.
    ///
    /// # Errors
    /// The server's error.
    pub async fn workflow(&self, id: i64) -> Result<Option<WorkflowRow>> {
        let sql = as_bytes!("select to_jsonb(v) as record from reveille.workflow_status as v where id = $1");
        let rows = self.read("read a workflow", sql, &[(&id, Type::INT8)]).await?;
        records(&rows)?.pop().map(WorkflowRow::from_record).transpose()
    }

    /// Lists at most `limit` jobs of a workflow, in the order of their names. With `after`, lists only jobs whose names
    /// come after this one, for the next page.
    ///
    /// # Errors
    /// The server's error.
    pub async fn workflow_jobs(&self, id: i64, after: &str, limit: u32) -> Result<Vec<WorkflowJobRow>> {
        let sql = as_bytes!(include_str!("../../sql/workflow_jobs.sql"));
        let limit = i64::from(limit);
        let params = [(&id as _, Type::INT8), (&after as _, Type::TEXT), (&limit as _, Type::INT8)];
        let rows = self.read("list the jobs of a workflow", sql, &params).await?;
        records(&rows)?.into_iter().map(WorkflowJobRow::from_record).collect()
    }

    /// Cancels a workflow: no job of it starts any more, and workers cancel its jobs. Jobs that wait for any end or for
    /// a cancellation alone still run.
    ///
    /// Returns the state of the workflow: [`Cancelling`](WorkflowState::Cancelling), or the state in which it has ended;
    /// `None` if no workflow has this id.
    ///
    /// # Errors
    /// The server's error.
    pub async fn cancel_workflow(&self, id: i64) -> Result<Option<WorkflowState>> {
        let mut change = self.change("cancel a workflow");
        let row = change.row("select reveille.cancel_workflow($1) as answer", &[(&id, Type::INT8)]).await?;
        let answer: String = row.get("answer");
        let state = (answer != "unknown").then(|| WorkflowState::read(&answer)).transpose()?;
        change.record("cancel_workflow", json!({"workflow": id}), json!({"answer": answer})).await?;
        Ok(state)
    }

    /// Revives the dead jobs of a workflow, so that it goes on. Returns what was done to each dead job; `None` if no
    /// workflow has this id.
    ///
    /// If a job that waited for a death was started, the dead job stays dead, unless `forced` is true. See
    /// [`Retried::Compensated`].
    ///
    /// # Errors
    /// The server's error.
    pub async fn retry_workflow(&self, id: i64, forced: bool) -> Result<Option<Vec<RetriedJob>>> {
        let mut change = self.change("retry a workflow");
        let sql = include_str!("../../sql/retry_workflow.sql");
        let rows = change.query(sql, &[(&id, Type::INT8), (&forced, Type::BOOL)]).await?;
        let is_known = rows.iter().any(|row| row.get("is_known"));
        let dead = rows.iter().filter(|row| row.get::<_, Option<i64>>("job").is_some());
        let retried = |answer: &str| Retried::ALL.into_iter().find(|known| known.name() == answer);
        let jobs: Vec<RetriedJob> = dead
            .map(|row| RetriedJob { name: row.get("name"), job: row.get("job"), retried: retried(row.get("answer")) })
            .collect();
        let revived = jobs.iter().filter(|job| job.retried == Some(Retried::Revived)).count();
        let detail = match is_known {
            true => json!({"answer": "retried", "forced": forced, "revived": revived, "dead": jobs.len() - revived}),
            false => json!({"answer": "unknown"}),
        };
        change.record("retry_workflow", json!({"workflow": id}), detail).await?;
        Ok(is_known.then_some(jobs))
    }
}

impl WorkflowFilter {
    /// Returns a filter that chooses all workflows.
    pub fn new() -> WorkflowFilter {
        WorkflowFilter::default()
    }

    /// Chooses only workflows with this name.
    pub fn name(mut self, name: impl Into<String>) -> WorkflowFilter {
        self.name = Some(name.into());
        self
    }

    /// Chooses only workflows in this state.
    pub fn state(mut self, state: WorkflowState) -> WorkflowFilter {
        self.state = Some(state);
        self
    }

    /// Chooses only workflows with lower ids than this one, for the next page.
    pub fn before(mut self, id: i64) -> WorkflowFilter {
        self.before = Some(id);
        self
    }
}

impl WorkflowState {
    /// All states.
    pub const ALL: [WorkflowState; 6] = [
        WorkflowState::Running,
        WorkflowState::Stalled,
        WorkflowState::Cancelling,
        WorkflowState::Completed,
        WorkflowState::Failed,
        WorkflowState::Cancelled,
    ];

    /// The state's name in the view: running, stalled, cancelling, completed, failed or cancelled.
    pub fn name(self) -> &'static str {
        match self {
            WorkflowState::Running => "running",
            WorkflowState::Stalled => "stalled",
            WorkflowState::Cancelling => "cancelling",
            WorkflowState::Completed => "completed",
            WorkflowState::Failed => "failed",
            WorkflowState::Cancelled => "cancelled",
        }
    }

    fn read(name: &str) -> Result<WorkflowState> {
        WorkflowState::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| unknown(name))
    }
}

impl WorkflowJobState {
    /// All states.
    pub const ALL: [WorkflowJobState; 9] = [
        WorkflowJobState::Blocked,
        WorkflowJobState::Delayed,
        WorkflowJobState::Ready,
        WorkflowJobState::Running,
        WorkflowJobState::Ended,
        WorkflowJobState::Completed,
        WorkflowJobState::Dead,
        WorkflowJobState::Cancelled,
        WorkflowJobState::Skipped,
    ];

    /// The state's name in the view, such as `blocked`.
    pub fn name(self) -> &'static str {
        match self {
            WorkflowJobState::Blocked => "blocked",
            WorkflowJobState::Delayed => "delayed",
            WorkflowJobState::Ready => "ready",
            WorkflowJobState::Running => "running",
            WorkflowJobState::Ended => "ended",
            WorkflowJobState::Completed => "completed",
            WorkflowJobState::Dead => "dead",
            WorkflowJobState::Cancelled => "cancelled",
            WorkflowJobState::Skipped => "skipped",
        }
    }
}

impl WorkflowRow {
    /// The input, for all jobs of the workflow. A listed workflow has none.
    pub fn input(&self) -> Option<Payload> {
        self.json("input")
    }

    /// The result of the one completed job that no other job waits for. A listed workflow has none.
    pub fn result(&self) -> Option<Payload> {
        self.json("result")
    }

    /// All columns, as they are stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    fn json(&self, column: &str) -> Option<Payload> {
        self.record.get(column).filter(|json| *json != "null").map(Payload::from_stored)
    }

    fn from_record(record: Record) -> Result<WorkflowRow> {
        let count = |column| record.decode::<i64>(column).map(|jobs| jobs.max(0) as u64);
        Ok(WorkflowRow {
            id: record.decode("id")?,
            name: record.decode("name")?,
            unique_key: record.decode("unique_key")?,
            state: WorkflowState::read(&record.decode::<String>("state")?)?,
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

    fn from_record(record: Record) -> Result<WorkflowJobRow> {
        let state: String = record.decode("state")?;
        let names = record.decode::<Vec<String>>("prerequisites")?.into_iter();
        let fires_on: Vec<String> = record.decode("fires_on")?;
        let prerequisites = names.zip(&fires_on).map(|(name, fires_on)| {
            Ok(Prerequisite { name, fires_on: fires_on.parse().map_err(|_| unknown(fires_on))? })
        });
        Ok(WorkflowJobRow {
            name: record.decode("name")?,
            job: record.decode("job")?,
            state: WorkflowJobState::ALL
                .into_iter()
                .find(|known| known.name() == state)
                .ok_or_else(|| unknown(&state))?,
            queue: record.decode("queue")?,
            kind: record.decode("kind")?,
            failures: record.decode::<Option<u32>>("failures")?.unwrap_or_default(),
            ended_at: record.time("ended_at"),
            prerequisites: prerequisites.collect::<Result<_>>()?,
            record,
        })
    }
}

fn unknown(name: &str) -> Error {
    Error::unavailable(format!(
        "cannot read a workflow: the server answered {name:?}, which this version does not know"
    ))
}
