//! Failures and retries: a retry policy, a snooze, a dead job, and a revival with a repaired payload.
//!
//! Run it: `cargo run --example retries`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! retries come after 100ms, 200ms, 400ms
//! flaky.example: attempt 1, failures 0
//! flaky.example: attempt 2, failures 1
//! flaky.example: attempt 3, failures 2
//! flaky.example is completed; the last error was "no answer"
//! busy.example: attempt 1, failures 0
//! busy.example: attempt 2, failures 0
//! busy.example is completed; no attempt failed
//! busy,example: attempt 1, failures 0
//! busy,example: attempt 2, failures 1
//! busy,example: attempt 3, failures 2
//! busy,example is dead; the last error was "no such host"
//! good.example: attempt 4, failures 0
//! good.example is completed; the last error was "no such host"
//! ```
//!
//! The guide's pages: `docs/jobs/errors.md`, `docs/jobs/dead-jobs.md`

mod common;

use std::time::Duration;

use reveille::admin::Retried;
use reveille::job::RetryPolicy;
use reveille::{Attempt, Database, Job, Outcome, Worker, enqueue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Call {
    host: String,
}

impl Job for Call {
    const KIND: &'static str = "call";
    const QUEUE: &'static str = "retries";
    const MAX_ATTEMPTS: u32 = 3;

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(60)).jitter(0.0)
    }
}

/// An error is a failure. A snooze is none: the host has asked for a call at a later time.
async fn call(job: Call, attempt: Attempt) -> Result<Outcome, &'static str> {
    println!("{}: attempt {}, failures {}", job.host, attempt.number, attempt.failures);
    match job.host.as_str() {
        "flaky.example" if attempt.number < 3 => Err("no answer"),
        "busy.example" if attempt.number == 1 => Ok(Outcome::Snooze(Duration::from_millis(100))),
        host if !host.ends_with(".example") => Err("no such host"),
        _ => Ok(Outcome::Complete),
    }
}

/// Waits until the job has ended, however many attempts that takes.
async fn report(database: &Database, host: &str, id: i64) -> Result<(), Box<dyn std::error::Error>> {
    let job = database.finished(id).await?.ok_or("the job is known")?;
    match job.last_error() {
        Some(error) => println!("{host} is {}; the last error was {error:?}", job.state),
        None => println!("{host} is {}; no attempt failed", job.state),
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let delays = [1, 2, 3].map(|failures| format!("{:?}", Call::retry_policy().delay(failures)));
    println!("retries come after {}", delays.join(", "));

    let worker = Worker::builder(database.clone()).queue("retries", 4).handle(call).build()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.run_until(stopped));
    let mut id = 0;
    for host in ["flaky.example", "busy.example", "busy,example"] {
        id = enqueue(&database, &Call { host: host.into() }).await?.id;
        report(&database, host, id).await?;
    }

    // The last job is dead. Its payload is repaired in SQL, and the job gets its full number of attempts again.
    let client = database.client().await?;
    let repair = "update reveille.dead_jobs set payload = '{\"host\": \"good.example\"}' where id = $1";
    client.execute(repair, &[&id]).await?;
    if database.admin().retry(id).await? == Retried::Revived {
        report(&database, "good.example", id).await?;
    }
    drop(stop);
    working.await??;
    Ok(())
}
