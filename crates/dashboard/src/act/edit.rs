//! Editing a job that waits or is dead.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use reveille::admin::{Edited, JobEdit, JobRow};
use reveille::job::{Payload, Priority};

use crate::access::Right;
use crate::dashboard::Field;
use crate::draw::shell::{self, Section};
use crate::draw::{parts, text};
use crate::guard::Refusal;
use crate::page::Id;
use crate::page::job::{can_be_edited, find};
use crate::posted::Posted;
use crate::redact;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The fields of the form, as the visitor has filled them in.
struct Fields {
    queue: String,
    priority: String,
    /// Empty: the due time stays.
    due: String,
    max_attempts: String,
    key: String,
    timeout: String,
    /// `None` if the visitor may not see or change the payload.
    payload: Option<String>,
}

impl Fields {
    fn of_job(visit: &Visit, job: &JobRow) -> Fields {
        let timeout: Option<String> = job.record().decode("timeout").ok().flatten();
        Fields {
            queue: job.queue.clone(),
            priority: job.priority.name().to_owned(),
            due: String::new(),
            max_attempts: job.max_attempts.to_string(),
            key: job.key.clone().unwrap_or_default(),
            timeout: timeout.unwrap_or_default(),
            payload: redact::for_editing(visit, job, Field::Payload, &job.payload()),
        }
    }

    fn posted(posted: &Posted, shown: &Fields) -> Fields {
        let value = |name: &str| posted.value(name).unwrap_or_default().trim().to_owned();
        Fields {
            queue: value("queue"),
            priority: value("priority"),
            due: value("due"),
            max_attempts: value("max_attempts"),
            key: value("key"),
            timeout: value("timeout"),
            payload: shown.payload.as_ref().and(posted.value("payload").map(str::to_owned)),
        }
    }

    /// Returns the changes from what the job has; fields that are as before stay out of it.
    async fn changes(&self, visit: &Visit, job: &JobRow, before: &Fields) -> Result<JobEdit, String> {
        let said = |error: reveille::Error| error.to_string();
        let mut edit = JobEdit::new();
        if self.queue != before.queue {
            edit = edit.queue(&self.queue);
        }
        if self.priority != before.priority {
            edit = edit.priority(self.priority.parse::<Priority>().map_err(said)?);
        }
        if !self.due.is_empty() {
            edit = match self.due.as_str() {
                "now" => edit.delay(Duration::ZERO),
                due => edit.at(visit.admin().read_time(due).await.map_err(said)?),
            };
        }
        if self.max_attempts != before.max_attempts {
            let number = self.max_attempts.parse::<u32>();
            edit = edit.max_attempts(number.map_err(|_| format!("{:?} is no number of failures.", self.max_attempts))?);
        }
        if self.key != before.key {
            edit = edit.key(Some(self.key.as_str()).filter(|key| !key.is_empty()));
        }
        if self.timeout != before.timeout {
            edit = match self.timeout.as_str() {
                "" => edit.timeout(None),
                timeout => edit.timeout(visit.admin().read_duration(timeout).await.map_err(said)?),
            };
        }
        if let Some(written) = &self.payload {
            let payload = Payload::parse(written).map_err(said)?;
            if payload.as_bytes() != job.payload().as_bytes() && self.payload != before.payload {
                edit = edit.payload(payload);
            }
        }
        edit.check().map_err(said)?;
        Ok(edit)
    }
}

pub async fn show(Id(id): Id, visit: Visit) -> Result<Response, Refusal> {
    visit.must(Right::Edit)?;
    let job = find(&visit, id).await?;
    let fields = Fields::of_job(&visit, &job);
    serve::page(visit, move |visit| std::future::ready(Ok(page(&visit, &job, &fields, None)))).await
}

pub async fn save(Id(id): Id, posted: Posted) -> Result<Response, Refusal> {
    let visit = &posted.visit;
    visit.must(Right::Edit)?;
    let job = find(visit, id).await?;
    let before = Fields::of_job(visit, &job);
    let fields = Fields::posted(&posted, &before);
    let problem = match fields.changes(visit, &job, &before).await {
        Err(problem) => problem,
        Ok(edit) => {
            if !visit.viewer.sees(&fields.queue) {
                return Err(Refusal::forbidden("You may not move a job to a queue that you may not see."));
            }
            match visit.operator()?.edit(id, edit).await {
                Ok(edited) => return Ok(posted.done(&format!("jobs/{id}"), &notice(id, edited))),
                Err(error) => error.to_string(),
            }
        }
    };
    // The form comes back as it was filled in, so that nothing typed is lost.
    let page = page(visit, &job, &fields, Some(&problem));
    Ok((StatusCode::UNPROCESSABLE_ENTITY, shell::page(visit, &page)).into_response())
}

fn notice(id: i64, edited: Edited) -> String {
    match edited {
        Edited::Waiting => format!("Job {id} is changed."),
        Edited::Dead => format!("Job {id} is changed. It stays dead until it is revived."),
        Edited::Running => format!("Job {id} was not changed: it is running now."),
        Edited::Finished => format!("Job {id} was not changed: it has finished."),
        _ => format!("Job {id} was not changed: it is gone."),
    }
}

fn page(visit: &Visit, job: &JobRow, fields: &Fields, problem: Option<&str>) -> Page {
    let title = format!("Edit job {}", job.id);
    let body = html! {
        h1 { (title) " " span.soft { (text::line(&job.kind)) } }
        @if let Some(problem) = problem {
            p.problem role="alert" { (text::within(problem, parts::MOST_REASON).0) " Nothing was changed." }
        }
        @if can_be_edited(visit, job) { (form(visit, job, fields)) }
        @else { p.hint { "Only waiting and dead jobs can be edited. This job is " (job.state.name()) "." } }
    };
    Page { title, section: Section::Jobs, body }
}

fn form(visit: &Visit, job: &JobRow, fields: &Fields) -> Markup {
    let action = format!("jobs/{}/edit", job.id);
    let input = |name: &str, label: &str, value: &str, hint: &str| {
        html! { label { (label) input name=(name) value=(value) placeholder=(hint) autocomplete="off"; } }
    };
    html! {
        form method="post" action=(visit.to(&action)) data-still {
            (parts::signature(visit, &action))
            div.fields {
                (input("queue", "Queue", &fields.queue, ""))
                label {
                    "Priority"
                    select name="priority" {
                        @for priority in Priority::ALL.map(Priority::name) {
                            option value=(priority) selected[fields.priority == priority] { (priority) }
                        }
                    }
                }
                @if job.state.is_waiting() {
                    (input("due", "Due (empty: as it is)", &fields.due, "now, tomorrow 8:00+01"))
                }
                (input("max_attempts", "Dead after failures", &fields.max_attempts, ""))
                (input("key", "Key", &fields.key, "none"))
                (input("timeout", "Timeout", &fields.timeout, "of its kind"))
            }
            @match &fields.payload {
                Some(payload) => label.block {
                    "Payload (JSON)"
                    textarea name="payload" rows="16" spellcheck="false" { (payload) }
                },
                None => p.hint { "The payload cannot be edited here: it is too large, or you may not see all of it." },
            }
            p {
                button.main type="submit" { "Save" } " "
                a.act href=(visit.to(&format!("jobs/{}", job.id))) { "Back" }
            }
        }
    }
}
