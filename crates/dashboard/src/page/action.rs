//! One action. A change of many jobs shows its progress, and can be stopped.

use axum::response::Response;
use maud::html;
use reveille::admin::{ActionRow, ActionState};

use super::Id;
use super::actions::{may_see, progress, state, target, without_hidden, words};
use crate::access::Right;
use crate::draw::shell::Section;
use crate::draw::{json, parts, text, time};
use crate::guard::Refusal;
use crate::job_filter::may_match_error;
use crate::posted::Posted;
use crate::serve::{self, Page};
use crate::visit::{SOURCE, Visit};

/// The number of bytes of the detail that the page shows.
const MOST_DETAIL: usize = 32 * 1024;
/// The rights to change many jobs.
const RUNS: [Right; 5] = [Right::Cancel, Right::Revive, Right::Purge, Right::Edit, Right::Retry];

pub async fn show((Id(id), visit): (Id, Visit)) -> Result<Response, Refusal> {
    serve::page(visit, move |visit| draw(id, visit)).await
}

async fn find(visit: &Visit, id: i64) -> Result<ActionRow, Refusal> {
    let action = visit.read(format!("action {id}"), move |admin| async move { admin.action(id).await }).await;
    match action.value() {
        Ok(Some(action)) if may_see(visit, action) => Ok(action.clone()),
        Ok(_) => Err(Refusal::not_found(format!("There is no action {id}. Actions are kept for 90 days."))),
        Err(problem) => Err(Refusal::unavailable(problem)),
    }
}

async fn draw(id: i64, visit: Visit) -> Result<Page, Refusal> {
    let action = find(&visit, id).await?;
    let is_under_way = action.is_run() && action.state == ActionState::Running;
    let laid_out = |value: &serde_json::Value| {
        let (laid_out, _) = json::laid_out(&without_hidden(&visit, value).to_string(), MOST_DETAIL);
        text::within(&laid_out, MOST_DETAIL).0
    };
    let body = html! {
        div.bar {
            h1 { (words(&action.action)) " " (target(&visit, &action)) (state(&action)) }
            @if is_under_way && may_stop(&visit, &action) {
                (parts::button(&visit, &format!("actions/{id}/stop"), "Stop", "", &[]))
            }
        }
        @if let (Some(done), Some(matching)) = (action.done, action.matching.filter(|matching| *matching > 0)) {
            progress.run value=(done.min(matching)) max=(matching) aria-label="Progress" {}
        }
        (progress(&action))
        @if action.state == ActionState::Interrupted {
            p.problem {
                "The process that made this change has ended, or cannot reach the database. What it has changed \
                 stays changed. If it reaches the database within ten minutes, it goes on."
            }
        }
        @if let Some(error) = &action.error {
            p.problem {
                @if may_match_error(&visit) { (text::shown(error)) }
                @else { "An error of the database has ended this. It is not shown here, since it may quote a job." }
            }
        }
        dl.facts {
            dt { "By" } dd { (text::line(&action.actor)) " (" (text::line(&action.source)) ")" }
            dt { "Began" } dd { (time::exact(action.started_at)) }
            @if action.ended_at.is_some() { dt { "Ended" } dd { (time::exact(action.ended_at)) } }
            @if action.stop_requested_at.is_some() {
                dt { "Asked to stop" }
                dd { (time::exact(action.stop_requested_at)) }
            }
        }
        h2 { "Target" }
        pre tabindex="0" aria-label="Target" { (laid_out(&action.target)) }
        @if action.detail.as_object().is_none_or(|detail| !detail.is_empty()) {
            h2 { "Detail" }
            pre tabindex="0" aria-label="Detail" { (laid_out(&action.detail)) }
        }
    };
    Ok(Page { title: format!("Action {id}"), section: Section::Actions, body })
}

/// A run may be stopped by those who may begin one like it, and by those who have begun it if they may still begin any.
fn may_stop(visit: &Visit, action: &ActionRow) -> bool {
    let right = match action.action.as_str() {
        "cancel" => Right::Cancel,
        "revive" => Right::Revive,
        "purge" => Right::Purge,
        "edit" => Right::Edit,
        _ => Right::Retry,
    };
    let is_own = action.actor == visit.actor() && action.source == SOURCE;
    visit.may(right) || is_own && RUNS.into_iter().any(|right| visit.may(right))
}

pub async fn stop((Id(id), posted): (Id, Posted)) -> Result<Response, Refusal> {
    let action = find(&posted.visit, id).await?;
    if !may_stop(&posted.visit, &action) {
        return Err(Refusal::forbidden("You may not stop this. It goes on."));
    }
    let is_asked = posted.visit.operator()?.stop_action(id).await?;
    let (asked, gone) = ("It stops after the jobs that are being changed now.", "It has ended already.");
    Ok(posted.done_if(is_asked, &format!("actions/{id}"), asked, gone))
}
