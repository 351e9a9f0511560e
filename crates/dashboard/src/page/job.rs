//! One job: its life, its payload and its result.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use reveille::admin::{Admin, FailedAttempt, FailureReason, JobRow, WorkflowOfJob};
use reveille::job::{JobState, Payload};

use super::{Id, actions, job_links, job_steps, jobs, values};
use crate::access::Right;
use crate::act::pause;
use crate::dashboard::Field;
use crate::draw::shell::Section;
use crate::draw::{number, parts, text, time};
use crate::encrypted;
use crate::guard::Refusal;
use crate::redact;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The number of bytes of the page that one JSON value, one error, and all errors may take.
const MOST_JSON: usize = 16 * 1024;
const MOST_ERROR: usize = 4 * 1024;
const MOST_ERRORS: usize = 32 * 1024;
/// The number of bytes of the page that all tags may take.
const MOST_TAGS: usize = 8 * 1024;
/// The largest number of children that are read.
const MOST_CHILDREN: usize = 20;

pub async fn show((Id(id), visit): (Id, Visit)) -> Result<Response, Refusal> {
    serve::page(visit, move |visit| draw(id, visit)).await
}

/// Reads a job that the visitor may see.
pub async fn find(visit: &Visit, id: i64) -> Result<JobRow, Refusal> {
    let sees_payloads = visit.may(Right::SeePayloads);
    let job = visit
        .read(format!("job {id} {sees_payloads}"), move |admin| async move {
            if sees_payloads { admin.job(id).await } else { admin.listed_job(id).await }
        })
        .await;
    match job.value() {
        Ok(Some(job)) if visit.viewer.sees(&job.queue) => Ok(job.clone()),
        Ok(_) => Err(Refusal::not_found(format!(
            "There is no job {id}. Finished jobs are kept for their queue's retention, 1 day if nothing else is set."
        ))),
        Err(problem) => Err(Refusal::unavailable(problem)),
    }
}

async fn draw(id: i64, visit: Visit) -> Result<Page, Refusal> {
    let links = job_links::read(&visit, id).await;
    let workflow = job_links::workflow_of(&visit, &links);
    let job = match (find(&visit, id).await, workflow) {
        (Ok(job), _) => job,
        (Err(refusal), Some(workflow)) if refusal.status == StatusCode::NOT_FOUND => {
            let body = job_links::of_gone_job(&visit, id, workflow, &links);
            return Ok(Page { title: format!("Job {id}"), section: Section::Jobs, body });
        }
        (Err(refusal), _) => return Err(refusal),
    };
    let steps = job_steps::read(&visit, id).await;
    let read = move |admin: Admin| async move { admin.actions_on_job(id, actions::LATEST).await };
    let changes = visit.read(format!("actions on job {id}"), read).await;
    let body = html! {
        div.bar {
            h1 { (text::line(&job.kind)) " " span.soft { (job.id) } (jobs::state(&job)) }
            (jobs::buttons(&visit, &job))
            @if can_be_edited(&visit, &job) { a.act href=(visit.to(&format!("jobs/{id}/edit"))) { "Edit" } }
        }
        (facts(&visit, &job, workflow))
        @if job.state == JobState::Parked { (pause::of_job(&visit, &job).await) }
        h2 { "Life" }
        (timeline(&visit, &job, &job_steps::pause(&steps)))
        (actions::list(&visit, &changes))
        (job_links::tables(&visit, &links))
        (job_steps::table(&visit, &job, &steps))
        (all_values(&visit, &job))
        (children(&visit, id).await)
    };
    Ok(Page { title: format!("Job {id}"), section: Section::Jobs, body })
}

/// True if the job waits or is dead, and the visitor may edit it.
pub fn can_be_edited(visit: &Visit, job: &JobRow) -> bool {
    visit.may(Right::Edit)
        && matches!(job.state, JobState::Ready | JobState::Delayed | JobState::Parked | JobState::Dead)
}

