//! The handler of jobs of workflows and of jobs that wait for others.

use std::sync::Arc;

use deadpool_postgres::{Client, Transaction};
use reveille::enqueue::Members;
use reveille::handler::{Cancellation, Inputs};
use reveille::job::Completed;
use reveille::{Context, Database, State};
use tokio::time::timeout;

use super::LinkedTask;
use crate::torture::journal::{Journal, OpenEntry};
use crate::torture::worker::{self, ANSWER_WITHIN, HandlerError};

/// Takes a random time, fails at random, or writes the job's effect. The result of a completed job is its id.
pub async fn work(
    task: LinkedTask,
    State(journal): State<Arc<Journal>>,
    State(database): State<Database>,
    inputs: Inputs,
    context: Context,
    cancellation: Cancellation,
) -> Result<Completed<i64>, HandlerError> {
    let entry = journal.attempt(task.job, i32::try_from(context.attempt().number)?);
    let run = async {
        worker::take_time().await;
        worker::fail_at_random()?;
        check_inputs(&task, &inputs, &journal).await?;
        let mut client = database.client().await?;
        let ended = timeout(ANSWER_WITHIN, end(&task, entry, &mut client, &context)).await;
        worker::answered(client, ended)?;
        Ok(Completed(context.id()))
    };
    tokio::select! {
        outcome = run => outcome,
        () = cancellation.cancelled() => Err("cancelled".into()),
    }
}

/// Notes in the journal each result of a prerequisite that is not the one that its handler returned.
async fn check_inputs(task: &LinkedTask, inputs: &Inputs, journal: &Journal) -> Result<(), HandlerError> {
    for input in inputs.page("").await? {
        let result = input.result.as_ref().map(|result| result.decode::<i64>()).transpose();
        if result.map_or(true, |result| result.is_some_and(|id| id != input.job)) {
            journal.note('x', task.job, 0, "input", input.job);
        }
    }
    Ok(())
}

async fn end(
    task: &LinkedTask,
    entry: OpenEntry<'_>,
    client: &mut Client,
    context: &Context,
) -> Result<(), HandlerError> {
    let doomed = "select exists (select from torture.doomed where job = $1)";
    if client.query_one(doomed, &[&i64::try_from(task.job)?]).await?.get(0) {
        return Err("shall die".into());
    }
    apply(task, entry, client, context).await
}

/// Writes the effect of a job. A task with `once` is completed in the same transaction. One such transaction in a
/// hundred is rolled back.
pub async fn apply(
    task: &LinkedTask,
    mut entry: OpenEntry<'_>,
    client: &mut Client,
    context: &Context,
) -> Result<(), HandlerError> {
    let effect = "insert into torture.linked_applied values ($1, $2, $3)";
    let (number, attempt) = (i64::try_from(task.job)?, i32::try_from(context.attempt().number)?);
    if !task.once {
        client.execute(effect, &[&number, &attempt, &false]).await?;
        entry.succeeds();
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction.execute(effect, &[&number, &attempt, &true]).await?;
    add(task, &transaction, context).await?;
    context.complete_in(&transaction).await?;
    if fastrand::u8(0..100) == 0 {
        return Ok(transaction.rollback().await?);
    }
    // After the commit, other jobs may start. The journal must show the end of this attempt before.
    entry.succeeds();
    drop(entry);
    Ok(transaction.commit().await?)
}

/// Adds jobs to the workflow of a job, for which the job `report` waits, too.
async fn add(task: &LinkedTask, transaction: &Transaction<'_>, context: &Context) -> Result<(), HandlerError> {
    if task.adds == 0 {
        return Ok(());
    }
    let workflow = context.workflow().await?.ok_or("the job belongs to no workflow")?;
    let members = Members::new();
    for job in task.job + 1..=task.job + task.adds {
        transaction.execute("insert into torture.linked values ($1)", &[&i64::try_from(job)?]).await?;
        members.add(format!("added {job}"), &LinkedTask { job, once: true, adds: 0 }).before_any_end("report");
    }
    Ok(workflow.add(transaction, members).await?)
}
