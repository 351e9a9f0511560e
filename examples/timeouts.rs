//! Timeouts, and cancelling a running job: a handler stops by its `Cancellation`, or is dropped.
//!
//! Run it: `cargo run --example timeouts`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! export of "large": asked to stop
//! "large" is dead: took longer than its timeout of 300ms: stopped before its last page
//! export of "deaf": dropped
//! "deaf" is dead: took longer than its timeout of 300ms
//! export of "unwanted": asked to stop
//! "unwanted" is cancelled
//! the cancel of "unwanted" was Requested
//! ```
//!
//! The guide's page: `docs/jobs/timeouts.md`

mod common;

use std::sync::Arc;
use std::time::Duration;

use reveille::enqueue::FinishedJob;
use reveille::handler::Cancellation;
use reveille::{Job, State, Worker, enqueue};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Serialize, Deserialize)]
struct Export {
    name: String,
}

impl Job for Export {
    const KIND: &'static str = "export";
    const QUEUE: &'static str = "timeouts";
    const MAX_ATTEMPTS: u32 = 1;
    const TIMEOUT: Option<Duration> = Some(Duration::from_millis(300));
}

/// Says so if its handler is dropped.
struct Exporting(String);

impl Drop for Exporting {
    fn drop(&mut self) {
        println!("export of {:?}: dropped", self.0);
    }
}

async fn export(job: Export, cancellation: Cancellation, started: State<Arc<Notify>>) -> Result<(), &'static str> {
    started.notify_one();
    if job.name == "deaf" {
        // This handler ignores its cancellation. Once more time has passed, as long as the timeout, it is dropped here.
        let _exporting = Exporting(job.name);
        return std::future::pending().await;
    }
    for _page in 0..10_000 {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
            () = cancellation.cancelled() => {
                println!("export of {:?}: asked to stop", job.name);
                return Err("stopped before its last page");
            }
        }
    }
    Ok(())
}

fn report(name: &str, ended: Option<FinishedJob>) {
    match ended {
        Some(job) if job.is_cancelled() => println!("{name:?} is cancelled"),
        Some(job) => println!("{name:?} is {}: {}", job.state, job.last_error().unwrap_or("no error")),
        None => println!("{name:?} is not known"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let started = Arc::new(Notify::new());
    let worker = Worker::builder(database.clone()).queue("timeouts", 4).state(Arc::clone(&started)).handle(export);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.build()?.run_until(stopped));

    for name in ["large", "deaf"] {
        let job = enqueue(&database, &Export { name: name.into() }).await?;
        started.notified().await;
        report(name, job.finished(&database).await?);
    }

    // This job has more time than its kind, until an administrator cancels it.
    let minute = Duration::from_secs(60);
    let job = enqueue(&database, &Export { name: "unwanted".into() }).timeout(minute).await?;
    started.notified().await;
    let cancelled = database.admin().cancel(job.id).await?;
    report("unwanted", job.finished(&database).await?);
    println!("the cancel of \"unwanted\" was {cancelled:?}");

    drop(stop);
    working.await??;
    Ok(())
}
