//! What was done, by whom, on what and when.

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{ActionFilter, ActionRow, ActionState};
use serde_json::Value;

use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{number, text, time};
use crate::guard::Refusal;
use crate::job_filter::{address, may_match_error, may_match_payload};
use crate::readings::Reading;
use crate::serve::{self, Page};
use crate::visit::{SOURCE, Visit};

/// The number of actions on a page.
const ACTIONS: u32 = 50;
/// The number of changes that the page of a job or a workflow lists.
pub const LATEST: u32 = 10;
/// The names of actions.
const ACTS: [&str; 21] = [
    "cancel",
    "retry",
    "revive",
    "purge",
    "run_again",
    "edit",
    "enqueue",
    "cancel_workflow",
    "retry_workflow",
    "pause",
    "resume",
    "set_queue",
    "remove_queue",
    "stop_worker",
    "set_slots",
    "schedule",
    "unschedule",
    "pause_schedule",
    "resume_schedule",
    "trigger_schedule",
    "prune",
];
/// What stands in place of an error that may not be shown.
const HIDDEN: &str = "(hidden)";

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let before = visit.param("before").and_then(|before| before.parse::<i64>().ok());
    let fields: Vec<_> = ["who", "what"].into_iter().filter_map(|name| Some((name, visit.name_in(name)?))).collect();
    let filter = filter(&visit, &fields);
    let name = format!("actions {filter:?} before {before:?}");
    let actions = visit.read(name, move |admin| async move { admin.actions_by(&filter, before, ACTIONS).await }).await;
    let body = html! {
        h1 { "Actions" }
        p.hint { "Changes by the dashboard and the command, kept for 90 days." }
        (form(&visit, &fields))
        (parts::reading(&actions, |actions| html! {
            @let seen = actions.iter().filter(|action| may_see(&visit, action)).collect::<Vec<_>>();
            @if !seen.is_empty() { (table(&visit, &seen)) }
            @else if fields.is_empty() { p.empty { "Nothing was done here." } }
            @else { p.empty { "No action passes the filter." } }
            div.bar {
                @if before.is_some() { a.act href=(visit.to(&address("actions", &fields, &[]))) { "Newest" } }
                @if let Some(last) = actions.last().filter(|_| actions.len() as u32 == ACTIONS) {
                    @let next = address("actions", &fields, &[("before", &last.id.to_string())]);
                    a.act href=(visit.to(&next)) { "Next" }
                }
            }
        }))
    };
    Ok(Page { title: "Actions".into(), section: Section::Actions, body })
}

