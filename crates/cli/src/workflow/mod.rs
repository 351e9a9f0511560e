//! `workflow`: listing, showing, cancelling and retrying workflows.

mod graph;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use reveille::admin::{Admin, Retried, WorkflowFilter, WorkflowJobRow, WorkflowRow, WorkflowState};
use serde_json::json;

use crate::connection::Connection;
use crate::jobs::{Answer, each};
use crate::{Failure, Outcome, output};

#[derive(Subcommand)]
pub enum WorkflowCommand {
    /// List workflows, newest first. A workflow is kept for 30 days after its end.
    List(ListWorkflows),
    /// Show a workflow, and its jobs with what they wait for.
    ///
    /// The jobs stand in layers: first those that wait for no other job. The marks of a job's state are:
    /// ✓ completed, ▶ running, ○ ready or delayed, · blocked, ✗ dead, – cancelled, ↷ skipped, … ended just now.
    /// In a locale without UTF-8 these are + > o . x - ~ and =.
    Show(ShowWorkflow),
    /// Cancel workflows: their jobs are cancelled, and the handlers of running jobs are asked to stop.
    ///
    /// Jobs that wait for any end of others, or for a cancellation, still run.
    Cancel(CancelWorkflows),
    /// Revive the dead jobs of a workflow, so that it goes on.
    Retry(RetryWorkflow),
}

#[derive(Args)]
pub struct ListWorkflows {
    /// Only workflows with this name.
    #[arg(long)]
    name: Option<String>,
    /// Only workflows in this state.
    #[arg(long, value_parser = states())]
    state: Option<WorkflowState>,
    /// List at most this many workflows, newest first.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Only workflows with lower ids than this one, for the next page.
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct ShowWorkflow {
    /// The id of the workflow.
    id: i64,
    /// Show at most this many jobs.
    #[arg(long, default_value_t = 200, value_name = "N")]
    limit: u32,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct CancelWorkflows {
    /// The ids of the workflows.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct RetryWorkflow {
    /// The id of the workflow.
    id: i64,
    /// Revive jobs even if jobs that waited for their deaths were started, such as a refund.
    #[arg(long)]
    force: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

fn states() -> impl TypedValueParser<Value = WorkflowState> {
    PossibleValuesParser::new(WorkflowState::ALL.map(WorkflowState::name)).try_map(|name| {
        let state = WorkflowState::ALL.into_iter().find(|state| state.name() == name);
        state.ok_or_else(|| format!("unknown state {name:?}"))
    })
}

impl WorkflowCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self {
            WorkflowCommand::List(list) => list.run(connection).await,
            WorkflowCommand::Show(show) => show.run(connection).await,
            WorkflowCommand::Cancel(cancel) => cancel.run(connection).await,
            WorkflowCommand::Retry(retry) => retry.run(connection).await,
        }
    }
}

impl ListWorkflows {
    async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 11] = [
            "id",
            "name",
            "state",
            "jobs",
            "live",
            "blocked",
            "completed",
            "dead",
            "cancelled",
            "skipped",
            "created_at",
        ];
        let mut filter = WorkflowFilter::new();
        filter = self.name.into_iter().fold(filter, WorkflowFilter::name);
        filter = self.state.into_iter().fold(filter, WorkflowFilter::state);
        filter = self.before.into_iter().fold(filter, WorkflowFilter::before);
        let workflows = connection.database().await?.admin().workflows(&filter, self.limit).await?;
        Ok(output::print(workflows.iter().map(WorkflowRow::record), &COLUMNS, self.json)?)
    }
}

impl ShowWorkflow {
    async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
        let Some(workflow) = admin.workflow(self.id).await? else { return Err(not_found(self.id)) };
        let jobs = read_jobs(&admin, self.id, self.limit.max(graph::MOST_READ)).await?;
        let shown = graph::layered(&jobs, self.limit as usize);
        if self.json {
            return Ok(output::print_with_list(workflow.record(), "job_list", shown.iter().map(|job| job.record()))?);
        }
        output::line(graph::summary(&workflow))?;
        graph::lines(&shown, graph::Marks::of_environment()).into_iter().try_for_each(output::line)?;
        let left = workflow.jobs.saturating_sub(shown.len() as u64);
        if left > 0 {
            output::line(format_args!("and {} more", graph::grouped(left)))?;
        }
        Ok(())
    }
}

/// Reads up to this many jobs of a workflow.
async fn read_jobs(admin: &Admin, id: i64, most: u32) -> reveille::Result<Vec<WorkflowJobRow>> {
    const PAGE: u32 = 500;
    let mut jobs: Vec<WorkflowJobRow> = Vec::new();
    while jobs.len() < most as usize {
        let after = jobs.last().map_or("", |job| &job.name);
        let page = admin.workflow_jobs(id, after, PAGE.min(most - jobs.len() as u32)).await?;
        if page.is_empty() {
            break;
        }
        jobs.extend(page);
    }
    Ok(jobs)
}

impl CancelWorkflows {
    async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.operator().await?;
        let cancel = async |id| {
            let state = admin.cancel_workflow(id).await?;
            Ok(Answer::new(state.map_or("unknown", WorkflowState::name), state == Some(WorkflowState::Cancelling)))
        };
        each(&self.ids, self.json, cancel).await
    }
}

impl RetryWorkflow {
    async fn run(self, connection: &Connection) -> Outcome {
        let retried = connection.operator().await?.retry_workflow(self.id, self.force).await?;
        let Some(jobs) = retried else { return Err(not_found(self.id)) };
        if jobs.is_empty() {
            say!("workflow {} has no dead job", self.id);
            return Err(Failure::NotFound);
        }
        let mut all_good = true;
        for job in &jobs {
            all_good &= job.retried == Some(Retried::Revived);
            let answer = job.retried.map_or("taken", Retried::name);
            let object = json!({"workflow": self.id, "name": job.name, "job": job.job, "answer": answer});
            output::answer(self.json, object, format_args!("{} {} {answer}", job.job, job.name))?;
        }
        let said = |answer| jobs.iter().any(|job| job.retried == answer);
        if said(Some(Retried::Compensated)) {
            say!("compensated: a job that waited for the death was started; --force revives the dead job all the same");
        }
        if said(None) {
            say!("taken: a live job has the id or the unique key of the dead job; retry once it has ended");
        }
        if all_good { Ok(()) } else { Err(Failure::NotFound) }
    }
}

fn not_found(id: i64) -> Failure {
    say!(
        "no workflow {id}: no workflow had this id, or it ended over 30 days ago; `reveille workflow list` lists them"
    );
    Failure::NotFound
}
