//! Administering workflows.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;
use tokio_postgres::types::Type;

use super::workflow_row::{WorkflowJobRow, WorkflowRow, read_state};
use super::{Admin, Record, as_bytes, records};
use crate::error::Result;
use crate::job::{Payload, Retried, RetriedJob, WorkflowState};

/// Chooses workflows: a workflow passes if it meets all conditions. A new filter has no condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct WorkflowFilter {
    name: Option<String>,
    state: Option<WorkflowState>,
    before: Option<i64>,
}

/// The input and the result of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkflowValues {
    /// The input, for all jobs of the workflow.
    pub input: Payload,
    /// The result of the one completed job that no other job waits for.
    pub result: Option<Payload>,
}

impl Admin {
    /// Lists at most `limit` workflows that pass the filter, newest first. A workflow is kept for 30 days after its
    /// end.
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

    /// Counts the workflows in each of these states, up to `most` a state.
    ///
    /// # Errors
    /// The server's error.
    pub async fn count_workflows(&self, states: &[WorkflowState], most: u32) -> Result<HashMap<WorkflowState, u64>> {
        let sql = as_bytes!(include_str!("../../sql/count_workflows.sql"));
        let (names, most) = (states.iter().map(|state| state.name()).collect::<Vec<_>>(), i64::from(most));
        let rows = self.read("count workflows", sql, &[(&names, Type::TEXT_ARRAY), (&most, Type::INT8)]).await?;
        let counted = |row: &Record| Ok((read_state(&row.decode::<String>("state")?)?, row.decode("workflows")?));
        records(&rows)?.iter().map(counted).collect()
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

    /// Returns the input and the result of a workflow; `None` as in [`Admin::workflow`]. A role that may read only the
    /// views cannot call this.
    ///
    /// # Errors
    /// The server's error.
    pub async fn workflow_values(&self, id: i64) -> Result<Option<WorkflowValues>> {
        let sql = as_bytes!(
            "select jsonb_build_object('input', input, 'result', result) as record
            from reveille.workflows where id = $1"
        );
        let rows = self.read("read the values of a workflow", sql, &[(&id, Type::INT8)]).await?;
        let values = |row: Record| WorkflowValues {
            input: Payload::from_stored(row.get("input").unwrap_or("null")),
            result: row.get("result").filter(|json| *json != "null").map(Payload::from_stored),
        };
        Ok(records(&rows)?.pop().map(values))
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

    /// Returns the results of jobs of workflows, by the ids of the jobs. In place of a result of more than `most` bytes
    /// of JSON text, this has `None`. A job without a result is left out. A role that may read only the views cannot
    /// call this.
    ///
    /// # Errors
    /// The server's error.
    pub async fn workflow_results(&self, jobs: &[i64], most: u32) -> Result<BTreeMap<i64, Option<Payload>>> {
        let sql = as_bytes!(include_str!("../../sql/workflow_results.sql"));
        let most = i64::from(most);
        let params = [(&jobs as _, Type::INT8_ARRAY), (&most as _, Type::INT8)];
        let rows = records(&self.read("read results of a workflow", sql, &params).await?)?;
        let result = |row: &Record| row.get("result").filter(|json| *json != "null").map(Payload::from_stored);
        rows.iter().map(|row| Ok((row.decode("job")?, result(row)))).collect()
    }

    /// Cancels a workflow: no job of it starts any more, and workers cancel its jobs. Jobs that wait for any end or for
    /// a cancellation alone still run.
    ///
    /// Returns the state of the workflow: [`Cancelling`](WorkflowState::Cancelling), or the state in which it has
    /// ended;
    /// `None` if no workflow has this id.
    ///
    /// # Errors
    /// The server's error.
    pub async fn cancel_workflow(&self, id: i64) -> Result<Option<WorkflowState>> {
        let mut change = self.change("cancel a workflow");
        let row = change.row("select reveille.cancel_workflow($1) as answer", &[(&id, Type::INT8)]).await?;
        let answer: String = row.get("answer");
        let state = (answer != "unknown").then(|| read_state(&answer)).transpose()?;
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