/// Returns the filter that the address asks for. A visitor of some queues sees what they did themselves.
fn filter(visit: &Visit, fields: &[(&'static str, String)]) -> ActionFilter {
    let mut filter = ActionFilter::new();
    for (name, value) in fields {
        filter = if *name == "who" { filter.actor(value) } else { filter.action(value) };
    }
    match visit.viewer.queues {
        // Others may have done much since, which this visitor does not see.
        Some(_) => filter.actor(visit.actor()).source(SOURCE),
        None => filter,
    }
}

fn form(visit: &Visit, fields: &[(&'static str, String)]) -> Markup {
    let value = |name: &str| fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value.as_str());
    html! {
        form.fields method="get" action=(visit.to("actions")) data-keep {
            @if visit.viewer.queues.is_none() {
                label { "Who" input name="who" value=(value("who")) autocomplete="off" data-filter; }
            }
            label {
                "What"
                select name="what" {
                    option value="" { "any" }
                    @for name in ACTS { option value=(name) selected[value("what") == name] { (words(name)) } }
                }
            }
            button.main type="submit" { "Filter" }
            @if !fields.is_empty() { a.act href=(visit.to("actions")) { "Clear" } }
        }
    }
}

/// Draws the latest changes of one job or workflow that the visitor may see.
pub fn list(visit: &Visit, actions: &Reading<Vec<ActionRow>>) -> Markup {
    parts::reading(actions, |actions| {
        let seen: Vec<&ActionRow> = actions.iter().filter(|action| may_see(visit, action)).collect();
        html! {
            @if !seen.is_empty() {
                h2 { "Changes" }
                ul.findings {
                    @for action in seen {
                        li {
                            a href=(visit.to(&format!("actions/{}", action.id))) { (words(&action.action)) }
                            " by " (text::line(&action.actor)) " (" (text::line(&action.source)) ") "
                            (time::ago(action.started_at)) (state(action))
                        }
                    }
                }
            }
        }
    })
}

/// A visitor of some queues sees what they did themselves: an action names jobs of any queue.
pub fn may_see(visit: &Visit, action: &ActionRow) -> bool {
    visit.viewer.queues.is_none() || action.actor == visit.actor() && action.source == SOURCE
}

fn table(visit: &Visit, actions: &[&ActionRow]) -> Markup {
    let columns = [
        Column::Text("When"),
        Column::Text("Who"),
        Column::Text("What"),
        Column::Line("On what"),
        Column::Text("Result"),
    ];
    let rows = html! {
        @for action in actions {
            @let link = visit.to(&format!("actions/{}", action.id));
            tr data-href=(link) data-key=(action.id) {
                td { a href=(link) { (time::ago(action.started_at)) } }
                td { (text::line(&action.actor)) div.soft { (text::line(&action.source)) } }
                td { (words(&action.action)) }
                td.line { (target(visit, action)) }
                td { (state(action)) (progress(action)) }
            }
        }
    };
    parts::table("Actions", &columns, rows)
}

/// Writes the name of an action in words.
pub fn words(name: &str) -> String {
    text::line(name).replace('_', " ")
}

/// Draws what was changed: a job, a queue, a schedule, a worker, or the jobs that pass a filter.
pub fn target(visit: &Visit, action: &ActionRow) -> Markup {
    let text_of = |name: &str| action.target.get(name).and_then(|value| value.as_str());
    let id_of = |name: &str| action.target.get(name).and_then(Value::as_i64);
    html! {
        @if let Some(id) = id_of("job") { "job " (parts::job_link(visit, id)) }
        @else if let Some(filter) = action.target.get("filter") {
            "jobs " (text::brief(&of_filter(&without_hidden(visit, filter)), 240))
        }
        @else if text_of("kind").is_some() || text_of("key").is_some() {
            @for name in ["kind", "key"] {
                @if let Some(value) = text_of(name) { (name) " " (text::brief(value, 240)) " " }
            }
            @match text_of("queue") {
                Some(queue) => { "in queue " (parts::queue_link(visit, queue)) }
                None => "in all queues",
            }
        }
        @else if let Some(queue) = text_of("queue") { "queue " (parts::queue_link(visit, queue)) }
        @else if let Some(schedule) = text_of("schedule") { "schedule " (text::line(schedule)) }
        @else if let Some(worker) = id_of("worker") { "worker " (worker) }
        @else if let Some(workflow) = id_of("workflow") {
            "workflow " a.id href=(visit.to(&format!("workflows/{workflow}"))) { (workflow) }
        }
        @else { (text::brief(&without_hidden(visit, &action.target).to_string(), 240)) }
    }
}

/// Returns a record without what the visitor may not see.
///
/// Who can guess a payload could check the guess by its hash. And with an application's redaction, errors may be shown
/// in part only, but a filter by an error is recorded as it is.
pub fn without_hidden(visit: &Visit, record: &Value) -> Value {
    fn strip(value: &mut Value, hides_hashes: bool, hides_errors: bool) {
        let Value::Object(members) = value else { return };
        if hides_hashes {
            members.remove("sha256");
        }
        for (name, member) in members {
            match name.as_str() {
                "error" | "error_line" if hides_errors => *member = HIDDEN.into(),
                _ => strip(member, hides_hashes, hides_errors),
            }
        }
    }
    let mut record = record.clone();
    strip(&mut record, !may_match_payload(visit), !may_match_error(visit));
    record
}

/// Writes the conditions of a filter: `state dead, queue mail`.
fn of_filter(filter: &Value) -> String {
    let conditions = filter.as_object().into_iter().flatten().map(|(name, value)| match value.as_str() {
        Some(text) => format!("{} {text}", name.replace('_', " ")),
        None => format!("{} {value}", name.replace('_', " ")),
    });
    match conditions.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "of all queues".to_owned(),
        some => format!("with {some}"),
    }
}

/// Draws how an action ended. A change that met a job in another state has changed nothing.
pub fn state(action: &ActionRow) -> Markup {
    let of_workflow = action.action == "cancel_workflow";
    let why_not = match action.detail.get("answer").and_then(Value::as_str) {
        Some("completed" | "failed" | "cancelled") if of_workflow => Some("it had ended"),
        Some("compensated") => Some("a job was started that waited for its death"),
        Some("blocked") => Some("it waited for other jobs"),
        Some("finished") => Some("it had finished"),
        Some("dead") => Some("it was dead"),
        Some("running") => Some("it was running"),
        Some("unknown") => Some("it was gone"),
        _ => None,
    };
    if let Some(why_not) = why_not {
        return html! { (parts::badge("no change", "warn")) span.soft { " " (why_not) } };
    }
    let class = match action.state {
        ActionState::Done => "good",
        ActionState::Running => "run",
        ActionState::Failed => "bad",
        _ => "warn",
    };
    parts::badge(action.state.name(), class)
}

/// Draws how far a change of many jobs has come.
pub fn progress(action: &ActionRow) -> Markup {
    let Some(done) = action.done else { return html! {} };
    html! {
        div.soft {
            (number::count(done)) @if let Some(matching) = action.matching { " of " (number::count(matching)) }
            @if let Some(passed_over) = action.passed_over.filter(|number| *number > 0) {
                ", " (number::count(passed_over)) " changed meanwhile"
            }
            @if let Some(refused) = action.refused.filter(|number| *number > 0) {
                ", " (number::count(refused)) " refused"
            }
            @if let Some(left_over) = action.left_over.filter(|number| *number > 0) {
                ", " (number::count(left_over))
                @if action.action == "edit" { " stay unchanged: their payloads are encrypted" }
                @else { " stay dead: live jobs hold their unique keys" }
            }
        }
    }
}
