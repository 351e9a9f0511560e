//! Unique jobs: what a second enqueue with the same unique key does, and until when a job holds its unique key.
//!
//! Run it: `cargo run --example unique`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! the first enqueue: a new job
//! keep: the same job, draft 1, due in 10 min
//! replace: the same job, draft 3, due in 10 min
//! debounce: the same job, draft 4, due in 60 min
//! another page: a new job
//! once the job has ended: a new job
//! the same payload: the same job, draft 1, due in 0 min
//! within the period, once the job has ended: the same job
//! ```
//!
//! The guide's page: `docs/features/unique.md`

mod common;

use std::time::Duration;

use reveille::job::{Enqueued, UniqueMode};
use reveille::{Database, Job, Worker, enqueue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Rebuild {
    page: String,
    draft: u32,
}

impl Job for Rebuild {
    const KIND: &'static str = "rebuild";
    const QUEUE: &'static str = "unique";
}

async fn rebuild(_: Rebuild) {}

/// Prints whether the job is new. For a job that waits, prints its present draft and due time.
async fn report(what: &str, database: &Database, enqueued: Enqueued) -> Result<(), Box<dyn std::error::Error>> {
    let which = if enqueued.existed { "the same job" } else { "a new job" };
    let row = database.admin().job(enqueued.id).await?.ok_or("the job is known")?;
    match (row.available_at, row.created_at) {
        (Some(due), Some(created)) if enqueued.existed && row.state.is_waiting() => {
            let draft = row.payload().decode::<Rebuild>()?.draft;
            let minutes = due.duration_since(created)?.as_secs_f64() / 60.0;
            println!("{what}: {which}, draft {draft}, due in {minutes:.0} min");
        }
        _ => println!("{what}: {which}"),
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let worker = Worker::builder(database.clone()).queue("unique", 4).handle(rebuild).build()?;
    // A key of this process, so that the example does the same whenever it runs.
    let page = format!("page {}", std::process::id());
    let draft = |draft| Rebuild { page: page.clone(), draft };
    let (minutes, hour) = (Duration::from_secs(600), Duration::from_secs(3600));

    let first = enqueue(&database, &draft(1)).unique_key(&page).delay(minutes).await?;
    report("the first enqueue", &database, first).await?;
    let kept = enqueue(&database, &draft(2)).unique_key(&page).await?;
    report("keep", &database, kept).await?;
    let replaced = enqueue(&database, &draft(3)).unique_key(&page).unique_mode(UniqueMode::Replace).await?;
    report("replace", &database, replaced).await?;
    let later = enqueue(&database, &draft(4)).unique_key(&page).unique_mode(UniqueMode::Debounce).delay(hour).await?;
    report("debounce", &database, later).await?;
    let other = enqueue(&database, &draft(1)).unique_key(format!("{page}, the next")).await?;
    report("another page", &database, other).await?;

    // By default, a job holds its unique key until it has ended: completed, cancelled or dead.
    database.admin().cancel(first.id).await?;
    report("once the job has ended", &database, enqueue(&database, &draft(5)).unique_key(&page).await?).await?;

    enqueue(&database, &draft(1)).unique_by_payload().unique_for(hour).await?;
    report("the same payload", &database, enqueue(&database, &draft(1)).unique_by_payload().await?).await?;
    worker.run_until_drained().await?;
    let again = enqueue(&database, &draft(1)).unique_by_payload().await?;
    report("within the period, once the job has ended", &database, again).await
}
