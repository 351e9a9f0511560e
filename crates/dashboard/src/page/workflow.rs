//! One workflow: its state, its jobs as a drawing and as a table, its input and its result.

use std::collections::BTreeMap;

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{Admin, WorkflowJobRow, WorkflowJobState, WorkflowRow, WorkflowState};
use reveille::job::Payload;

use super::{Id, actions, values, workflows};
use crate::access::Right;
use crate::dashboard::Field;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{graph, number, text, time};
use crate::encrypted;
use crate::guard::Refusal;
use crate::redact;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The largest number of jobs that are drawn.
const MOST_DRAWN: u32 = 200;
/// The number of jobs on a page of the table.
const JOBS: u32 = 50;
/// The number of bytes of the page that the input and the result may take each.
const MOST_JSON: usize = 8 * 1024;
/// The largest result in the table in bytes, and the number of bytes of the page that it may take.
const LARGEST_RESULT: u32 = 2000;
const MOST_RESULT: usize = 160;
/// The number of prerequisites that a row of the table names, and the number of bytes that each may take.
const MOST_NAMED: usize = 3;
const MOST_NAME: usize = 128;
/// The number of prerequisites of a job that the database returns at most.
const MOST_PREREQUISITES: usize = 100;

/// The results of jobs, by their ids; `None` in place of a large one.
type Results = BTreeMap<i64, Option<Payload>>;

pub async fn show((Id(id), visit): (Id, Visit)) -> Result<Response, Refusal> {
    serve::page(visit, move |visit| draw(id, visit)).await
}

/// Reads a workflow that the visitor may see.
pub async fn find(visit: &Visit, id: i64) -> Result<WorkflowRow, Refusal> {
    workflows::must_see(visit)?;
    let workflow = visit.read(format!("workflow {id}"), move |admin| async move { admin.workflow(id).await }).await;
    match workflow.value() {
        Ok(Some(workflow)) => Ok(workflow.clone()),
        Ok(None) => {
            Err(Refusal::not_found(format!("There is no workflow {id}. A workflow is kept for 30 days after its end.")))
        }
        Err(problem) => Err(Refusal::unavailable(problem)),
    }
}

async fn draw(id: i64, visit: Visit) -> Result<Page, Refusal> {
    let workflow = find(&visit, id).await?;
    let read = move |admin: Admin| async move { admin.actions_on_workflow(id, actions::LATEST).await };
    let changes = visit.read(format!("actions on workflow {id}"), read).await;
    let body = html! {
        div.bar {
            h1 {
                (text::brief(&workflow.name, MOST_NAME * 4)) " " span.soft { (id) }
                (workflows::state(workflow.state))
            }
            (buttons(&visit, &workflow))
        }
        (advice(&workflow))
        (facts(&visit, &workflow))
        (figures(&workflow))
        (jobs(&visit, &workflow).await)
        (both_values(&visit, &workflow).await)
        (actions::list(&visit, &changes))
    };
    Ok(Page { title: format!("Workflow {id}"), section: Section::Workflows, body })
}

fn buttons(visit: &Visit, workflow: &WorkflowRow) -> Markup {
    let path = |act: &str| format!("workflows/{}/{act}", workflow.id);
    let is_open = matches!(workflow.state, WorkflowState::Running | WorkflowState::Stalled);
    html! {
        @if workflow.dead > 0 && visit.may(Right::Revive) {
            (parts::button(visit, &path("retry"), "Revive dead jobs", "r", &[]))
        }
        @if is_open && visit.may(Right::Cancel) {
            @let question = "Its waiting jobs are cancelled, and the handlers of its running jobs are asked to stop. \
                Jobs that wait for any end of others, or for a cancellation, still run.";
            @let button = parts::strong_button(visit, &path("cancel"), "Cancel the workflow", "danger", &[]);
            (parts::confirmed("Cancel", question, button))
        }
    }
}

/// Says what keeps a workflow from going on.
fn advice(workflow: &WorkflowRow) -> Markup {
    html! {
        @if workflow.state == WorkflowState::Stalled {
            p.problem {
                "The workflow is stalled: dead jobs hold up all jobs that are left. Revive the dead jobs, or cancel \
                 the workflow."
            }
        }
        @if workflow.state == WorkflowState::Cancelling { p.hint { "Workers are cancelling its jobs." } }
        @if !workflow.sealed && workflow.finished_at.is_none() {
            p.hint { "The workflow is not sealed: jobs that wait for others start once all jobs are added." }
        }
    }
}

