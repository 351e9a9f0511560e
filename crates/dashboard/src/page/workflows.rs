//! The list of workflows.

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{WorkflowFilter, WorkflowRow, WorkflowState};

use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{number, text, time};
use crate::guard::Refusal;
use crate::job_filter::address;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The number of workflows on a page.
const WORKFLOWS: u32 = 50;
/// The number of bytes of the page that a name and a unique key may take each.
const MOST_NAME: usize = 256;

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

/// A workflow may have jobs of any queue. So a visitor of some queues sees none of the workflows.
///
/// # Errors
/// A refusal, unless the visitor sees all queues.
pub fn must_see(visit: &Visit) -> Result<(), Refusal> {
    match visit.sees_section(Section::Workflows) {
        true => Ok(()),
        false => Err(Refusal::not_found("Workflows are shown to visitors of all queues.")),
    }
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    must_see(&visit)?;
    let fields: Vec<_> = ["state", "name"].into_iter().filter_map(|name| Some((name, visit.name_in(name)?))).collect();
    let listed = match filter(&visit) {
        Ok(filter) => list(&visit, &fields, filter).await,
        Err(problem) => parts::problem(&problem),
    };
    let body = html! {
        h1 { "Workflows" }
        (form(&visit, &fields))
        (listed)
    };
    Ok(Page { title: "Workflows".into(), section: Section::Workflows, body })
}

/// Reads the filter from the address of the page.
///
/// # Errors
/// What is wrong with a field, for the visitor.
fn filter(visit: &Visit) -> Result<WorkflowFilter, String> {
    let mut filter = WorkflowFilter::new();
    if let Some(name) = visit.name_in("name") {
        filter = filter.name(name);
    }
    if let Some(wanted) = visit.param("state") {
        let state = WorkflowState::ALL.into_iter().find(|state| state.name() == wanted);
        filter = filter.state(state.ok_or_else(|| format!("No workflow has the state {wanted:?}."))?);
    }
    if let Some(before) = visit.param("before") {
        let before = before.parse().map_err(|_| format!("{before:?} is no id of a workflow, which is a number."))?;
        filter = filter.before(before);
    }
    Ok(filter)
}

/// Draws the filter: states as links, and the name as a form.
fn form(visit: &Visit, fields: &[(&'static str, String)]) -> Markup {
    let value = |name: &str| fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value.as_str());
    let to = |state: &str| address("workflows", fields, &[("state", state)]);
    let all = ("All", to(""), value("state").is_empty());
    let names = WorkflowState::ALL.map(WorkflowState::name);
    let titles = names.map(capitalized);
    let states = names.iter().zip(&titles).map(|(name, title)| (title.as_str(), to(name), value("state") == *name));
    html! {
        (parts::tabs(visit, "States", &[all].into_iter().chain(states).collect::<Vec<_>>()))
        form.fields method="get" action=(visit.to("workflows")) data-keep {
            input type="hidden" name="state" value=(value("state"));
            label { "Name" input name="name" value=(value("name")) autocomplete="off" data-filter; }
            button.main type="submit" { "Filter" }
            @if !fields.is_empty() { a.act href=(visit.to("workflows")) { "Clear" } }
        }
    }
}

fn capitalized(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

async fn list(visit: &Visit, fields: &[(&'static str, String)], filter: WorkflowFilter) -> Markup {
    let name = format!("workflows {filter:?}");
    let page = visit.read(name, |admin| async move { admin.workflows(&filter, WORKFLOWS).await }).await;
    parts::reading(&page, |workflows| {
        let last = workflows.last().filter(|_| workflows.len() as u32 == WORKFLOWS);
        let next = last.map(|last| visit.to(&address("workflows", fields, &[("before", &last.id.to_string())])));
        html! {
            @if !workflows.is_empty() { (table(visit, workflows)) }
            @else if fields.is_empty() {
                p.empty { "There is no workflow. A workflow is listed until 30 days after its end." }
            }
            @else { p.empty { "No workflow passes the filter." } }
            div.bar {
                @if visit.param("before").is_some() {
                    a.act href=(visit.to(&address("workflows", fields, &[]))) { "Newest" }
                }
                @match next {
                    Some(next) => a.act href=(next) { "Next" },
                    None => span.hint { "The list ends here." },
                }
            }
        }
    })
}

fn table(visit: &Visit, workflows: &[WorkflowRow]) -> Markup {
    let columns = [
        Column::Text("Workflow"),
        Column::Text("Enqueued"),
        Column::Second("Ended"),
        Column::Number("Jobs"),
        Column::SecondNumber("Live"),
        Column::SecondNumber("Blocked"),
        Column::SecondNumber("Completed"),
        Column::Number("Dead"),
    ];
    let rows = html! {
        @for workflow in workflows {
            @let link = visit.to(&format!("workflows/{}", workflow.id));
            tr data-href=(link) data-key=(workflow.id) {
                th.long scope="row" {
                    a href=(link) { (text::brief(&workflow.name, MOST_NAME)) } " "
                    span.soft.id { (workflow.id) }
                    (state(workflow.state))
                    @if let Some(key) = &workflow.unique_key { div.sub { "key " (text::brief(key, MOST_NAME)) } }
                }
                td { (time::ago(workflow.created_at)) }
                td.second { @if workflow.finished_at.is_some() { (time::ago(workflow.finished_at)) } }
                td.n { (number::count(workflow.jobs)) }
                td.n.second { (parts::count(workflow.live)) }
                td.n.second { (parts::count(workflow.blocked)) }
                td.n.second { (parts::count(workflow.completed)) }
                td.n {
                    @if workflow.dead > 0 { span.bad { (number::count(workflow.dead)) } } @else { (parts::count(0)) }
                }
            }
        }
    };
    parts::table("Workflows", &columns, rows)
}

/// Draws the state of a workflow.
pub fn state(state: WorkflowState) -> Markup {
    let class = match state {
        WorkflowState::Running => "run",
        WorkflowState::Stalled | WorkflowState::Failed => "bad",
        WorkflowState::Completed => "good",
        _ => "warn",
    };
    parts::badge(state.name(), class)
}
