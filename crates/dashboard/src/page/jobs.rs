//! The list of jobs that pass a filter.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use reveille::admin::{JobPage, JobRow, REASONS};
use reveille::job::JobState;

use crate::access::Right;
use crate::act::{bulk, pause};
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{text, time};
use crate::encrypted;
use crate::guard::Refusal;
use crate::job_filter::{self, FIELDS, JobFilter, address};
use crate::redact;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The number of jobs on a page.
const JOBS: u32 = 50;
/// The time after which a page ends early.
const WITHIN: Duration = Duration::from_millis(80);
/// The states above the list, with their names in a filter; empty: all live jobs.
const STATES: [(&str, &str); 11] = [
    ("", "Live"),
    ("ready", "Ready"),
    ("delayed", "Delayed"),
    ("parked", "Parked"),
    ("blocked", "Blocked"),
    ("running", "Running"),
    ("failing", "Retrying"),
    ("stuck", "Stuck"),
    ("dead", "Dead"),
    ("completed", "Completed"),
    ("cancelled", "Cancelled"),
];

/// The fields of the filter that stand behind "More conditions".
const LESS_USED: [&str; 7] = ["tag", "newer", "older", "error", "payload", "reason", "sort"];
/// The orders beside newest first, with what the form calls them.
const ORDERS: [(&str, &str); 3] = [("due", "due time"), ("created", "enqueued"), ("finished", "ended")];

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    if let Some(Ok(id)) = wanted_id(&visit) {
        return Ok((StatusCode::SEE_OTHER, [(LOCATION, visit.to(&format!("jobs/{id}")))]).into_response());
    }
    serve::page(visit, draw).await
}

/// Returns the id that the form asks for, if it asks for one.
///
/// # Errors
/// What is wrong with it, for the visitor.
fn wanted_id(visit: &Visit) -> Option<Result<i64, String>> {
    let id = visit.param("id").map(|id| id.trim().to_owned()).filter(|id| !id.is_empty())?;
    Some(id.parse().map_err(|_| format!("{id:?} is no id of a job. An id is a whole number, such as 12239.")))
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let filter = wanted_id(&visit).transpose().and_then(|_| JobFilter::of_visit(&visit));
    let body = match filter {
        Ok(filter) => html! {
            h1 { "Jobs" }
            (form(&visit, &filter.fields))
            @if filter.field("state") == Some("parked") {
                @match filter.field("queue") {
                    Some(queue) => (pause::of_queue(&visit, queue).await),
                    None => (pause::list(&visit, &[]).await),
                }
            }
            (list(&visit, &filter).await)
        },
        Err(problem) => {
            let fields = FIELDS.into_iter().filter_map(|name| Some((name, visit.param(name)?))).collect::<Vec<_>>();
            html! {
                h1 { "Jobs" }
                (form(&visit, &fields))
                (parts::problem(&problem))
            }
        }
    };
    Ok(Page { title: "Jobs".into(), section: Section::Jobs, body })
}

/// Draws the filter: states as links, everything else as a form that stands in the page's address when it is sent.
fn form(visit: &Visit, fields: &[(&'static str, String)]) -> Markup {
    let value = |name: &str| fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value.as_str());
    let input = |name: &str, label: &str, hint: &str| {
        html! { label { (label) input name=(name) value=(value(name)) placeholder=(hint) autocomplete="off"; } }
    };
    html! {
        div.tabs role="navigation" aria-label="States" {
            @for (state, title) in STATES {
                @let current = (state == value("state")).then_some("true");
                a href=(visit.to(&address("jobs", fields, &[("state", state)]))) aria-current=[current] { (title) }
            }
        }
        form.fields method="get" action=(visit.to("jobs")) data-keep {
            input type="hidden" name="state" value=(value("state"));
            label { "Id" input.short name="id" inputmode="numeric" autocomplete="off"; }
            label {
                "Queue"
                input name="queue" value=(value("queue")) autocomplete="off" data-filter;
            }
            (input("kind", "Kind", ""))
            (input("key", "Key", ""))
            button.main type="submit" { "Filter" }
            @if !fields.is_empty() { a.act href=(visit.to("jobs")) { "Clear" } }
            details.more open[LESS_USED.iter().any(|name| !value(name).is_empty())] {
                summary { "More conditions" }
                div.fields {
                    (input("tag", "Tags", "all of these"))
                    (input("newer", "Newer than", "2h"))
                    (input("older", "Older than", "7days"))
                    @if job_filter::may_match_error(visit) { (input("error", "Last error has", "")) }
                    @if job_filter::may_match_payload(visit) {
                        (input("payload", "Payload contains", "{\"user_id\": 7}"))
                    }
                    (choice("reason", "Reason", value("reason"), &REASONS.map(|reason| (reason.name(), reason.name()))))
                    (choice("sort", "Order", value("sort"), &ORDERS))
                }
            }
        }
    }
}

/// Draws a field with a choice of values, the first of which is no condition.
fn choice(name: &str, label: &str, chosen: &str, choices: &[(&str, &str)]) -> Markup {
    html! {
        label {
            (label)
            select name=(name) {
                option value="" { @if name == "sort" { "newest" } @else { "any" } }
                @for (value, text) in choices {
                    option value=(value) selected[chosen == *value] { (text.replace('_', " ")) }
                }
            }
        }
    }
}

async fn list(visit: &Visit, filter: &JobFilter) -> Markup {
    let place = filter.from.as_ref().map(ToString::to_string).unwrap_or_default();
    let (wanted, sort, from) = (filter.filter.clone(), filter.sort, filter.from.clone());
    let name = format!("{} from {place}", filter.address(&[]));
    let page =
        visit.read(name, |admin| async move { admin.page(&wanted, sort, JOBS, from.as_ref(), WITHIN).await }).await;
    parts::reading(&page, |page| {
        html! {
            (bulk::links(visit, filter))
            @if page.jobs.is_empty() { p.empty { (none_in(filter.field("state"))) } }
            @else { (table(visit, "Jobs", &page.jobs)) }
            (more(visit, filter, page))
        }
    })
}

/// Says that a list is empty, and where else to look.
fn none_in(state: Option<&str>) -> &'static str {
    match state {
        Some("failing") => {
            "No job waits for a retry. Failed jobs that ran again are in Completed, or in Dead if no attempt was left."
        }
        Some("stuck") => "No job ignores a request to stop. Jobs that run for long are in Running, the oldest last.",
        _ => "No job passes the filter.",
    }
}

