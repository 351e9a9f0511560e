//! Editing a job that waits or is dead.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use reveille::admin::{Edited, JobEdit, JobRow};
use reveille::job::{Payload, Priority};
use sha2::{Digest, Sha256};

use crate::access::Right;
use crate::dashboard::Field;
use crate::draw::shell::{self, Section};
use crate::draw::{parts, text};
use crate::encrypted;
use crate::guard::Refusal;
use crate::page::Id;
use crate::page::job::{can_be_edited, find};
use crate::posted::Posted;
use crate::redact;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The fields of the form, as a job has them or as the visitor has filled them in.
#[derive(PartialEq)]
struct Fields {
    queue: String,
    priority: String,
    /// Empty: the due time stays.
    due: String,
    max_attempts: String,
    key: String,
    timeout: String,
    /// `None` if the visitor may not see or change the payload, or if it is encrypted.
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
            payload: redact::for_editing(visit, job, Field::Payload, &job.payload())
                .filter(|payload| encrypted::key(payload).is_none()),
        }
    }

    /// Returns the fields as the visitor has left them. `now` is what the job has. A field that the visitor has not
    /// changed since the form was drawn is as it is now, and stays as it is. Also returns the name of a field that the
    /// visitor and, meanwhile, somebody else have changed.
    fn posted(posted: &Posted, now: &Fields) -> (Fields, Option<&'static str>) {
        let mut contested = None;
        let mut value = |name: &'static str, now: &str| {
            let written = posted.value(name).unwrap_or_default();
            match posted.value(&before(name)) {
                // A browser drops line breaks from the fields of one line.
                Some(before) if before.replace(['\r', '\n'], "") == written => return now.to_owned(),
                Some(before) if before != now => contested = Some(name),
                _ => {}
            }
            written.trim().to_owned()
        };
        let fields = Fields {
            queue: value("queue", &now.queue),
            priority: value("priority", &now.priority),
            due: posted.filled("due").unwrap_or_default().to_owned(),
            max_attempts: value("max_attempts", &now.max_attempts),
            key: value("key", &now.key),
            timeout: value("timeout", &now.timeout),
            payload: None,
        };
        let payload = match (&now.payload, posted.value("payload")) {
            (Some(now), Some(written)) => {
                // A browser sends each line break as two characters.
                let written = written.replace("\r\n", "\n");
                match posted.value(&before("payload")) {
                    Some(before) if before == fingerprint(&written) => Some(now.clone()),
                    Some(before) => {
                        contested = contested.or((before != fingerprint(now)).then_some("payload"));
                        Some(written)
                    }
                    None => Some(written),
                }
            }
            _ => None,
        };
        (Fields { payload, ..fields }, contested)
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

pub async fn show((Id(id), visit): (Id, Visit)) -> Result<Response, Refusal> {
    visit.must(Right::Edit)?;
    let job = find(&visit, id).await?;
    let fields = Fields::of_job(&visit, &job);
    serve::page(visit, move |visit| std::future::ready(Ok(page(&visit, &job, &fields, None)))).await
}

pub async fn save((Id(id), posted): (Id, Posted)) -> Result<Response, Refusal> {
    let visit = &posted.visit;
    visit.must(Right::Edit)?;
    let job = find(visit, id).await?;
    let before = Fields::of_job(visit, &job);
    let (fields, contested) = Fields::posted(&posted, &before);
    if fields == before {
        return Ok(posted.done(&format!("jobs/{id}"), "Nothing was changed."));
    }
    let changes = match contested {
        Some(name) => Err(changed_meanwhile(name)),
        None => fields.changes(visit, &job, &before).await,
    };
    let problem = match changes {
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

/// The name of the hidden field with the value that the form has shown.
fn before(name: &str) -> String {
    format!("was_{name}")
}

/// Returns what the form carries in place of the payload that it has shown.
fn fingerprint(payload: &str) -> String {
    Sha256::digest(payload).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn changed_meanwhile(name: &str) -> String {
    let name = name.replace('_', " ");
    format!("Somebody else has changed the {name} meanwhile. Look at the job before you save again.")
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
    let now = Fields::of_job(visit, job);
    let carried = |name: &str, value: &str| html! { input type="hidden" name=(before(name)) value=(value); };
    let input = |name: &str, label: &str, value: &str, hint: &str| {
        html! { label { (label) input name=(name) value=(value) placeholder=(hint) autocomplete="off"; } }
    };
    html! {
        form method="post" action=(visit.to(&action)) data-still {
            (parts::signature(visit, &action))
            (carried("queue", &now.queue)) (carried("priority", &now.priority)) (carried("key", &now.key))
            (carried("max_attempts", &now.max_attempts)) (carried("timeout", &now.timeout))
            @if let Some(payload) = &now.payload { (carried("payload", &fingerprint(payload))) }
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
                None => p.hint {
                    "The payload cannot be edited here: it is encrypted, or too large, or you may not see all of it."
                },
            }
            p {
                button.main type="submit" { "Save" } " "
                a.act href=(visit.to(&format!("jobs/{}", job.id))) { "Back" }
            }
        }
    }
}
