//! Changing one workflow.

use axum::response::Response;
use reveille::admin::{RetriedJob, WorkflowState};
use reveille::job::Retried;

use crate::access::Right;
use crate::draw::{number, text};
use crate::guard::Refusal;
use crate::page::Id;
use crate::page::workflow::find;
use crate::posted::Posted;

/// The number of refused jobs that a notice names.
const MOST_NAMED: usize = 3;

/// Cancels a workflow.
pub async fn cancel((Id(id), posted): (Id, Posted)) -> Result<Response, Refusal> {
    posted.visit.must(Right::Cancel)?;
    find(&posted.visit, id).await?;
    let notice = match posted.visit.operator()?.cancel_workflow(id).await? {
        Some(WorkflowState::Cancelling) => format!("Workflow {id} is being cancelled."),
        Some(state) => format!("Workflow {id} was not cancelled: it has ended, and is {}.", state.name()),
        None => format!("Workflow {id} was not cancelled: it is gone."),
    };
    Ok(posted.done(&format!("workflows/{id}"), &notice))
}

/// Revives the dead jobs of a workflow.
pub async fn retry((Id(id), posted): (Id, Posted)) -> Result<Response, Refusal> {
    posted.visit.must(Right::Revive)?;
    find(&posted.visit, id).await?;
    let notice = match posted.visit.operator()?.retry_workflow(id, false).await? {
        Some(jobs) if jobs.is_empty() => format!("Workflow {id} has no dead job."),
        Some(jobs) => answer(id, &jobs),
        None => format!("Workflow {id} was not changed: it is gone."),
    };
    Ok(posted.done(&format!("workflows/{id}"), &notice))
}

/// Says how many jobs were revived, and which were not and why.
fn answer(id: i64, jobs: &[RetriedJob]) -> String {
    let of = |retried: Option<Retried>| jobs.iter().filter(move |job| job.retried == retried);
    let revived = of(Some(Retried::Revived)).count();
    let mut said = vec![format!("{} revived.", counted(revived))];
    let mut refused = |retried, why: &str| {
        let names: Vec<String> =
            of(retried).take(MOST_NAMED).map(|job| text::cut(&text::line(&job.name), 24)).collect();
        let count = of(retried).count();
        if count > 0 {
            let more = if count > MOST_NAMED { ", …" } else { "" };
            said.push(format!("{} stayed dead ({}{more}): {why}", counted(count), names.join(", ")));
        }
    };
    let forced = format!("a job was started that waited for the death (reveille workflow retry {id} --force).");
    refused(Some(Retried::Compensated), &forced);
    refused(None, "a live job has the id or the unique key.");
    said.join(" ")
}

fn counted(jobs: usize) -> String {
    format!("{} dead {}", number::count(jobs as u64), if jobs == 1 { "job" } else { "jobs" })
}