fn facts(visit: &Visit, job: &JobRow, workflow: Option<&WorkflowOfJob>) -> Markup {
    let column = |name: &str| job.record().decode::<Option<String>>(name).ok().flatten();
    let fact = |name: &str, value: Markup| html! { dt { (name) } dd { (value) } };
    let jobs_with = |name: &str, value: &str| {
        let link = visit.to(&format!("jobs?queue={}&{name}={}", text::in_query(&job.queue), text::in_query(value)));
        html! { a href=(link) { (text::line(value)) } }
    };
    html! {
        dl.facts {
            @if let Some(workflow) = workflow { (fact("Workflow", job_links::place_in(visit, workflow))) }
            (fact("Queue", parts::queue_link(visit, &job.queue)))
            (fact("Priority", html! { (job.priority.name()) }))
            (fact("Attempts", html! {
                (job.attempts) @if job.failures > 0 { ", of which " (job.failures) " failed" }
                span.soft {
                    "; dead after " (job.max_attempts) (if job.max_attempts == 1 { " failure" } else { " failures" })
                }
            }))
            @if job.state.is_waiting() { (fact("Due", html! { (time::ago(job.available_at)) })) }
            @if let Some(key) = &job.key { (fact("Key", jobs_with("key", key))) }
            @if !job.tags.is_empty() { (fact("Tags", tags(job, |tag| jobs_with("tag", tag)))) }
            @if let Some(unique) = &job.unique_key { (fact("Unique key", html! { (text::line(unique)) })) }
            @if let Some(timeout) = column("timeout") { (fact("Timeout", html! { (text::line(&timeout)) })) }
            @if let Some(parent) = job.parent_id { (fact("Enqueued by job", parts::job_link(visit, parent))) }
            @if let Some(schedule) = job.schedule_id {
                (fact("Schedule", html! { a href=(visit.to("schedules")) { (schedule) } }))
            }
            @if let Some(trace) = trace_id(visit, job) { (fact("Trace", html! { code { (trace) } })) }
        }
    }
}

fn tags(job: &JobRow, link: impl Fn(&str) -> Markup) -> Markup {
    let mut left = MOST_TAGS;
    let links: Vec<Markup> = job.tags.iter().map(|tag| link(tag)).collect();
    let shown = links.iter().take_while(|link| {
        left = left.saturating_sub(link.0.len());
        left > 0
    });
    let shown: Vec<&Markup> = shown.collect();
    html! {
        @for link in &shown { span.tag { (link) } }
        @if shown.len() < links.len() { span.soft { "and " (links.len() - shown.len()) " more" } }
    }
}

