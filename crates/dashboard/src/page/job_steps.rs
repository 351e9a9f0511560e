//! What a job's handler has recorded, on the job's page: steps, sleeps, and waits for events.

use maud::{Markup, html};
use reveille::admin::{JobRow, StepKind, StepRow};

use crate::access::Right;
use crate::dashboard::Field;
use crate::draw::parts::{self, Column};
use crate::draw::{text, time};
use crate::encrypted;
use crate::readings::Reading;
use crate::redact;
use crate::visit::Visit;

/// The largest number of steps that are shown, and of bytes of the page that a name and a value may take.
const MOST: u32 = 50;
const MOST_NAME: usize = 256;
const MOST_VALUE: usize = 256;

pub async fn read(visit: &Visit, id: i64) -> Reading<Vec<StepRow>> {
    let sees_payloads = visit.may(Right::SeePayloads);
    visit
        .read(format!("steps of job {id} {sees_payloads}"), move |admin| async move {
            if sees_payloads { admin.job_steps(id, MOST).await } else { admin.listed_steps(id, MOST).await }
        })
        .await
}

/// Says what a delayed job sleeps or waits for.
pub fn pause(steps: &Reading<Vec<StepRow>>) -> Markup {
    let open = steps.value().ok().and_then(|steps| steps.iter().rfind(|step| step.is_open));
    html! {
        @if let Some(step) = open {
            @match step.kind {
                StepKind::Wait => li.run {
                    "Waits for the event " (text::brief(&step.name, MOST_NAME)) "; goes on without it "
                    (time::ago(step.until))
                },
                _ => li.run { "Sleeps (" (text::brief(&step.name, MOST_NAME)) "); goes on " (time::ago(step.until)) },
            }
        }
    }
}

pub fn table(visit: &Visit, job: &JobRow, steps: &Reading<Vec<StepRow>>) -> Markup {
    let columns = [Column::Text("Step"), Column::Text("Recorded"), Column::Second("Attempt"), Column::Line("Value")];
    parts::reading(steps, |steps| {
        let rows = html! { @for step in steps { (row(visit, job, step)) } };
        html! {
            @if !steps.is_empty() {
                h2 { "Steps" }
                (parts::table("Steps", &columns, rows))
                @if steps.len() as u32 == MOST { p.hint { "There may be more. These are the latest " (MOST) "." } }
            }
        }
    })
}

fn row(visit: &Visit, job: &JobRow, step: &StepRow) -> Markup {
    let (name, class) = match (step.kind, step.is_open) {
        (StepKind::Step, _) => ("step", "good"),
        (StepKind::Sleep, true) => ("sleeps", "run"),
        (StepKind::Sleep, false) => ("slept", ""),
        (_, true) => ("waits for the event", "run"),
        _ if step.has_timed_out => ("event did not come", "warn"),
        _ => ("event", "good"),
    };
    html! {
        tr data-key=(step.name) {
            th.long scope="row" { (text::brief(&step.name, MOST_NAME)) (parts::badge(name, class)) }
            td {
                (time::ago(step.recorded_at))
                @if step.is_open { div.sub { "ends " (time::ago(step.until)) } }
            }
            td.second { (step.attempt) }
            td.line.word {
                @if let Some(value) = &step.value {
                    @let shown = redact::value(visit, job, Field::Step, value);
                    code { (text::brief(&encrypted::in_words(shown.text), MOST_VALUE)) }
                    @if shown.is_redacted { (parts::badge("redacted", "")) }
                }
            }
        }
    }
}