/// Draws how far the list reaches, and the way on.
fn more(visit: &Visit, filter: &JobFilter, page: &JobPage) -> Markup {
    let next = page.next.as_ref().map(|next| visit.to(&filter.address(&[("from", &next.to_string())])));
    html! {
        div.bar {
            @if filter.from.is_some() { a.act href=(visit.to(&filter.address(&[]))) { "Newest" } }
            @match (&next, page.looked_back_to) {
                (Some(next), Some(time)) => {
                    span.hint { "Looked back to jobs of " (time::exact(Some(time))) "." }
                    a.act href=(next) { "Look further back" }
                }
                (Some(next), None) => a.act href=(next) { "Next" },
                (None, _) => span.hint { "The list ends here." },
            }
        }
    }
}

/// Draws a table of jobs, which other pages show too. The label names it for a screen reader.
pub fn table(visit: &Visit, label: &str, jobs: &[JobRow]) -> Markup {
    let columns = [
        Column::Text("Job"),
        Column::Text("Kind"),
        Column::Second("Queue"),
        Column::Second("Attempts"),
        Column::Text("When"),
        Column::Line("Last error"),
        Column::Wide("Change"),
    ];
    let seen: Vec<&JobRow> = jobs.iter().filter(|job| visit.viewer.sees(&job.queue)).collect();
    if seen.is_empty() {
        return html! { p.empty { "No job passes the filter." } };
    }
    let rows = html! { @for job in seen { (row(visit, job)) } };
    parts::table(label, &columns, rows)
}

fn row(visit: &Visit, job: &JobRow) -> Markup {
    let link = visit.to(&format!("jobs/{}", job.id));
    html! {
        tr data-href=(link) data-key=(job.id) {
            th scope="row" { a.id href=(link) { (job.id) } (state(job)) }
            td {
                (text::brief(&job.kind, 256))
                @if let Some(key) = &job.key { div.soft { "key " (text::brief(key, 60)) } }
                @for tag in job.tags.iter().take(5) { span.tag { (text::brief(tag, 30)) } }
            }
            td.second { (queue(visit, job)) }
            td.second {
                (job.attempts)
                @if job.failures > 0 { span.soft { " (" (job.failures) " of " (job.max_attempts) " failed)" } }
            }
            td { (when(job)) }
            td.line {
                @if let Some(failed) = job.errors().last() {
                    (text::brief(&encrypted::in_words(redact::error(visit, job, &failed.error)), 120))
                }
            }
            td.wide.acts { (buttons(visit, job)) }
        }
    }
}

/// Draws the job's queue. The link of a name with many signs is many times as long as the name.
fn queue(visit: &Visit, job: &JobRow) -> Markup {
    match text::in_query(&job.queue).len() <= 256 {
        true => parts::queue_link(visit, &job.queue),
        false => html! { (text::brief(&job.queue, 256)) },
    }
}

/// Draws a job's state.
pub fn state(job: &JobRow) -> Markup {
    let (name, class) = match job.state {
        JobState::Running if job.stuck_since.is_some() => ("stuck", "bad"),
        JobState::Running if job.cancel_requested_at.is_some() => ("cancelling", "warn"),
        JobState::Running => ("running", "run"),
        JobState::Dead => ("dead", "bad"),
        JobState::Completed => ("completed", "good"),
        JobState::Parked => ("parked", "warn"),
        JobState::Delayed if job.failures > 0 => ("retrying", "warn"),
        other => (other.name(), ""),
    };
    parts::badge(name, class)
}

/// Draws the time that matters most in a job's state.
fn when(job: &JobRow) -> Markup {
    match job.state {
        JobState::Running => html! { "started " (time::ago(job.reserved_at)) },
        JobState::Ready | JobState::Delayed | JobState::Parked => html! { "due " (time::ago(job.available_at)) },
        JobState::Blocked => html! { "enqueued " (time::ago(job.created_at)) },
        _ => time::ago(job.finished_at),
    }
}

/// Draws the buttons for a job that the visitor may use.
pub fn buttons(visit: &Visit, job: &JobRow) -> Markup {
    let path = |act: &str| format!("jobs/{}/{act}", job.id);
    let (retry, again) = (visit.may(Right::Retry), visit.may(Right::Retry));
    html! {
        @match job.state {
            JobState::Delayed if retry => {
                @let name = if job.failures > 0 { "Retry now" } else { "Run now" };
                (parts::button(visit, &path("retry"), name, "r", &[]))
            }
            JobState::Dead if visit.may(Right::Revive) => (parts::button(visit, &path("retry"), "Revive", "r", &[])),
            JobState::Completed | JobState::Cancelled if again => {
                (parts::once_button(visit, &path("again"), "Run again", "r", &[]))
            }
            _ => {}
        }
        @if !job.state.is_ended() && visit.may(Right::Cancel) {
            (parts::button(visit, &path("cancel"), "Cancel", "c", &[]))
        }
    }
}
