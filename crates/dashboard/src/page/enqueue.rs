//! The form for a new job.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use reveille::admin::{JobRow, View};
use reveille::job::{Payload, Priority};
use serde_json::value::RawValue;

use super::column;
use crate::access::Right;
use crate::dashboard::Field;
use crate::draw::shell::{self, Section};
use crate::draw::{parts, text};
use crate::encrypted;
use crate::guard::Refusal;
use crate::once;
use crate::redact;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// What stands in the fields of the form, by their names.
#[derive(Debug, Clone, Default)]
pub struct Typed(BTreeMap<&'static str, String>);

/// What is wrong, by the names of the fields.
pub type Errors = BTreeMap<&'static str, String>;

/// The names of the fields.
pub const FIELDS: [&str; 12] = [
    "kind",
    "queue",
    "payload",
    "priority",
    "delay",
    "at",
    "max_attempts",
    "timeout",
    "key",
    "unique_key",
    "tags",
    "metadata",
];
/// The fields that are seldom filled in.
const FURTHER: [&str; 6] = ["max_attempts", "timeout", "key", "unique_key", "tags", "metadata"];

pub const PRIORITIES: [(&str, Priority); 4] =
    [("urgent", Priority::Urgent), ("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];

impl Typed {
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.insert(name, value.into());
    }

    /// Returns the value without blanks around it, if the field is filled in.
    pub fn filled(&self, name: &str) -> Option<&str> {
        Some(self.get(name).trim()).filter(|value| !value.is_empty())
    }

    fn blank() -> Typed {
        let mut typed = Typed::default();
        typed.set("queue", "default");
        typed.set("payload", "{}");
        typed.set("priority", "normal");
        typed.set("max_attempts", "20");
        typed
    }

    /// Fills the fields in as a job has them. What the visitor may not see, or what is redacted, is left out; the text
    /// that is returned says so.
    fn like(visit: &Visit, job: &JobRow) -> (Typed, Option<&'static str>) {
        let mut typed = Typed::blank();
        typed.set("kind", &job.kind);
        typed.set("queue", &job.queue);
        let priority = PRIORITIES.into_iter().find(|(_, priority)| *priority == job.priority);
        typed.set("priority", priority.map_or("normal", |(name, _)| name));
        typed.set("max_attempts", job.max_attempts.max(1).to_string());
        typed.set("timeout", column::<Option<String>>(job.record(), "timeout").unwrap_or_default());
        typed.set("key", job.key.clone().unwrap_or_default());
        typed.set("tags", job.tags.join("\n"));
        if !visit.may(Right::SeePayloads) {
            return (typed, Some("You may not see payloads, so the payload is not filled in."));
        }
        let payload = open(visit, job, Field::Payload, Some(job.payload()));
        match (payload, open(visit, job, Field::Metadata, job.metadata().and_then(without_trace))) {
            (Some(payload), Some(metadata)) => {
                let is_encrypted = encrypted::key(&payload).is_some();
                typed.set("payload", payload);
                typed.set("metadata", metadata);
                (typed, is_encrypted.then_some("Its payload is encrypted. Leave it and the kind unchanged."))
            }
            _ => {
                (typed, Some("A part of its payload or metadata is hidden here or too large, so neither is filled in."))
            }
        }
    }
}

/// Returns metadata without the trace of its job: a new job belongs to another trace. `None` if nothing is left.
fn without_trace(metadata: Payload) -> Option<Payload> {
    let is_of_trace = |name: &String| ["traceparent", "tracestate"].contains(&name.as_str());
    let Ok(mut members) = metadata.decode::<BTreeMap<String, Box<RawValue>>>() else { return Some(metadata) };
    if !members.keys().any(is_of_trace) {
        return Some(metadata);
    }
    members.retain(|name, _| !is_of_trace(name));
    Payload::encode(&members).ok().filter(|_| !members.is_empty())
}

/// Returns a value of a job for the form; `None` if it may not be shown there.
fn open(visit: &Visit, job: &JobRow, field: Field, value: Option<Payload>) -> Option<String> {
    value.map_or(Some(String::new()), |value| redact::for_editing(visit, job, field, &value))
}

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    visit.must(Right::Enqueue)?;
    serve::page(visit, |visit| async move {
        let (typed, note) = prefilled(&visit).await?;
        let names = Names::read(&visit).await;
        Ok(page(&visit, &typed, &Errors::new(), Some(note), &names))
    })
    .await
}

/// Answers with the form as it was sent, and with what is wrong beside its fields.
pub async fn again(visit: &Visit, typed: &Typed, errors: &Errors, status: StatusCode) -> Response {
    let names = Names::read(visit).await;
    (status, shell::page(visit, &page(visit, typed, errors, None, &names))).into_response()
}

/// Fills the form in as the page's address asks: like a job, or like the last job of a kind.
async fn prefilled(visit: &Visit) -> Result<(Typed, Markup), Refusal> {
    if let Some(id) = visit.param("like") {
        let id = super::id(&id)?;
        let job = visit.read(format!("job {id}"), move |admin| async move { admin.job(id).await }).await;
        let job = job.value().map_err(Refusal::unavailable)?;
        let job = job.as_ref().filter(|job| visit.viewer.sees(&job.queue));
        let job = job.ok_or_else(|| Refusal::not_found("There is no such job. Its history may have been deleted."))?;
        let (typed, hidden) = Typed::like(visit, job);
        return Ok((
            typed,
            html! { "Filled in like job " (parts::job_link(visit, id)) ". " (hidden.unwrap_or_default()) },
        ));
    }
    let Some(kind) = visit.param("kind") else { return Ok((Typed::blank(), html! {})) };
    let queues = visit.param("queue").map(|queue| vec![queue]).or_else(|| visit.viewer.queues.clone());
    let queues = queues.map(|queues| queues.into_iter().filter(|queue| visit.viewer.sees(queue)).collect::<Vec<_>>());
    let (of, within) = (kind.clone(), queues.clone());
    let job = visit.read(format!("latest of {kind:?} {queues:?}"), move |admin| async move {
        admin.latest_of_kind(&of, within.as_deref()).await
    });
    let job = job.await;
    Ok(match job.value() {
        Ok(Some(job)) => {
            let (typed, hidden) = Typed::like(visit, job);
            let link = parts::job_link(visit, job.id);
            (typed, html! { "Filled in like " (link) ", the last job of this kind. " (hidden.unwrap_or_default()) })
        }
        missing => {
            let mut typed = Typed::blank();
            typed.set("kind", kind);
            typed.set("queue", visit.param("queue").unwrap_or_else(|| "default".to_owned()));
            let why = match missing {
                Ok(_) => {
                    "No job of this kind is among the newest 5,000 live or finished jobs, or the latest dead ones."
                }
                Err(reason) => reason,
            };
            (typed, html! { (why) })
        }
    })
}

/// The names that the form suggests.
#[derive(Default)]
struct Names {
    kinds: BTreeSet<String>,
    queues: BTreeSet<String>,
}

impl Names {
    /// Reads the names. Without an answer, the form suggests none.
    async fn read(visit: &Visit) -> Names {
        let rows = visit.read("kind totals", |admin| async move { admin.view(View::KindTotals).await });
        let queues = visit.read("queues", |admin| async move { admin.queues().await });
        let (rows, queues) = futures::join!(rows, queues);
        let mut names = Names::default();
        for row in rows.value().map_or(&[][..], Vec::as_slice) {
            let (queue, kind): (String, String) = (column(row, "queue"), column(row, "kind"));
            if visit.viewer.sees(&queue) && kind != "(other)" {
                names.kinds.insert(kind);
            }
        }
        let queues = queues.value().map_or(&[][..], Vec::as_slice);
        names.queues = queues.iter().filter(|queue| visit.viewer.sees(queue)).cloned().collect();
        names
    }
}

fn page(visit: &Visit, typed: &Typed, errors: &Errors, note: Option<Markup>, names: &Names) -> Page {
    let form = Form { typed, errors };
    let is_open = FURTHER.iter().any(|name| {
        errors.contains_key(name)
            || form.typed.filled(name).is_some_and(|value| (*name, value) != ("max_attempts", "20"))
    });
    let body = html! {
        div data-still {
            h1 { "Enqueue a job" }
            @if !errors.is_empty() { (summary(errors)) }
            @if let Some(note) = note { p.hint { (note) } }
            form method="post" action=(visit.to("enqueue")) {
                (parts::signature(visit, "enqueue"))
                (once::field(visit))
                div.form {
                    (form.input("kind", "Kind", "Decides which handler runs the job.", true, Some("kinds")))
                    (form.input("queue", "Queue", "", true, Some("queues")))
                    (form.area("payload", "Payload", "JSON for the handler. Empty means {}.", "whole"))
                    (form.priority())
                    (form.input("delay", "Delay", "Like 5 minutes. Empty means due at once.", false, None))
                    (form.input("at", "Due at", "Like 2026-12-24 18:00+01 or tomorrow. Instead of a delay.", false,
                        None))
                }
                details open[is_open] {
                    summary { "Further settings" }
                    div.form {
                        (form.input("max_attempts", "Attempts", "Failures after which the job is dead.", true, None))
                        (form.input("timeout", "Timeout", "Of one attempt, like 30 seconds. Empty: as its kind has it.",
                            false, None))
                        (form.input("key", "Key", "What the job belongs to, such as a tenant.", false, None))
                        (form.input("unique_key", "Unique key", "At most one live job of a kind has it.", false, None))
                        (form.area("tags", "Tags", "One in a line.", "short"))
                        (form.area("metadata", "Metadata", "A JSON object, or empty.", "short"))
                    }
                }
                p { button.main type="submit" { "Enqueue" } }
            }
            (suggestions("kinds", &names.kinds))
            (suggestions("queues", &names.queues))
        }
    };
    Page { title: "Enqueue".into(), section: Section::Enqueue, body }
}

fn summary(errors: &Errors) -> Markup {
    let count = errors.keys().filter(|name| !name.is_empty()).count();
    html! {
        div.problem role="alert" {
            @match errors.get("") {
                Some(error) => (text::shown(error)),
                None if count == 1 => "Nothing was enqueued: a field needs another look.",
                None => { "Nothing was enqueued: " (count) " fields need another look." }
            }
        }
    }
}

fn suggestions(id: &str, names: &BTreeSet<String>) -> Markup {
    html! { datalist id=(id) { @for name in names.iter().take(500) { option value=(name) {} } } }
}

/// The fields with what was typed and what is wrong.
struct Form<'a> {
    typed: &'a Typed,
    errors: &'a Errors,
}

