//! Durable steps: a handler charges once although its first attempt fails, sleeps, and waits for an event.
//!
//! Run it: `cargo run --example steps`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! attempt 1: charging 990 cents, with the key …-charge
//! attempt 2: sending the receipt of charge 7
//! attempt 3: waiting for the parcel
//! attempt 4: the parcel has come, signed by Ada
//! ```
//!
//! The guide's pages: `docs/features/steps.md`, `docs/features/events.md`

mod common;

use std::time::Duration;

use reveille::enqueue::emit;
use reveille::job::RetryPolicy;
use reveille::{Context, Job, Worker, enqueue};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

#[derive(Serialize, Deserialize)]
struct Checkout {
    cents: i64,
}

impl Job for Checkout {
    const KIND: &'static str = "checkout";
    const QUEUE: &'static str = "steps";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_millis(10))
    }
}

#[derive(Serialize, Deserialize)]
struct Arrived {
    signed_by: String,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn charge(attempt: u32, key: String, cents: i64) -> Result<i64, Failed> {
    println!("attempt {attempt}: charging {cents} cents, with the key {key}");
    Ok(7)
}

async fn send_receipt(attempt: u32, charge: i64) -> Result<(), Failed> {
    if attempt == 1 {
        return Err("the mail server is away".into());
    }
    println!("attempt {attempt}: sending the receipt of charge {charge}");
    Ok(())
}

async fn checkout(job: Checkout, context: Context) -> Result<(), Failed> {
    let attempt = context.attempt().number;
    let charged = context.step("charge", async |key| charge(attempt, key, job.cents).await).await?;
    context.step("receipt", async |_| send_receipt(attempt, charged).await).await?;
    context.sleep("cooling off", Duration::from_millis(100)).await?;
    if attempt == 3 {
        println!("attempt {attempt}: waiting for the parcel");
    }
    let limit = Duration::from_secs(30 * 24 * 3600);
    if let Some(arrived) = context.wait_for::<Arrived>(format!("arrived:{}", context.id()), limit).await? {
        println!("attempt {attempt}: the parcel has come, signed by {}", arrived.signed_by);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let database = common::database().await?;
    let worker = Worker::builder(database.clone()).queue("steps", 4).handle(checkout).build()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.run_until(stopped));

    let job = enqueue(&database, &Checkout { cents: 990 }).await?;
    // The event may come at any time. This program waits until the job does, so that the lines are always the same.
    let client = database.client().await?;
    let waits = "select from reveille.waits where job = $1";
    while client.query(waits, &[&job.id]).await?.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    emit(&database, format!("arrived:{}", job.id), &Arrived { signed_by: "Ada".into() }).await?;
    job.finished(&database).await?;
    drop(stop);
    working.await??;
    Ok(())
}
