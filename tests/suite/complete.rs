//! Completing a job in the handler's own transaction.

use std::time::Duration;

use reveille::{Context, Database, Job, RetryPolicy, State, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::{Running, TestDatabase, Told, database, start, telling, worker};

#[derive(Serialize, Deserialize)]
struct Charge {
    cents: i32,
}

impl Job for Charge {
    const KIND: &'static str = "charge";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_millis(1))
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn with_charges() -> TestDatabase {
    let database = database().await;
    database.run("create table charges (cents int)").await;
    database
}

async fn outcome(database: &TestDatabase) -> serde_json::Value {
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    database.until("select sum(completed) = 1 from reveille.counters").await;
    let row = "select jsonb_build_array(outcome, attempts, failures, errors -> 0 ->> 'error', (select sum(cents) from charges),
        (select count(*) from reveille.jobs), run_seconds >= 0 and wait_seconds >= 0 and worker > 0) from reveille.finished_jobs";
    database.value(row).await
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_and_completion_commit_together() {
    async fn charge(charge: Charge, State(database): State<Database>, context: Context) -> Result<(), Failed> {
        let mut client = database.client().await?;
        let tx = client.transaction().await?;
        tx.execute("insert into charges values ($1)", &[&charge.cents]).await?;
        context.complete_in(&tx).await?;
        assert!(context.complete_in(&tx).await.unwrap_err().is_invalid(), "once is enough");
        Ok(tx.commit().await?)
    }
    let database = with_charges().await;
    let worker = start(worker(&database).state(database.database.clone()).handle(charge));
    enqueue(&database.database, &Charge { cents: 7 }).await.unwrap();
    assert_eq!(outcome(&database).await, json!(["completed", 1, 0, null, 7, 0, true]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_completion_is_a_failed_attempt_without_effects() {
    async fn charge(charge: Charge, State(database): State<Database>, context: Context) -> Result<(), Failed> {
        let mut client = database.client().await?;
        let tx = client.transaction().await?;
        tx.execute("insert into charges values ($1)", &[&charge.cents]).await?;
        context.complete_in(&tx).await?;
        if context.attempt().number > 1 {
            tx.commit().await?;
        }
        Ok(())
    }
    let database = with_charges().await;
    let worker = start(worker(&database).state(database.database.clone()).handle(charge));
    enqueue(&database.database, &Charge { cents: 7 }).await.unwrap();
    let error = "the transaction that completed it was rolled back";
    assert_eq!(outcome(&database).await, json!(["completed", 2, 1, error, 7, 0, true]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_done_whatever_its_handler_says() {
    async fn charge(charge: Charge, State(database): State<Database>, context: Context) -> Result<(), Failed> {
        let mut client = database.client().await?;
        let tx = client.transaction().await?;
        tx.execute("insert into charges values ($1)", &[&charge.cents]).await?;
        context.complete_in(&tx).await?;
        tx.commit().await?;
        Err("something else".into())
    }
    let database = with_charges().await;
    let worker = start(worker(&database).state(database.database.clone()).handle(charge));
    enqueue(&database.database, &Charge { cents: 7 }).await.unwrap();
    assert_eq!(outcome(&database).await, json!(["completed", 1, 0, null, 7, 0, true]));
    worker.stop().await;
}

/// A worker whose handler completes its job in a transaction that somebody else has still to commit.
fn leaves_open(database: &TestDatabase, told: Told, go_on: std::sync::Arc<tokio::sync::Notify>) -> Running {
    async fn charge(
        charge: Charge,
        State(database): State<Database>,
        State(told): State<Told>,
        State(go_on): State<std::sync::Arc<tokio::sync::Notify>>,
        context: Context,
    ) -> Result<(), Failed> {
        let (done, completed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut client = database.client().await.unwrap();
            let tx = client.transaction().await.unwrap();
            tx.execute("insert into charges values ($1)", &[&charge.cents]).await.unwrap();
            context.complete_in(&tx).await.unwrap();
            done.send(()).unwrap();
            go_on.notified().await;
            tx.commit().await.unwrap();
        });
        completed.await?;
        told.tell("returned");
        Ok(())
    }
    start(worker(database).state(database.database.clone()).state(told).state(go_on).handle(charge))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_still_open_is_waited_for() {
    let database = with_charges().await;
    let (told, mut heard) = telling();
    let go_on = std::sync::Arc::new(tokio::sync::Notify::new());
    let worker = leaves_open(&database, told, go_on.clone());
    enqueue(&database.database, &Charge { cents: 7 }).await.unwrap();
    assert_eq!(heard.next().await, "returned");
    // Another job goes its way meanwhile.
    enqueue(&database.database, &Charge { cents: 0 }).await.unwrap();
    assert_eq!(heard.next().await, "returned");
    assert_eq!(database.value("select count(*) from reveille.jobs where reserved_at is not null").await, 2);
    go_on.notify_one();
    database.until("select count(*) = 1 from reveille.jobs").await;
    go_on.notify_one();
    database.until("select sum(completed) = 2 from reveille.counters").await;
    assert_eq!(database.value("select sum(cents) from charges").await, 7);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_no_longer_the_workers_cannot_be_completed() {
    async fn charge(charge: Charge, State(database): State<Database>, State(told): State<Told>, context: Context) {
        let mut client = database.client().await.unwrap();
        // As if it had been rescued and claimed by another worker meanwhile.
        client.execute("update reveille.jobs set attempts = attempts + 1, reserved_by = 7", &[]).await.unwrap();
        let tx = client.transaction().await.unwrap();
        tx.execute("insert into charges values ($1)", &[&charge.cents]).await.unwrap();
        let error = context.complete_in(&tx).await.unwrap_err();
        told.tell(if error.is_lost() { "lost".into() } else { error.to_string() });
    }
    let database = with_charges().await;
    let (told, mut heard) = telling();
    let worker = start(worker(&database).state(database.database.clone()).state(told).handle(charge));
    enqueue(&database.database, &Charge { cents: 7 }).await.unwrap();
    assert_eq!(heard.next().await, "lost");
    worker.stop().await;
    assert_eq!(
        database.value("select (select count(*) from charges) + (select count(*) from reveille.finished_jobs)").await,
        0
    );
}
