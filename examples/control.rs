//! Live control: a program pauses a queue, resumes it, waits until it is drained, and stops its worker.
//!
//! The administrator has a separate connection, and could be any program that reaches the database, such as the command
//! `reveille` or psql.
//!
//! Run it: `cargo run --example control`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! paused: true, ready: 3, running: 0, workers: 1
//! the handler works
//! the handler works
//! the handler works
//! drained: true
//! the worker of ["control"] is asked to stop: true
//! the worker has ended
//! ```
//!
//! The guide's page: `docs/features/control.md`

mod common;

use std::time::Duration;

use reveille::enqueue::enqueue_all;
use reveille::{Job, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Step;

impl Job for Step {
    const KIND: &'static str = "step";
    const QUEUE: &'static str = "control";
}

async fn step(_: Step) {
    println!("the handler works");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let admin = common::database().await?.admin();
    admin.pause("control").await?;
    let worker = Worker::builder(database.clone()).queue("control", 1).handle(step).build()?;
    let id = worker.id();
    // This worker runs until the administrator stops it.
    let working = tokio::spawn(worker.run_until(std::future::pending::<()>()));
    enqueue_all(&database, &[Step, Step, Step]).await?;

    // The worker is listed once it has started.
    let worker = loop {
        match admin.workers().await?.into_iter().find(|worker| worker.id == id) {
            Some(worker) => break worker,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let left = admin.backlog("control").await?;
    println!("paused: {}, ready: {}, running: {}, workers: {}", left.paused, left.ready, left.running, left.workers);

    admin.resume("control").await?;
    let draining = admin.wait_until_drained("control", |_left| ());
    let left = tokio::time::timeout(Duration::from_secs(60), draining).await??;
    println!("drained: {}", left.is_drained());

    let stops = admin.stop_worker(worker.id).await?;
    println!("the worker of {:?} is asked to stop: {stops}", worker.queues);
    working.await??;
    println!("the worker has ended");
    Ok(())
}
