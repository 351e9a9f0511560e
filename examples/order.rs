//! Order: in an ordered queue, jobs with the same key run one at a time, in the order in which they were enqueued.
//!
//! The first edit of one document fails, and is tried again later. The further edits of that document wait for it. The
//! edits of the other document do not.
//!
//! Run it: `cargo run --example order`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! the letter: edit 1 fails, edit 1, edit 2, edit 3
//! the poem: edit 1, edit 2, edit 3
//! the poem was finished first: true
//! ```
//!
//! The guide's page: `docs/features/order.md`

mod common;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reveille::admin::QueueSettings;
use reveille::enqueue::enqueue_all;
use reveille::job::{NewJob, RetryPolicy};
use reveille::{Attempt, Job, State, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Edit {
    document: String,
    edit: u32,
}

impl Job for Edit {
    const KIND: &'static str = "edit";
    const QUEUE: &'static str = "order";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_secs(1))
    }
}

/// What the handler has done: documents and edits.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, String)>>>);

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn edit(job: Edit, State(log): State<Log>, attempt: Attempt) -> Result<(), &'static str> {
    let fails = job.document == "the letter" && job.edit == 1 && attempt.number == 1;
    let done = format!("edit {}{}", job.edit, if fails { " fails" } else { "" });
    log.lines().push((job.document, done));
    if fails { Err("the letter is locked") } else { Ok(()) }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    database.admin().set_queue("order", QueueSettings::new().ordered(true)).await?;
    let log = Log::default();
    let worker = Worker::builder(database.clone()).queue("order", 8).state(log.clone()).handle(edit).build()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.run_until(stopped));

    let mut jobs = Vec::new();
    for document in ["the letter", "the poem"] {
        for edit in 1..=3 {
            jobs.push(NewJob::of(&Edit { document: document.into(), edit })?.key(document));
        }
    }
    for job in enqueue_all(&database, &jobs).await? {
        job.finished(&database).await?;
    }
    drop(stop);
    working.await??;

    let lines = log.lines();
    for document in ["the letter", "the poem"] {
        let edits: Vec<&str> = lines.iter().filter(|(of, _)| of == document).map(|(_, edit)| edit.as_str()).collect();
        println!("{document}: {}", edits.join(", "));
    }
    println!("the poem was finished first: {}", lines.last().is_some_and(|(document, _)| document == "the letter"));
    Ok(())
}