fn facts(visit: &Visit, workflow: &WorkflowRow) -> Markup {
    let same_name = visit.to(&format!("workflows?name={}", text::in_query(&workflow.name)));
    html! {
        dl.facts {
            @if let Some(key) = &workflow.unique_key { dt { "Unique key" } dd { (text::line(key)) } }
            dt { "Enqueued" } dd { (time::ago(workflow.created_at)) }
            @if workflow.finished_at.is_some() {
                dt { "Ended" } dd { (time::ago(workflow.finished_at)) (took(workflow)) }
            }
            @if let Some(parent) = workflow.parent_id {
                dt { "Enqueued by job" } dd { (parts::job_link(visit, parent)) }
            }
            @if let Some(schedule) = workflow.schedule_id {
                dt { "Schedule" } dd { a href=(visit.to("schedules")) { (schedule) } }
            }
            dt { "Others" } dd { a href=(same_name) { "Workflows of this name" } }
        }
    }
}

fn took(workflow: &WorkflowRow) -> Markup {
    let times = workflow.created_at.zip(workflow.finished_at);
    let took = times.and_then(|(created_at, finished_at)| finished_at.duration_since(created_at).ok());
    html! { @if let Some(took) = took { ", after " (number::duration(took)) } }
}

fn figures(workflow: &WorkflowRow) -> Markup {
    let figures = [
        ("Live", workflow.live, "run"),
        ("Blocked", workflow.blocked, ""),
        ("Completed", workflow.completed, ""),
        ("Dead", workflow.dead, "bad"),
        ("Cancelled", workflow.cancelled, "warn"),
        ("Skipped", workflow.skipped, ""),
    ];
    html! {
        dl.figures {
            (parts::figure("Jobs", &number::count(workflow.jobs), None, ""))
            @for (name, count, class) in figures {
                (parts::figure(name, &number::count(count), None, if count > 0 { class } else { "" }))
            }
        }
    }
}

/// Draws the jobs: a small workflow as a drawing and a table in layers, a large one as a table by name.
async fn jobs(visit: &Visit, workflow: &WorkflowRow) -> Markup {
    match workflow.jobs <= u64::from(MOST_DRAWN) {
        true => all_jobs(visit, workflow).await,
        false => some_jobs(visit, workflow).await,
    }
}

async fn all_jobs(visit: &Visit, workflow: &WorkflowRow) -> Markup {
    let id = workflow.id;
    let read = move |admin: Admin| async move { admin.workflow_jobs(id, "", MOST_DRAWN).await };
    let jobs = visit.read(format!("jobs of workflow {id}"), read).await;
    let jobs = match jobs.value() {
        Ok(jobs) => jobs,
        Err(problem) => return parts::problem(problem),
    };
    let mut layered: Vec<_> = WorkflowJobRow::layers(jobs).into_iter().zip(jobs).collect();
    layered.sort_by_key(|(layer, job)| (*layer, job.job));
    let layered: Vec<WorkflowJobRow> = layered.into_iter().map(|(_, job)| job.clone()).collect();
    let pages = layered.chunks(JOBS as usize).collect::<Vec<_>>();
    let wanted = visit.param("page").and_then(|page| page.parse::<usize>().ok()).unwrap_or(1);
    let page = wanted.clamp(1, pages.len().max(1));
    let shown = pages.get(page - 1).copied().unwrap_or_default();
    let link = |job: i64| visit.to(&format!("jobs/{job}"));
    let to = |page: usize| visit.to(&format!("workflows/{id}?page={page}"));
    html! {
        @match graph::graph("Jobs, and what they wait for", &layered, link) {
            Some(graph) => (graph),
            None => p.hint { "There is no drawing: these jobs have more than 500 dependencies, or too many layers." }
        }
        (table(visit, workflow, shown).await)
        @if pages.len() > 1 {
            div.bar {
                span.hint { "Page " (page) " of " (pages.len()) ": jobs after those that they wait for." }
                @if page > 1 { a.act href=(to(page - 1)) { "Previous" } }
                @if page < pages.len() { a.act href=(to(page + 1)) { "Next" } }
            }
        }
    }
}

async fn some_jobs(visit: &Visit, workflow: &WorkflowRow) -> Markup {
    let (id, after) = (workflow.id, visit.name_in("after").unwrap_or_default());
    let from = after.clone();
    let read = move |admin: Admin| async move { admin.workflow_jobs(id, &from, JOBS).await };
    let jobs = visit.read(format!("jobs of workflow {id} after {after}"), read).await;
    let jobs = match jobs.value() {
        Ok(jobs) => jobs,
        Err(problem) => return parts::problem(problem),
    };
    let next = jobs.last().filter(|_| jobs.len() as u32 == JOBS);
    let next = next.map(|last| visit.to(&format!("workflows/{id}?after={}", text::in_query(&last.name))));
    html! {
        (table(visit, workflow, jobs).await)
        div.bar {
            span.hint { "Jobs in the order of their names. Up to " (MOST_DRAWN) " jobs would be drawn." }
            @if !after.is_empty() { a.act href=(visit.to(&format!("workflows/{id}"))) { "First" } }
            @match next {
                Some(next) => a.act href=(next) { "Next" },
                None => span.hint { "The list ends here." },
            }
        }
    }
}

