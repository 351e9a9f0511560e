//! Exactly-once effects: a handler completes its job in the transaction that writes the effect.
//!
//! Each handler here writes a charge, and panics in its first attempt. The handler without `complete_in` then writes a
//! second charge. The handler with `complete_in` writes one charge, wherever it panics.
//!
//! Run it: `cargo run --example exactly_once`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! a handler panics after its commit
//! a handler panics after its commit
//! a handler panics before its commit
//! without complete_in, a panic after the commit: charges 2
//! with complete_in, a panic after the commit: charges 1
//! with complete_in, a panic before the commit: charges 1
//! ```
//!
//! The guide's page: `docs/jobs/idempotence.md`

mod common;

use std::time::Duration;

use reveille::job::RetryPolicy;
use reveille::{Attempt, Context, Database, Job, State, Worker, enqueue};
use serde::{Deserialize, Serialize};

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[derive(Serialize, Deserialize)]
struct ChargePlainly {
    account: String,
}

impl Job for ChargePlainly {
    const KIND: &'static str = "charge_plainly";
    const QUEUE: &'static str = "exactly_once";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::ZERO)
    }
}

#[derive(Serialize, Deserialize)]
struct Charge {
    account: String,
    panics_after_commit: bool,
}

impl Job for Charge {
    const KIND: &'static str = "charge";
    const QUEUE: &'static str = "exactly_once";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::ZERO)
    }
}

const CHARGE: &str = "insert into example_charges (account) values ($1)";

async fn charge_plainly(job: ChargePlainly, State(database): State<Database>, attempt: Attempt) -> Result<(), Failed> {
    database.client().await?.execute(CHARGE, &[&job.account]).await?;
    assert!(attempt.number > 1, "after its commit");
    Ok(())
}

async fn charge(job: Charge, State(database): State<Database>, context: Context) -> Result<(), Failed> {
    let panics = context.attempt().number == 1;
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    tx.execute(CHARGE, &[&job.account]).await?;
    context.complete_in(&tx).await?;
    assert!(!panics || job.panics_after_commit, "before its commit");
    tx.commit().await?;
    assert!(!panics, "after its commit");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::panic::set_hook(Box::new(|panic| println!("a handler panics {}", panic.payload_as_str().unwrap_or_default())));
    let database = common::database().await?;
    let client = database.client().await?;
    client.batch_execute("drop table if exists example_charges; create table example_charges (account text)").await?;

    let plain = "without complete_in, a panic after the commit";
    let after = "with complete_in, a panic after the commit";
    let before = "with complete_in, a panic before the commit";
    enqueue(&client, &ChargePlainly { account: plain.into() }).await?;
    enqueue(&client, &Charge { account: after.into(), panics_after_commit: true }).await?;
    enqueue(&client, &Charge { account: before.into(), panics_after_commit: false }).await?;

    let worker = Worker::builder(database.clone()).queue("exactly_once", 1).state(database.clone());
    worker.handle(charge_plainly).handle(charge).build()?.run_until_drained().await?;
    for account in [plain, after, before] {
        let count = "select count(*) from example_charges where account = $1";
        let charges: i64 = client.query_one(count, &[&account]).await?.get(0);
        println!("{account}: charges {charges}");
    }
    Ok(())
}
