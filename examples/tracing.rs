//! Tracing: a worker's events and spans, as a subscriber of `tracing` prints them.
//!
//! Run it: `cargo run --example tracing`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//!  INFO reveille::worker: worker started worker=… queues=[("tracing", 1)]
//!  INFO job{id=… kind="greet" queue="tracing" attempt=1 worker=…}: tracing: greeting name="world"
//!  INFO job{id=… kind="greet" queue="tracing" attempt=1 worker=…}: tracing: greeting name="nobody"
//!  WARN job{id=… attempt=1 …}: reveille::job: failed reason="failed" error="nobody is there" retry_in=10ms
//!  INFO job{id=… attempt=2 …}: tracing: greeting name="nobody"
//! ERROR job{id=… attempt=2 …}: reveille::job: dead id=… reason="failed" error="nobody is there"
//!  INFO reveille::worker: shutting down worker=… grace=30s
//!  INFO reveille::worker: worker stopped worker=…
//! ```
//!
//! The guide's pages: `docs/features/tracing.md`, `docs/reference/events.md`

mod common;

use std::time::Duration;

use reveille::job::RetryPolicy;
use reveille::{Job, Worker, enqueue};
use serde::{Deserialize, Serialize};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl Job for Greet {
    const KIND: &'static str = "greet";
    const QUEUE: &'static str = "tracing";
    const MAX_ATTEMPTS: u32 = 2;

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_millis(10))
    }
}

/// An event in a handler has the attempt's span around it, and so tells the job.
async fn greet(job: Greet) -> Result<(), &'static str> {
    tracing::info!(name = job.name, "greeting");
    if job.name == "nobody" { Err("nobody is there") } else { Ok(()) }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = Targets::new().with_target("reveille", Level::INFO).with_target("tracing", Level::INFO);
    tracing_subscriber::registry().with(filter).with(tracing_subscriber::fmt::layer().without_time()).init();

    let database = common::database().await?;
    let worker = Worker::builder(database.clone()).queue("tracing", 1).handle(greet).build()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.run_until(stopped));
    for name in ["world", "nobody"] {
        enqueue(&database, &Greet { name: name.into() }).await?.finished(&database).await?;
    }
    drop(stop);
    working.await??;
    Ok(())
}
