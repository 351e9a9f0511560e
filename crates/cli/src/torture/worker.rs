//! A worker process of the test. Its handlers act at random, and note their effects in the database and a journal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use deadpool_postgres::Client;
use reveille::{Context, Database, Job, State, Worker, handler::Cancellation, job::RetryPolicy};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::journal::{Journal, OpenEntry};
use super::queues::TestQueue;
use super::{linked, odd};
use crate::Outcome;
use crate::connection::Connection;

/// Creates the tables of enqueued jobs and of their effects.
pub const LEDGER: &str = "create schema torture;
    create table torture.enqueued (job bigint primary key);
    create table torture.applied (job bigint not null, attempt int not null, worker bigint not null);
    create table torture.applied_once (job bigint primary key);";

#[derive(Serialize, Deserialize)]
pub struct Task(pub u64);

impl Job for Task {
    const KIND: &'static str = "torture";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_millis(200))
    }
}

/// The longest time that a handler waits for an answer of the database.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The pause between a failed start and the next start.
const START_AGAIN: Duration = Duration::from_millis(200);

pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// One in `IDEMPOTENT` jobs has an effect that may be repeated, and the worker settles it. The handler completes each
/// other job in the transaction of its effect.
pub const IDEMPOTENT: u64 = 4;

/// Takes a random time, fails at random, or writes the job's effect. Most effects are written in the transaction that
/// completes the job.
async fn work(
    Task(job): Task,
    State(journal): State<Arc<Journal>>,
    State(database): State<Database>,
    context: Context,
    cancellation: Cancellation,
) -> Result<(), HandlerError> {
    let attempt = i32::try_from(context.attempt().number)?;
    let entry = journal.attempt(job, attempt);
    tokio::select! {
        outcome = run(job, attempt, entry, &database, &context) => outcome,
        // Ends the attempt, because another worker may soon run the job.
        () = cancellation.cancelled() => Err("cancelled".into()),
    }
}

async fn run(
    job: u64,
    attempt: i32,
    entry: OpenEntry<'_>,
    database: &Database,
    context: &Context,
) -> Result<(), HandlerError> {
    take_time().await;
    fail_at_random()?;
    let mut client = database.client().await?;
    let applied = timeout(ANSWER_WITHIN, apply(job, attempt, entry, &mut client, context)).await;
    answered(client, applied)
}

/// Takes the time of a handler: mostly less than 30 ms, sometimes seconds.
pub async fn take_time() {
    let milliseconds = match fastrand::u8(0..100) {
        0 => fastrand::u64(1000..3000),
        1..10 => fastrand::u64(50..300),
        _ => fastrand::u64(0..30),
    };
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Fails or panics, in 1 of 40 calls.
pub fn fail_at_random() -> Result<(), HandlerError> {
    match fastrand::u16(0..1000) {
        0..20 => Err("failed at random".into()),
        20..25 => std::panic::resume_unwind(Box::new("panicked at random")),
        _ => Ok(()),
    }
}

/// Returns what a handler has done with a connection within [`ANSWER_WITHIN`].
pub fn answered(client: Client, applied: Result<Result<(), HandlerError>, Elapsed>) -> Result<(), HandlerError> {
    applied.unwrap_or_else(|_| {
        // Takes the connection out of the pool, because the connection may never answer again.
        drop(deadpool_postgres::Object::take(client));
        Err("the database does not answer".into())
    })
}

/// Writes the effect of a job. Completes the job in the same transaction, unless the effect may be repeated. One
/// completing transaction in a hundred is rolled back.
async fn apply(
    job: u64,
    attempt: i32,
    entry: OpenEntry<'_>,
    client: &mut Client,
    context: &Context,
) -> Result<(), HandlerError> {
    if job.is_multiple_of(IDEMPOTENT) {
        let once = "insert into torture.applied_once values ($1) on conflict do nothing";
        client.execute(once, &[&i64::try_from(job)?]).await?;
        return Ok(());
    }
    let transaction = client.transaction().await?;
    let (number, worker) = (i64::try_from(job)?, context.job().reservation.worker);
    transaction.execute("insert into torture.applied values ($1, $2, $3)", &[&number, &attempt, &worker]).await?;
    context.complete_in(&transaction).await?;
    // Ends the attempt in the journal before the commit. After the commit, other jobs may start under the same limit,
    // and the journal must not show more attempts at once than the limit allows.
    drop(entry);
    if fastrand::u8(0..100) == 0 {
        return Ok(transaction.rollback().await?);
    }
    Ok(transaction.commit().await?)
}

#[derive(Args)]
pub struct TortureWorker {
    #[arg(long)]
    slots: usize,
    #[arg(long)]
    journal: PathBuf,
    #[arg(long, value_enum, value_delimiter = ',')]
    queues: Vec<TestQueue>,
}

impl TortureWorker {
    /// Works until the standard input of this process ends.
    pub async fn run(self, connection: &Connection) -> Outcome {
        let journal = Arc::new(Journal::open(&self.journal)?);
        loop {
            match self.work(connection, &journal).await {
                // Starts again, because a fault may have prevented the worker's start.
                Err(error) if !error.is_invalid() => tokio::time::sleep(START_AGAIN).await,
                ended => {
                    ended?;
                    // Exits at once, because the read of the standard input blocks a thread until the parent ends.
                    std::process::exit(0);
                }
            }
        }
    }

    async fn work(&self, connection: &Connection, journal: &Arc<Journal>) -> reveille::Result<()> {
        let database = Database::options(connection.url().map(str::to_owned)).connect().await?;
        let worker = Worker::builder(database.clone()).state(database);
        let worker = self.queues.iter().fold(worker, |worker, queue| worker.queue(queue.name(), self.slots));
        let parent_is_gone = async {
            let mut end = Vec::new();
            let _ = tokio::io::stdin().read_to_end(&mut end).await;
        };
        let worker = worker.state(Arc::clone(journal)).handle(work).handle(odd::work);
        let worker = worker.handle(linked::work).handle(linked::work_durable);
        worker.build()?.run_until(parent_is_gone).await
    }
}
