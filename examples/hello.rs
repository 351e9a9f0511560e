//! The smallest worker: one kind of job, enqueued and worked in one process.
//!
//! Run it: `cargo run --example hello`. It works until Ctrl-C. With a server of yours at `DATABASE_URL`, enqueue more
//! jobs from another terminal:
//! `psql "$DATABASE_URL" -c "select * from reveille.enqueue(kind => 'hello', payload => '{\"name\": \"you\"}')"`.
//! It prints:
//!
//! ```text
//! working until Ctrl-C
//! hello, world (attempt 1)
//! ```
//!
//! The guide's page: `docs/start/first-worker.md`

mod common;

use reveille::{Attempt, Job, Worker, enqueue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Hello {
    name: String,
}

impl Job for Hello {
    const KIND: &'static str = "hello";
}

async fn hello(job: Hello, attempt: Attempt) {
    println!("hello, {} (attempt {})", job.name, attempt.number);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Connects to `DATABASE_URL` or to a throw-away server, and migrates.
    let database = common::database().await?;
    enqueue(&database, &Hello { name: "world".into() }).await?;

    println!("working until Ctrl-C");
    let worker = Worker::builder(database).handle(hello).build()?;
    worker.run_until(tokio::signal::ctrl_c()).await?;
    Ok(())
}
