//! What a visitor sees of a job's values, after the application's redaction.

use reveille::admin::{JobRow, WorkflowRow};
use reveille::job::Payload;
use serde_json::Value;

use crate::access::Right;
use crate::dashboard::Field;
use crate::draw::json;
use crate::visit::Visit;

/// A value as it is shown.
pub struct Shown {
    pub text: String,
    /// True if the application's redaction has changed the value.
    pub is_redacted: bool,
}

/// Returns a JSON value as the visitor sees it.
///
/// Without a redaction, or if the redaction changes nothing, this is the stored text with all its digits.
pub fn value(visit: &Visit, job: &JobRow, field: Field, value: &Payload) -> Shown {
    match &visit.shared.redact {
        Some(redact) => changed(value, |value| redact(job, field, value)),
        None => stored(value),
    }
}

/// Returns a value of a workflow as the visitor sees it. Returns `None` if the application redacts jobs and does not
/// redact workflows.
pub fn of_workflow(visit: &Visit, workflow: &WorkflowRow, field: Field, value: &Payload) -> Option<Shown> {
    match (&visit.shared.redact_workflow, &visit.shared.redact) {
        (Some(redact), _) => Some(changed(value, |value| redact(workflow, field, value))),
        (None, Some(_)) => None,
        (None, None) => Some(stored(value)),
    }
}

fn stored(value: &Payload) -> Shown {
    Shown { text: String::from_utf8_lossy(value.as_bytes()).into_owned(), is_redacted: false }
}

fn changed(value: &Payload, redact: impl FnOnce(&mut Value)) -> Shown {
    let stored = stored(value);
    let Ok(before) = serde_json::from_str::<Value>(&stored.text) else {
        // The redaction cannot read it, so nothing of it is shown.
        return Shown {
            text: "\"not shown: its nesting or its numbers are beyond what can be redacted\"".into(),
            is_redacted: true,
        };
    };
    let mut after = before.clone();
    redact(&mut after);
    match after == before {
        true => stored,
        false => Shown { text: after.to_string(), is_redacted: true },
    }
}

/// The largest value, in bytes, that a form offers for editing.
const MOST_EDITED: usize = 256 * 1024;

/// Returns a JSON value for a form, laid out; `None` if it is too large, or if the visitor may not see all of it.
pub fn for_editing(visit: &Visit, job: &JobRow, field: Field, stored: &Payload) -> Option<String> {
    if !visit.may(Right::SeePayloads) || stored.as_bytes().len() > MOST_EDITED {
        return None;
    }
    let shown = value(visit, job, field, stored);
    let laid_out = json::laid_out(&shown.text, MOST_EDITED).0;
    // Deeply nested JSON is mostly blanks once it is laid out.
    (!shown.is_redacted).then_some(if laid_out.len() <= MOST_EDITED { laid_out } else { shown.text })
}

/// Returns the error of an attempt as the visitor sees it.
pub fn error(visit: &Visit, job: &JobRow, error: &str) -> String {
    let Some(redact) = &visit.shared.redact else { return error.to_owned() };
    let mut value = Value::from(error);
    redact(job, Field::Error, &mut value);
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