impl Form<'_> {
    fn input(&self, name: &str, label: &str, hint: &str, is_required: bool, list: Option<&str>) -> Markup {
        let control = html! {
            input id=(name) name=(name) value=(self.typed.get(name)) required[is_required] list=[list]
                autocomplete="off" spellcheck="false" aria-invalid=[self.invalid(name)]
                aria-describedby=(described(name));
        };
        self.field(name, label, hint, "", control)
    }

    fn area(&self, name: &str, label: &str, hint: &str, class: &str) -> Markup {
        let control = html! {
            // A browser leaves out the first line break of a text area.
            textarea.(class) id=(name) name=(name) spellcheck="false" aria-invalid=[self.invalid(name)]
                aria-describedby=(described(name)) { "\n" (self.typed.get(name)) }
        };
        self.field(name, label, hint, class, control)
    }

    fn priority(&self) -> Markup {
        let chosen = self.typed.get("priority");
        let control = html! {
            select id="priority" name="priority" aria-invalid=[self.invalid("priority")]
                aria-describedby=(described("priority")) {
                @for (name, _) in PRIORITIES { option value=(name) selected[name == chosen] { (name) } }
            }
        };
        self.field("priority", "Priority", "", "", control)
    }

    fn field(&self, name: &str, label: &str, hint: &str, class: &str, control: Markup) -> Markup {
        html! {
            div.field.(class) {
                label for=(name) { (label) }
                (control)
                div id=(described(name)) {
                    @if let Some(error) = self.errors.get(name) { p.field-error { (text::shown(error)) } }
                    @if !hint.is_empty() { p.hint { (hint) } }
                }
            }
        }
    }

    fn invalid(&self, name: &str) -> Option<&'static str> {
        self.errors.contains_key(name).then_some("true")
    }
}

/// Returns the id of what describes a field.
fn described(name: &str) -> String {
    format!("about-{name}")
}
