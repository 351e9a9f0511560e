//! Results and progress: a program enqueues a job, watches its progress, and waits for its result.
//!
//! Run it: `cargo run --example results`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! counting: … of 3 lines are done
//! completed: 10 words
//! dead: job … is dead: there is nothing to count
//! not ended within 50 ms
//! ```
//!
//! The guide's page: `docs/features/results.md`

mod common;

use std::time::Duration;

use reveille::job::Completed;
use reveille::{Context, Job, Worker, enqueue};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

#[derive(Serialize, Deserialize)]
struct Count {
    lines: Vec<String>,
}

impl Job for Count {
    const KIND: &'static str = "count";
    const QUEUE: &'static str = "results";
    const MAX_ATTEMPTS: u32 = 1;
}

#[derive(Serialize, Deserialize)]
struct Progress {
    done: usize,
    of: usize,
}

#[derive(Serialize, Deserialize)]
struct Counted {
    words: usize,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn count(job: Count, context: Context) -> Result<Completed<Counted>, Failed> {
    let (mut words, of) = (0, job.lines.len());
    for (done, line) in job.lines.iter().enumerate() {
        // At most two reports a second are written, and the latest report in any case.
        context.progress(&Progress { done, of }).await?;
        sleep(Duration::from_millis(100)).await;
        words += line.split_whitespace().count();
    }
    if words == 0 { Err("there is nothing to count".into()) } else { Ok(Completed(Counted { words })) }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let worker = Worker::builder(database.clone()).queue("results", 4).handle(count).build()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.run_until(stopped));

    let lines = ["to be or not to be", "that is", "the question"].map(str::to_owned).to_vec();
    let job = enqueue(&database, &Count { lines }).await?;
    let progress = loop {
        let row = database.admin().job(job.id).await?.ok_or("the job is known")?;
        match row.progress() {
            Some(progress) => break progress.decode::<Progress>()?,
            None => sleep(Duration::from_millis(10)).await,
        }
    };
    println!("counting: {} of {} lines are done", progress.done, progress.of);
    let ended = job.finished(&database).await?.ok_or("the job is known")?;
    println!("{}: {} words", ended.state, ended.decode::<Counted>()?.words);

    // The result of a dead job is its last error.
    let job = enqueue(&database, &Count { lines: Vec::new() }).await?;
    let ended = job.finished(&database).await?.ok_or("the job is known")?;
    if let Err(error) = ended.decode::<Counted>() {
        println!("{}: {error}", ended.state);
    }

    let job = enqueue(&database, &Count { lines: Vec::new() }).delay(Duration::from_secs(60)).await?;
    if timeout(Duration::from_millis(50), job.finished(&database)).await.is_err() {
        println!("not ended within 50 ms");
    }
    database.admin().cancel(job.id).await?;
    drop(stop);
    working.await??;
    Ok(())
}