/// Returns the trace id of the W3C trace context in the metadata, if the visitor may see it.
fn trace_id(visit: &Visit, job: &JobRow) -> Option<String> {
    let metadata = job.metadata().filter(|_| visit.may(Right::SeePayloads))?;
    let shown = Payload::parse(&redact::value(visit, job, Field::Metadata, &metadata).text).ok()?;
    let parent: String = shown.member("traceparent").ok()??;
    let id = parent.split('-').nth(1)?;
    (id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Draws what has happened to the job, oldest first.
/// `pause` says what the handler of a delayed job waits for, if it does.
fn timeline(visit: &Visit, job: &JobRow, pause: &Markup) -> Markup {
    let errors = job.errors();
    let known = errors.len();
    let (attempts, left_out) = attempts(visit, job, &errors);
    html! {
        ol.timeline {
            li { "Enqueued " (time::ago(job.created_at)) }
            @if job.failures as usize > known {
                li.bad { (job.failures as usize - known) " earlier failures, no longer kept" }
            }
            @if left_out > 0 { li.bad { (left_out) " earlier failures, which this page has no room for" } }
            @for attempt in &attempts { (attempt) }
            @match job.state {
                JobState::Running => li.run {
                    "Attempt " (job.attempts) " runs since " (time::ago(job.reserved_at))
                    @if let Some(worker) = job.reserved_by { " on worker " (worker) }
                    @if job.cancel_requested_at.is_some() { ", asked to stop " (time::ago(job.cancel_requested_at)) }
                    @if job.stuck_since.is_some() { ". It is stuck: it was asked to stop, and still runs." }
                },
                JobState::Ready => li { "Ready since " (time::ago(job.available_at)) },
                JobState::Delayed if !pause.0.is_empty() => (pause),
                JobState::Delayed => li { "Due " (time::ago(job.available_at)) },
                JobState::Parked => li.warn {
                    "Parked: its kind or key is paused. It was due " (time::ago(job.available_at))
                },
                JobState::Blocked => li {
                    "Blocked: it waits for other jobs"
                    @if job.record().get("is_held") == Some("true") { ". One of these is dead." }
                },
                JobState::Completed => li.good { "Completed " (time::ago(job.finished_at)) (took(job)) },
                JobState::Dead => li.bad {
                    "Dead " (time::ago(job.finished_at))
                    @if let Some(reason) = job.reason { ": " (reason.name().replace('_', " ")) }
                },
                other => li { (other.name()) " " (time::ago(job.finished_at)) },
            }
        }
    }
}

fn took(job: &JobRow) -> Markup {
    html! {
        @if let Some(seconds) = job.run_seconds {
            " by attempt " (job.attempts) ", which ran " (number::seconds(seconds))
        }
        @if let Some(worker) = job.worker { " on worker " (worker) }
        @if let Some(seconds) = job.wait_seconds { " and started " (number::seconds(seconds)) " after its due time" }
    }
}

/// Draws the last failed attempts for which there is room, and returns how many are left out.
fn attempts(visit: &Visit, job: &JobRow, errors: &[FailedAttempt]) -> (Vec<Markup>, usize) {
    let (mut drawn, mut left) = (Vec::new(), MOST_ERRORS);
    for failed in errors.iter().rev() {
        let attempt = attempt(visit, job, failed);
        left = left.saturating_sub(attempt.0.len());
        if left == 0 {
            break;
        }
        drawn.push(attempt);
    }
    drawn.reverse();
    let left_out = errors.len() - drawn.len();
    (drawn, left_out)
}

fn attempt(visit: &Visit, job: &JobRow, failed: &FailedAttempt) -> Markup {
    let error = redact::error(visit, job, &failed.error);
    let is_encrypted = encrypted::key(&error).is_some();
    let (error, is_cut) = text::within(&error, MOST_ERROR);
    html! {
        li.bad {
            @match failed.attempt { Some(attempt) => { "Attempt " (attempt) }, None => "An attempt" }
            " failed " (time::ago(failed.at))
            @if let Some(reason) = failed.reason.filter(|reason| *reason != FailureReason::Failed) {
                " (" (reason.name().replace('_', " ")) ")"
            }
            @if let Some(worker) = failed.worker { " on worker " (worker) }
            @if is_encrypted { (parts::badge("encrypted", "")) }
            pre { (error) @if is_cut { "…" } }
        }
    }
}

async fn children(visit: &Visit, id: i64) -> Markup {
    let children = visit.read(format!("children {id}"), move |admin| async move { admin.children(id).await }).await;
    parts::reading(&children, |children| {
        html! {
            @if children.iter().any(|child| visit.viewer.sees(&child.queue)) {
                h2 { "Jobs that it has enqueued" }
                (jobs::table(visit, "Jobs that it has enqueued", children))
                @if children.len() == MOST_CHILDREN { p.hint { "These are the first " (MOST_CHILDREN) "." } }
            }
        }
    })
}

/// Draws the job's JSON values, if the visitor may see them.
fn all_values(visit: &Visit, job: &JobRow) -> Markup {
    if !visit.may(Right::SeePayloads) {
        return html! { h2 { "Payload" } p.hint { "You may not see payloads." } };
    }
    let values = [
        ("Payload", Field::Payload, Some(job.payload())),
        ("Result", Field::Result, job.result()),
        ("Progress", Field::Progress, job.progress()),
        ("Metadata", Field::Metadata, job.metadata()),
    ];
    html! {
        @for (title, field, value) in values {
            @if let Some(value) = value { (value_part(visit, job, title, field, &value)) }
        }
    }
}

fn value_part(visit: &Visit, job: &JobRow, title: &str, field: Field, value: &Payload) -> Markup {
    let whole = (field == Field::Payload).then(|| visit.to(&format!("jobs/{}/payload", job.id)));
    values::block(title, &redact::value(visit, job, field, value), MOST_JSON, whole)
}

/// Answers with the whole payload as a file.
pub async fn payload((Id(id), visit): (Id, Visit)) -> Result<Response, Refusal> {
    visit.must(Right::SeePayloads)?;
    let job = find(&visit, id).await?;
    let shown = redact::value(&visit, &job, Field::Payload, &job.payload());
    let name = format!("attachment; filename=\"job-{id}.json\"");
    Ok(([(CONTENT_TYPE, "application/json".to_owned()), (CONTENT_DISPOSITION, name)], shown.text).into_response())
}
