//! Many jobs at once: `enqueue_all` for some thousands, `copy_all` for a million, each in your transaction.
//!
//! Run it: `cargo run --example bulk`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! enqueue_all: 1000 jobs, of which 1 was there already
//! copy_all: 100000 jobs, … a second
//! after a rollback: 999 jobs
//! completed jobs: 999
//! ```
//!
//! The guide's page: `docs/jobs/enqueuing.md`

mod common;

use std::time::Instant;

use reveille::enqueue::{copy_all, enqueue_all};
use reveille::job::NewJob;
use reveille::{Job, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct SendIssue {
    reader: u32,
}

impl Job for SendIssue {
    const KIND: &'static str = "send_issue_in_bulk";
    const QUEUE: &'static str = "bulk";
}

async fn send_issue(_: SendIssue) {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let mut client = database.client().await?;

    // One statement, all or none. The last job has the unique key of the first.
    let jobs = (1..1000).chain([1]).map(|reader| NewJob::of(&SendIssue { reader })?.unique_by_payload());
    let jobs = jobs.collect::<reveille::Result<Vec<_>>>()?;
    let tx = client.transaction().await?;
    let enqueued = enqueue_all(&tx, &jobs).await?;
    tx.commit().await?;
    let held = enqueued.iter().filter(|job| job.existed).count();
    println!("enqueue_all: {} jobs, of which {held} was there already", enqueued.len());

    // A COPY returns no ids, and its jobs can have no unique keys.
    let jobs: Vec<SendIssue> = (1..=100_000).map(|reader| SendIssue { reader }).collect();
    let tx = client.transaction().await?;
    let began = Instant::now();
    let copied = copy_all(&tx, &jobs).await?;
    println!("copy_all: {copied} jobs, {:.0} a second", copied as f64 / began.elapsed().as_secs_f64());
    // This transaction changes its mind, so none of these jobs will run.
    tx.rollback().await?;
    println!("after a rollback: {} jobs", database.admin().backlog("bulk").await?.ready);

    let worker = Worker::builder(database.clone()).queue("bulk", 100).handle(send_issue).build()?;
    println!("completed jobs: {}", worker.run_until_drained().await?.completed);
    Ok(())
}
