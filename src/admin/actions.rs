//! Reading the record of what operators did, and stopping a run over many jobs.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokio_postgres::types::Type;

use super::{Admin, Record, as_bytes, records};
use crate::database::Param;
use crate::error::{Error, Result};

/// The state of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActionState {
    /// A run goes on.
    Running,
    /// A single change was made, or a run came to its end.
    Done,
    /// A run was stopped before its end.
    Stopped,
    /// An error ended a run.
    Failed,
    /// A run has not ended and has given no sign of life for 30 seconds: its process has ended, or cannot reach the
    /// database. In the latter case it may go on.
    Interrupted,
}

/// Chooses actions: an action passes if it meets all conditions. A new filter has no condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct ActionFilter {
    actor: Option<String>,
    source: Option<String>,
    action: Option<String>,
}

/// A row of the view `action_status`: a change by a named actor, or a run over many jobs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ActionRow {
    /// The id. Later actions have higher ids.
    pub id: i64,
    /// The time of the change, or the time at which the run began.
    pub started_at: Option<SystemTime>,
    /// The person or program that acted.
    pub actor: String,
    /// The way by which the actor acted, such as `command`.
    pub source: String,
    /// The action's name, such as `cancel`.
    pub action: String,
    /// The thing that was acted on, such as `{"job": 7}`.
    pub target: Value,
    /// The answer, and the changed settings with their old and new values.
    pub detail: Value,
    /// The state.
    pub state: ActionState,
    /// Of a run, the number of jobs that passed the filter when they were counted.
    pub matching: Option<u64>,
    /// Of a run, the number of changed jobs; `None` for a single change.
    pub done: Option<u64>,
    /// Of a run, the number of running jobs among these, whose handlers were asked to stop.
    pub requested: Option<u64>,
    /// Of a run, the number of jobs that changed meanwhile or are locked by another session.
    pub passed_over: Option<u64>,
    /// Of a run, the number of jobs that stay dead because live jobs hold their unique keys, or that an edit leaves
    /// because their payloads are encrypted, and the new one is not.
    pub left_over: Option<u64>,
    /// Of a run, the number of jobs that the server refused to change.
    pub refused: Option<u64>,
    /// Of a run, the highest id at its start.
    pub highest_id: Option<i64>,
    /// The time at which somebody asked the run to stop.
    pub stop_requested_at: Option<SystemTime>,
    /// The end.
    pub ended_at: Option<SystemTime>,
    /// The error that ended a run.
    pub error: Option<String>,
    record: Record,
}

impl ActionRow {
    /// All columns of the view.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// True if the action is a run over many jobs, and no single change.
    pub fn is_run(&self) -> bool {
        self.done.is_some()
    }

    fn from_record(record: Record) -> Result<ActionRow> {
        let state: String = record.decode("state")?;
        Ok(ActionRow {
            id: record.decode("id")?,
            started_at: record.time("started_at"),
            actor: record.decode("actor")?,
            source: record.decode("source")?,
            action: record.decode("action")?,
            target: record.decode("target")?,
            detail: record.decode("detail")?,
            state: ActionState::ALL.into_iter().find(|known| known.name() == state).ok_or_else(|| {
                Error::unavailable(format!("cannot read an action: its state {state:?} is unknown to this version"))
            })?,
            matching: record.decode("matching")?,
            done: record.decode("done")?,
            requested: record.decode("requested")?,
            passed_over: record.decode("passed_over")?,
            left_over: record.decode("left_over")?,
            refused: record.decode("refused")?,
            highest_id: record.decode("highest_id")?,
            stop_requested_at: record.time("stop_requested_at"),
            ended_at: record.time("ended_at"),
            error: record.decode("error")?,
            record,
        })
    }
}

impl ActionState {
    /// All states.
    pub const ALL: [ActionState; 5] =
        [ActionState::Running, ActionState::Done, ActionState::Stopped, ActionState::Failed, ActionState::Interrupted];

    /// The state's name in the view: running, done, stopped, failed or interrupted.
    pub fn name(self) -> &'static str {
        match self {
            ActionState::Running => "running",
            ActionState::Done => "done",
            ActionState::Stopped => "stopped",
            ActionState::Failed => "failed",
            ActionState::Interrupted => "interrupted",
        }
    }
}

impl Admin {
    /// Lists at most `limit` actions of the last 90 days, newest first. With `before`, lists only actions with lower
    /// ids, for the next page.
    ///
    /// # Errors
    /// The server's error.
    pub async fn actions(&self, before: Option<i64>, limit: u32) -> Result<Vec<ActionRow>> {
        self.actions_by(&ActionFilter::new(), before, limit).await
    }

