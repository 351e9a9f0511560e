//! Changing one job.

use axum::response::Response;
use reveille::admin::RunAgain;
use reveille::job::{Cancelled, JobState, Retried};

use crate::access::Right;
use crate::guard::Refusal;
use crate::once::Once;
use crate::page::Id;
use crate::page::job::find;
use crate::posted::Posted;

/// Makes a delayed job due, or revives a dead one.
pub async fn retry((Id(id), posted): (Id, Posted)) -> Result<Response, Refusal> {
    let job = find(&posted.visit, id).await?;
    posted.visit.must(if job.state == JobState::Dead { Right::Revive } else { Right::Retry })?;
    let notice = match posted.visit.operator()?.retry(id).await? {
        Retried::Due => format!("Job {id} is due now."),
        Retried::Revived => format!("Job {id} is revived, and due now."),
        Retried::Running => format!("Job {id} was not changed: it is running."),
        Retried::Blocked => format!("Job {id} was not changed: it waits for other jobs."),
        Retried::Compensated => {
            format!(
                "Job {id} was not revived: a job that waited for its death was started. The command `reveille retry \
                 {id} --force` revives it all the same."
            )
        }
        Retried::Finished => format!("Job {id} was not changed: it has finished."),
        _ => format!("Job {id} was not changed: it is gone."),
    };
    Ok(posted.done(&format!("jobs/{id}"), &notice))
}

/// Cancels a waiting job, or asks the handler of a running one to stop.
pub async fn cancel((Id(id), posted): (Id, Posted)) -> Result<Response, Refusal> {
    posted.visit.must(Right::Cancel)?;
    find(&posted.visit, id).await?;
    let notice = match posted.visit.operator()?.cancel(id).await? {
        Cancelled::Cancelled => format!("Job {id} is cancelled."),
        Cancelled::Requested => format!("The handler of job {id} was asked to stop."),
        Cancelled::Finished => format!("Job {id} was not cancelled: it has finished."),
        Cancelled::Dead => format!("Job {id} was not cancelled: it is dead."),
        _ => format!("Job {id} was not cancelled: it is gone."),
    };
    Ok(posted.done(&format!("jobs/{id}"), &notice))
}

/// Enqueues a new job like a finished one.
pub async fn again((Id(id), posted): (Id, Posted)) -> Result<Response, Refusal> {
    posted.visit.must(Right::Retry)?;
    find(&posted.visit, id).await?;
    let once = Once::of(&posted, &format!("jobs/{id}/again"), posted.filled("once"))?;
    let again = match once.operator.run_again(id).await {
        Ok(again) => again,
        Err(error) => return once.refused(&posted, error).await,
    };
    Ok(match again {
        RunAgain::Enqueued(new) => posted.done(&format!("jobs/{new}"), &format!("Job {new} does what job {id} did.")),
        RunAgain::Live => posted.done(&format!("jobs/{id}"), "The job has not ended, so it was not run again."),
        RunAgain::Dead => posted.done(&format!("jobs/{id}"), "The job is dead: revive it."),
        _ => posted.done(&format!("jobs/{id}"), "The job is gone, so it was not run again."),
    })
}