async fn table(visit: &Visit, workflow: &WorkflowRow, jobs: &[WorkflowJobRow]) -> Markup {
    let results = match visit.may(Right::SeePayloads) {
        true => {
            let ids: Vec<i64> = jobs.iter().filter(|job| job.ended_at.is_some()).map(|job| job.job).collect();
            let read = |admin: Admin| async move { admin.workflow_results(&ids, LARGEST_RESULT).await };
            let name = format!("results of workflow {} {:?}", workflow.id, jobs.first().map(|job| job.job));
            visit.read(format!("{name} {}", ended(jobs)), read).await.value().cloned().unwrap_or_default()
        }
        false => Results::new(),
    };
    let columns = [
        Column::Text("Job"),
        Column::Text("State"),
        Column::Line("Waits for"),
        Column::Line("Result"),
        Column::Text("Ended"),
    ];
    let rows = html! { @for job in jobs { (row(visit, workflow, job, &results)) } };
    html! {
        @if jobs.is_empty() { p.empty { "The workflow has no job here." } }
        @else { (parts::table("Jobs of the workflow", &columns, rows)) }
    }
}

/// Names the jobs of which results are read.
fn ended(jobs: &[WorkflowJobRow]) -> String {
    jobs.iter().filter(|job| job.ended_at.is_some()).map(|job| format!("{},", job.job)).collect()
}

fn row(visit: &Visit, workflow: &WorkflowRow, job: &WorkflowJobRow, results: &Results) -> Markup {
    let link = visit.to(&format!("jobs/{}", job.job));
    html! {
        tr data-href=(link) data-key=(job.job) {
            th.long scope="row" {
                a href=(link) { (text::brief(&job.name, MOST_NAME)) } " "
                span.soft.id { (job.job) }
            }
            td {
                (state(job.state))
                @if job.failures > 0 { span.soft { " " (job.failures) " failed" } }
            }
            td.line { (waits_for(job)) }
            td.line { (result(visit, workflow, results.get(&job.job))) }
            td { @if job.ended_at.is_some() { (time::ago(job.ended_at)) } }
        }
    }
}

/// Draws the names of the jobs that a job waits for or has waited for, and the outcomes that let it start.
fn waits_for(job: &WorkflowJobRow) -> Markup {
    let others = job.prerequisites.len().saturating_sub(MOST_NAMED);
    html! {
        @for (place, other) in job.prerequisites.iter().take(MOST_NAMED).enumerate() {
            @if place > 0 { ", " }
            (text::brief(&other.name, MOST_NAME)) span.soft { " " (graph::after(other.fires_on)) }
        }
        @if others > 0 {
            span.soft { " and " (others) @if job.prerequisites.len() >= MOST_PREREQUISITES { " or more" } " others" }
        }
    }
}

fn result(visit: &Visit, workflow: &WorkflowRow, result: Option<&Option<Payload>>) -> Markup {
    html! {
        @match result {
            Some(Some(result)) => {
                @match redact::of_workflow(visit, workflow, Field::Result, result) {
                    Some(shown) => code { (text::brief(&encrypted::in_words(shown.text), MOST_RESULT)) },
                    None => span.soft { "redacted" },
                }
            }
            Some(None) => span.soft { "over " (number::count(LARGEST_RESULT)) " bytes" },
            None => {}
        }
    }
}

/// Draws the state of a job of a workflow.
pub fn state(state: WorkflowJobState) -> Markup {
    let class = match state {
        WorkflowJobState::Completed => "good",
        WorkflowJobState::Dead => "bad",
        WorkflowJobState::Running => "run",
        WorkflowJobState::Cancelled => "warn",
        _ => "",
    };
    parts::badge(state.name(), class)
}

async fn both_values(visit: &Visit, workflow: &WorkflowRow) -> Markup {
    if !visit.may(Right::SeePayloads) {
        return html! { h2 { "Input" } p.hint { "You may not see payloads." } };
    }
    let id = workflow.id;
    let read = move |admin: Admin| async move { admin.workflow_values(id).await };
    let both = visit.read(format!("values of workflow {id}"), read).await;
    parts::reading(&both, |both| {
        let Some(both) = both else { return html! {} };
        let values = [("Input", Field::Input, Some(&both.input)), ("Result", Field::Result, both.result.as_ref())];
        html! {
            @for (title, field, value) in values {
                @match value.map(|value| redact::of_workflow(visit, workflow, field, value)) {
                    Some(Some(shown)) => (values::block(title, &shown, MOST_JSON, None)),
                    Some(None) => {
                        h2 { (title) (parts::badge("redacted", "")) }
                        p.hint { "The application redacts jobs, and does not say what of a workflow may be shown." }
                    }
                    None => {}
                }
            }
        }
    })
}
