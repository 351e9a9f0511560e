//! A handler completes its job in the handler's own transaction.

use std::time::Duration;

use reveille::{Context, Database, Job, State, enqueue, job::RetryPolicy};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::{Reporter, Running, TestDatabase, database, eventually, reporting, start, worker};
use crate::tracing::EventLog;

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
    let row = "select jsonb_build_array(outcome, attempts, failures, errors -> 0 ->> 'error', \
        (select sum(cents) from charges),
        (select count(*) from reveille.jobs), run_seconds >= 0 and wait_seconds >= 0 and worker > 0)
        from reveille.finished_jobs";
    database.value(row).await
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_and_completion_commit_together() {
    async fn charge(charge: Charge, State(database): State<Database>, context: Context) -> Result<(), Failed> {
        let mut client = database.client().await?;
        let tx = client.transaction().await?;
        tx.execute("insert into charges values ($1)", &[&charge.cents]).await?;
        context.complete_in(&tx).await?;
        assert!(context.complete_in(&tx).await.unwrap_err().is_invalid(), "a job can be completed only once");
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
    let error = "the transaction that completed the job was rolled back";
    assert_eq!(outcome(&database).await, json!(["completed", 2, 1, error, 7, 0, true]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_completion_stands_if_the_handler_then_fails() {
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

/// Starts a worker whose handler returns while the transaction that completes the job is still open.
fn leaves_open(database: &TestDatabase, reporter: Reporter, go_on: std::sync::Arc<tokio::sync::Notify>) -> Running {
    async fn charge(
        charge: Charge,
        State(database): State<Database>,
        State(reporter): State<Reporter>,
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
        reporter.report("returned");
        Ok(())
    }
    start(worker(database).state(database.database.clone()).state(reporter).state(go_on).handle(charge))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stays_reserved_while_its_transaction_is_open() {
    let database = with_charges().await;
    let (reporter, mut reports) = reporting();
    let go_on = std::sync::Arc::new(tokio::sync::Notify::new());
    let worker = leaves_open(&database, reporter, go_on.clone());
    enqueue(&database.database, &Charge { cents: 7 }).await.unwrap();
    assert_eq!(reports.next().await, "returned");
    // Runs another job while the first job's transaction is open.
    enqueue(&database.database, &Charge { cents: 0 }).await.unwrap();
    assert_eq!(reports.next().await, "returned");
    assert_eq!(database.value("select count(*) from reveille.jobs where reserved_at is not null").await, 2);
    go_on.notify_one();
    database.until("select count(*) = 1 from reveille.jobs").await;
    go_on.notify_one();
    database.until("select sum(completed) = 2 from reveille.counters").await;
    assert_eq!(database.value("select sum(cents) from charges").await, 7);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_taken_from_its_worker_cannot_be_completed() {
    async fn charge(
        charge: Charge,
        State(database): State<Database>,
        State(reporter): State<Reporter>,
        context: Context,
    ) {
        let mut client = database.client().await.unwrap();
        // Changes the reservation as if the job had been rescued and claimed by another worker.
        client.execute("update reveille.jobs set attempts = attempts + 1, reserved_by = 7", &[]).await.unwrap();
        let tx = client.transaction().await.unwrap();
        tx.execute("insert into charges values ($1)", &[&charge.cents]).await.unwrap();
        let error = context.complete_in(&tx).await.unwrap_err();
        reporter.report(if error.is_lost() { "lost".into() } else { error.to_string() });
    }
    let database = with_charges().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(database.database.clone()).state(reporter).handle(charge));
    enqueue(&database.database, &Charge { cents: 7 }).await.unwrap();
    assert_eq!(reports.next().await, "lost");
    worker.stop().await;
    assert_eq!(
        database.value("select (select count(*) from charges) + (select count(*) from reveille.finished_jobs)").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serialization_failure_can_be_retried_in_the_same_attempt() {
    async fn charge(charge: Charge, State(database): State<Database>, context: Context) -> Result<(), Failed> {
        let mut client = database.client().await?;
        for round in 0.. {
            let serializable = tokio_postgres::IsolationLevel::Serializable;
            let tx = client.build_transaction().isolation_level(serializable).start().await?;
            let sum: i64 = tx.query_one("select coalesce(sum(cents), 0) from charges", &[]).await?.get(0);
            tx.execute("insert into charges values ($1)", &[&charge.cents]).await?;
            context.complete_in(&tx).await?;
            if round == 0 {
                // A rival transaction reads the same rows, and commits first.
                let mut other = database.client().await?;
                let rival = other.build_transaction().isolation_level(serializable).start().await?;
                rival.query_one("select sum(cents) from charges", &[]).await?;
                rival.execute("insert into charges values (100)", &[]).await?;
                rival.commit().await?;
            }
            match tx.commit().await {
                Ok(()) => {
                    assert_eq!((round, sum), (1, 100));
                    return Ok(());
                }
                Err(error) => assert_eq!(error.code().unwrap().code(), "40001"),
            }
        }
        unreachable!()
    }
    let database = with_charges().await;
    let worker = start(worker(&database).state(database.database.clone()).handle(charge));
    enqueue(&database.database, &Charge { cents: 7 }).await.unwrap();
    assert_eq!(outcome(&database).await, json!(["completed", 1, 0, null, 107, 0, true]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_can_be_repeated_after_a_rollback() {
    async fn charge(charge: Charge, State(database): State<Database>, context: Context) -> Result<(), Failed> {
        let (mut client, mut other) = (database.client().await?, database.client().await?);
        let dropped = client.transaction().await?;
        context.complete_in(&dropped).await?;
        let second = other.transaction().await?;
        let refused = context.complete_in(&second).await.unwrap_err();
        assert!(refused.is_invalid() && refused.to_string().contains("still open"), "{refused}");
        drop(dropped);
        drop(second);
        let mut tx = other.transaction().await?;
        let savepoint = tx.savepoint("once").await?;
        context.complete_in(&savepoint).await?;
        savepoint.rollback().await?;
        tx.execute("insert into charges values ($1)", &[&charge.cents]).await?;
        context.complete_in(&tx).await?;
        tx.commit().await?;
        let third = client.transaction().await?;
        assert!(context.complete_in(&third).await.unwrap_err().is_invalid(), "the job is already completed");
        Ok(())
    }
    let database = with_charges().await;
    let worker = start(worker(&database).state(database.database.clone()).handle(charge));
    enqueue(&database.database, &Charge { cents: 7 }).await.unwrap();
    assert_eq!(outcome(&database).await, json!(["completed", 1, 0, null, 7, 0, true]));
    worker.stop().await;
}

/// Completes its job by the SQL function, as a program in any language does. Fails afterwards if it charges nothing.
async fn completes_in_sql(charge: Charge, State(database): State<Database>, context: Context) -> Result<(), Failed> {
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    tx.execute("insert into charges values ($1)", &[&charge.cents]).await?;
    let complete = "select reveille.complete_in(id, reserved_by, attempts, reserved_at, 0) is not null
        from reveille.jobs where id = $1 and attempts = $2";
    let attempt = context.attempt().number as i32;
    assert!(tx.query_one(complete, &[&context.id(), &attempt]).await?.get::<_, bool>(0));
    tx.commit().await?;
    if charge.cents == 0 { Err("something else".into()) } else { Ok(()) }
}

async fn charge_by_sql(retention: &str) {
    let (events, _guard) = EventLog::start();
    let database = with_charges().await;
    database.run(&format!("insert into reveille.queues (name, retention) values ('default', {retention})")).await;
    let worker = start(worker(&database).state(database.database.clone()).handle(completes_in_sql));
    for cents in [7, 0] {
        let id = enqueue(&database.database, &Charge { cents }).await.unwrap().id.to_string();
        eventually("the job is counted", async || events.count("job.completed_in_sql", "id", &id) == 1).await;
        assert_eq!(events.count("job.lost", "id", &id), 0);
    }
    let totals = "select to_jsonb(array[completed, failed]) from reveille.queue_totals where queue = 'default'";
    database.until("select sum(completed) = 2 from reveille.queue_totals where queue = 'default'").await;
    assert_eq!(database.value(totals).await, json!([2, 0]));
    assert_eq!(database.value("select sum(cents) from charges").await, 7);
    worker.stop().await;

    let inline =
        crate::harness::worker(&database).state(database.database.clone()).handle(completes_in_sql).build().unwrap();
    enqueue(&database.database, &Charge { cents: 0 }).await.unwrap();
    assert_eq!(inline.run_until_drained().await.unwrap().completed, 1);
    assert_eq!(database.value(totals).await, json!([3, 0]));
}

#[tokio::test]
async fn a_job_that_its_program_completed_in_sql_is_counted_and_not_lost() {
    charge_by_sql("'1 day'").await;
}

#[tokio::test]
async fn a_job_completed_in_sql_is_counted_where_no_history_is_kept() {
    charge_by_sql("'0'").await;
}

#[tokio::test]
async fn a_job_completed_by_another_worker_is_lost_and_counts_once() {
    async fn is_taken(_: Charge, State(database): State<Database>, context: Context) {
        let mut client = database.client().await.unwrap();
        let tx = client.transaction().await.unwrap();
        tx.execute("update reveille.jobs set reserved_by = 7 where id = $1", &[&context.id()]).await.unwrap();
        let complete = "select reveille.complete_in(id, 7, attempts, reserved_at, 0) from reveille.jobs where id = $1";
        tx.query_one(complete, &[&context.id()]).await.unwrap();
        tx.commit().await.unwrap();
    }
    let (events, _guard) = EventLog::start();
    let database = with_charges().await;
    let worker = start(worker(&database).state(database.database.clone()).handle(is_taken));
    let id = enqueue(&database.database, &Charge { cents: 7 }).await.unwrap().id.to_string();
    eventually("the job is lost", async || events.count("job.lost", "id", &id) == 1).await;
    worker.stop().await;
    assert_eq!(database.value("select count(*) from reveille.counters").await, 0, "the other worker counts the job");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_search_path_does_not_affect_a_completion() {
    let database = with_charges().await;
    let traps = "create schema traps;
        create function traps.pg_current_xact_id() returns xid8 language plpgsql
            as $$ begin raise exception 'the trap was sprung'; end $$;
        create function traps.clock_timestamp() returns timestamptz language plpgsql
            as $$ begin raise exception 'the trap was sprung'; end $$;
        insert into reveille.jobs (kind, awaited, attempts, reserved_by, reserved_at)
        values ('held', true, 1, 7, 'epoch')";
    database.run(traps).await;
    let complete =
        "set search_path = traps, pg_catalog; select reveille.complete_in(id, 7, 1, 'epoch', 0) from reveille.jobs";
    database.run(complete).await;
    assert_eq!(database.value("select outcome from reveille.finished_jobs").await, "completed");
}
