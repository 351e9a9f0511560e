//! The figures above the overview's list: sums over queues, and the numbers of workflows.

use std::collections::HashMap;

use maud::{Markup, html};
use reveille::admin::{Admin, WorkflowState};
use serde::Deserialize;

use crate::draw::shell::Section;
use crate::draw::{number, parts};
use crate::readings::Reading;
use crate::visit::Visit;

/// The sums over queues.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Sums {
    pub ready: u64,
    pub delayed: u64,
    pub running: u64,
    pub dead: u64,
    pub estimated: bool,
    pub completed_last_minute: u64,
    pub failed_last_minute: u64,
    pub workers: u64,
    pub slots: u64,
}

/// The numbers of workflows by state. Of each state, up to `MOST_WORKFLOWS` and one more are counted.
pub type Workflows = HashMap<WorkflowState, u64>;

/// The largest number of workflows of a state that the page tells.
const MOST_WORKFLOWS: u32 = 10_000;

/// Counts the running and the stalled workflows. A visitor of some queues sees no workflow.
pub async fn workflows(visit: &Visit) -> Option<Reading<Workflows>> {
    if !visit.sees_section(Section::Workflows) {
        return None;
    }
    let states = [WorkflowState::Running, WorkflowState::Stalled];
    let counts = |admin: Admin| async move { admin.count_workflows(&states, MOST_WORKFLOWS + 1).await };
    Some(visit.read("workflows by state", counts).await)
}

/// Draws the figures.
pub fn draw(visit: &Visit, sums: &Sums, workflows: Option<&Workflows>) -> Markup {
    let jobs = |state: &str| Some(visit.to(&format!("jobs?state={state}")));
    // Of all queues together, also a small number of ready or delayed jobs may be an estimate.
    let about = |n: u64| format!("{}{}", if sums.estimated && n > 0 { "~" } else { "" }, number::count(n));
    html! {
        dl.figures {
            (parts::figure("Ready", &about(sums.ready), jobs("ready"), ""))
            (parts::figure("Running", &number::count(sums.running), jobs("running"), "run"))
            @if visit.viewer.queues.is_none() {
                (parts::figure(&workers(sums), &number::count(sums.workers), Some(visit.to("workers")),
                    if_any(sums.workers == 0, "warn")))
            }
            (parts::figure("Delayed", &about(sums.delayed), jobs("delayed"), ""))
            (parts::figure("Dead", &number::count(sums.dead), Some(visit.to("dead")), if_any(sums.dead > 0, "bad")))
            (parts::figure("Completed", &number::rate(sums.completed_last_minute as f64 / 60.0), jobs("completed"), ""))
            (parts::figure("Failed", &number::rate(sums.failed_last_minute as f64 / 60.0), jobs("failing"),
                if sums.failed_last_minute > 0 { "warn" } else { "" }))
            @if let Some(workflows) = workflows { (workflow_figure(visit, workflows)) }
        }
    }
}

/// Draws how many workflows are running and how many are stalled, as links to these. Draws nothing if none is.
fn workflow_figure(visit: &Visit, workflows: &Workflows) -> Markup {
    let of = |state| workflows.get(&state).copied().unwrap_or_default();
    let counted = [(WorkflowState::Running, "run"), (WorkflowState::Stalled, "bad")];
    let counted = counted.into_iter().filter(|(state, _)| of(*state) > 0).collect::<Vec<_>>();
    let number = |n: u64| match n > u64::from(MOST_WORKFLOWS) {
        true => format!("over {}", number::count(MOST_WORKFLOWS)),
        false => number::count(n),
    };
    html! {
        @if !counted.is_empty() {
            div.figure {
                dt { "Workflows" }
                @for (state, class) in counted {
                    dd.(class) {
                        a href=(visit.to(&format!("workflows?state={}", state.name()))) {
                            (number(of(state))) " " (state.name())
                        }
                    }
                }
            }
        }
    }
}

/// Returns the class of a figure that needs attention.
fn if_any(needs_attention: bool, class: &str) -> &str {
    if needs_attention { class } else { "" }
}

/// Returns the name of the figure that counts workers.
fn workers(sums: &Sums) -> String {
    let slots = if sums.slots == 1 { "slot" } else { "slots" };
    format!("Workers, {} {slots}", number::count(sums.slots))
}
