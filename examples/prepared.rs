//! Two-phase commit: a transaction that enqueues is prepared, and its job starts once another session has committed it.
//!
//! Run it: `cargo run --example prepared`, at `DATABASE_URL` or on a throw-away server. A server of yours needs
//! `max_prepared_transactions` above 0, which is not the default. It prints:
//!
//! ```text
//! prepared: the job is not visible yet
//! shipping order 7
//! committed: the job is completed
//! ```
//!
//! The guide's page: `docs/features/prepared.md`

mod common;

use std::time::Duration;

use reveille::{Job, Worker, enqueue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Ship {
    order: i64,
}

impl Job for Ship {
    const KIND: &'static str = "ship";
    const QUEUE: &'static str = "prepared";
}

async fn ship(job: Ship) {
    println!("shipping order {}", job.order);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    // Only the bell starts the job here: the next poll is an hour away.
    let worker = Worker::builder(database.clone()).queue("prepared", 4).poll_interval(Duration::from_secs(3600));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.handle(ship).build()?.run_until(stopped));

    // The name of a prepared transaction is unique in the whole server.
    let name = format!("example-{}", std::process::id());
    let client = database.client().await?;
    // Postgres refuses to prepare a transaction that has notified, so the bell is off in this transaction.
    client.batch_execute("begin; set local reveille.bell = 'off'").await?;
    let job = enqueue(&client, &Ship { order: 7 }).await?;
    client.batch_execute(&format!("prepare transaction '{name}'")).await?;
    if database.admin().job(job.id).await?.is_none() {
        println!("prepared: the job is not visible yet");
    }

    // The coordinator commits, in any session, and rings the bell of the queue.
    let coordinator = database.client().await?;
    coordinator.batch_execute(&format!("commit prepared '{name}'")).await?;
    coordinator.batch_execute("select pg_notify('reveille.bell', 'prepared')").await?;
    let ended = job.finished(&database).await?.ok_or("the job is known")?;
    println!("committed: the job is {}", ended.state);
    drop(stop);
    working.await??;
    Ok(())
}