    /// Lists actions as [`Admin::actions`] does, but only those that pass the filter. The server reads all of the later
    /// actions to find them.
    ///
    /// # Errors
    /// The server's error.
    pub async fn actions_by(&self, filter: &ActionFilter, before: Option<i64>, limit: u32) -> Result<Vec<ActionRow>> {
        let sql = as_bytes!(
            "select to_jsonb(v) as record from reveille.action_status as v
            where ($1::bigint is null or id < $1) and ($3::text is null or actor = $3)
                and ($4::text is null or source = $4) and ($5::text is null or action = $5)
            order by id desc limit $2"
        );
        let limit = i64::from(limit);
        let params: [Param<'_>; 5] = [
            (&before, Type::INT8),
            (&limit, Type::INT8),
            (&filter.actor, Type::TEXT),
            (&filter.source, Type::TEXT),
            (&filter.action, Type::TEXT),
        ];
        let rows = self.read("list actions", sql, &params).await?;
        records(&rows)?.into_iter().map(ActionRow::from_record).collect()
    }

    /// Lists the latest changes of one job alone, newest first. Runs over many jobs are not among them.
    ///
    /// # Errors
    /// The server's error.
    pub async fn actions_on_job(&self, id: i64, limit: u32) -> Result<Vec<ActionRow>> {
        self.actions_on(json!({"job": id}), limit).await
    }

    /// Lists the latest changes of one workflow, newest first.
    ///
    /// # Errors
    /// The server's error.
    pub async fn actions_on_workflow(&self, id: i64, limit: u32) -> Result<Vec<ActionRow>> {
        self.actions_on(json!({"workflow": id}), limit).await
    }

    async fn actions_on(&self, target: Value, limit: u32) -> Result<Vec<ActionRow>> {
        let sql = as_bytes!(include_str!("../../sql/actions_on.sql"));
        let limit = i64::from(limit);
        let rows = self.read("list actions", sql, &[(&target, Type::JSONB), (&limit, Type::INT8)]).await?;
        records(&rows)?.into_iter().map(ActionRow::from_record).collect()
    }

    /// Returns the action that was recorded for a request, which [`Admin::once`] has named.
    ///
    /// # Errors
    /// Denied if the role may not read `reveille.actions`; else the server's error.
    pub async fn action_of_request(&self, request: &str) -> Result<Option<ActionRow>> {
        let sql = as_bytes!(
            "select to_jsonb(v) as record from reveille.action_status as v
            where id = (select id from reveille.actions where request = $1)"
        );
        let rows = self.query("read an action", sql, &[(&request, Type::TEXT)]).await?;
        records(&rows)?.pop().map(ActionRow::from_record).transpose()
    }

    /// Returns one action; `None` if no action has this id, or if its record has been deleted after 90 days.
    ///
    /// # Errors
    /// The server's error.
    pub async fn action(&self, id: i64) -> Result<Option<ActionRow>> {
        let sql = as_bytes!("select to_jsonb(v) as record from reveille.action_status as v where id = $1");
        let rows = self.read("read an action", sql, &[(&id, Type::INT8)]).await?;
        records(&rows)?.pop().map(ActionRow::from_record).transpose()
    }

    /// Asks a run over many jobs to stop, whatever process it is in. The run changes no further job after the
    /// transaction under way, of up to 1,000 jobs.
    ///
    /// Returns false if no run has this id, or if the run has ended. The run's detail names the actor of this
    /// administrator as `stopped_by`, if it has one.
    ///
    /// # Errors
    /// The server's error.
    pub async fn stop_action(&self, id: i64) -> Result<bool> {
        let what = "stop a run";
        let by = match &self.actor {
            Some(actor) => json!({"stopped_by": {"actor": actor.name, "source": actor.source}}),
            None => json!({}),
        };
        let params = &[(&id as _, Type::INT8), (&by as _, Type::JSONB)];
        let rows = self.query(what, include_str!("../../sql/stop_run.sql"), params).await;
        rows.map(|rows| !rows.is_empty()).map_err(|error| Admin::not_recorded(what, error))
    }
}

impl ActionFilter {
    /// Returns a filter that chooses all actions.
    pub fn new() -> ActionFilter {
        ActionFilter::default()
    }

    /// Chooses only actions by this person or program.
    pub fn actor(mut self, actor: impl Into<String>) -> ActionFilter {
        self.actor = Some(actor.into());
        self
    }

    /// Chooses only actions that came by this way, such as `dashboard`.
    pub fn source(mut self, source: impl Into<String>) -> ActionFilter {
        self.source = Some(source.into());
        self
    }

    /// Chooses only actions of this name, such as `cancel`.
    pub fn action(mut self, action: impl Into<String>) -> ActionFilter {
        self.action = Some(action.into());
        self
    }
}
