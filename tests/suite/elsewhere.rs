//! Handlers whose work goes on elsewhere, such as in another process: kept slots, limits of slots, outcomes of others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reveille::handler::KeptSlot;
use reveille::job::RetryPolicy;
use reveille::worker::SlotLimits;
use reveille::{Context, Outcome, Worker, enqueue};
use serde_json::json;

use crate::harness::{Reporter, TestDatabase, database, note, reporting, start, worker};

/// Builds a worker with one slot, which only the bell wakes.
fn one_slot(database: &TestDatabase) -> reveille::worker::WorkerBuilder {
    Worker::builder(database.database.clone()).queue("default", 1).poll_interval(Duration::from_secs(3600))
}

#[tokio::test]
async fn a_kept_slot_stays_occupied_after_its_attempt() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let kept: Arc<Mutex<Option<KeptSlot>>> = Arc::default();
    let keeping = Arc::clone(&kept);
    let handler = move |context: Context| {
        let (reporter, keeping) = (reporter.clone(), Arc::clone(&keeping));
        async move {
            if context.id() == 1 {
                *keeping.lock().unwrap() = Some(context.keep_slot());
            }
            reporter.report(context.id().to_string());
        }
    };
    let running = start(one_slot(&database).handle_any(handler, RetryPolicy::default()));
    enqueue(&database.database, &note("keeps")).await.unwrap();
    assert_eq!(reports.next().await, "1");
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    enqueue(&database.database, &note("waits")).await.unwrap();
    // Another worker takes the job, since the slot of the first one is occupied.
    let (other, mut others) = crate::harness::reporting_worker(&database.database);
    let other = start(other);
    assert_eq!(others.next().await, "waits");
    other.stop().await;
    drop(kept.lock().unwrap().take());
    enqueue(&database.database, &note("runs")).await.unwrap();
    assert_eq!(reports.next().await, "3");
    running.stop().await;
}

#[tokio::test]
async fn a_worker_claims_only_within_the_limits_of_its_slots() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let limits = SlotLimits::default();
    limits.set("default", 0);
    let handler = move |context: Context| {
        let reporter: Reporter = reporter.clone();
        async move { reporter.report(context.id().to_string()) }
    };
    let running = start(worker(&database).slot_limits(limits.clone()).handle_any(handler, RetryPolicy::default()));
    database.until("select count(*) = 1 from reveille.workers").await;
    enqueue(&database.database, &note("first")).await.unwrap();
    let (other, mut others) = crate::harness::reporting_worker(&database.database);
    let other = start(other);
    assert_eq!(others.next().await, "first");
    other.stop().await;
    enqueue(&database.database, &note("second")).await.unwrap();
    limits.set("default", 1);
    assert_eq!(reports.next().await, "2");
    running.stop().await;
}

#[tokio::test]
async fn a_handler_learns_why_it_should_stop() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let handler = move |context: Context| {
        let reporter = reporter.clone();
        async move {
            reporter.report("started");
            let cancellation = context.cancellation();
            assert_eq!(cancellation.reason(), None);
            cancellation.cancelled().await;
            reporter.report(cancellation.reason().map_or("no reason", |reason| reason.name()));
        }
    };
    let builder = one_slot(&database).grace(Duration::ZERO).handle_any(handler, RetryPolicy::default());
    let running = start(builder);
    enqueue(&database.database, &note("x")).timeout(Duration::from_millis(50)).await.unwrap();
    assert_eq!((reports.next().await, reports.next().await), ("started".into(), "timed_out".into()));
    let cancelled = enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "started");
    database.database.admin().cancel(cancelled.id).await.unwrap();
    assert_eq!(reports.next().await, "cancelled");
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "started");
    running.stop().await;
    assert_eq!(reports.next().await, "shutdown");
}

#[tokio::test]
async fn the_outcome_of_another_process_may_be_its_death() {
    let database = database().await;
    let handler = async |context: Context| match context.job().payload.decode::<u8>() {
        Ok(0) => Outcome::Lost("its process died".into()),
        Ok(1) if context.attempt().number < 3 => Outcome::Release,
        Ok(2) => Outcome::Unhandled,
        _ => Outcome::Complete,
    };
    let mut builder = worker(&database).handle_any(handler, RetryPolicy::default()).build().unwrap();
    builder.declare_kinds(["k".to_owned()]);
    let stop = tokio_util::sync::CancellationToken::new();
    let working = tokio::spawn(builder.run_until(stop.clone().cancelled_owned()));
    database.run("select reveille.enqueue('k', to_jsonb(n), max_attempts => 1) from generate_series(0, 2) as n").await;
    database.until("select reason = 'lost' and failures = 1 from reveille.dead_jobs").await;
    database.until("select attempts = 3 and failures = 0 from reveille.finished_jobs").await;
    database.until("select failures = 0 and available_at > now() from reveille.jobs").await;
    assert_eq!(database.value("select kinds from reveille.workers").await, json!(["k"]));
    stop.cancel();
    working.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_handler_may_name_the_transaction_of_another_program() {
    let database = database().await;
    let client = Arc::new(tokio::sync::Mutex::new(database.client().await));
    let handler = move |context: Context| {
        let client = Arc::clone(&client);
        async move {
            let mut client = client.lock().await;
            let transaction = client.transaction().await.unwrap();
            let reservation = context.job().reservation;
            let complete = "select reveille.complete_in($1, $2, $3, $4, 0.1)";
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&reservation.id, &reservation.worker, &reservation.attempt, &reservation.reserved_at];
            let id: String = transaction.query_one(complete, &parameters).await.unwrap().get(0);
            if reservation.id == 1 {
                transaction.commit().await.unwrap();
            } else {
                transaction.rollback().await.unwrap();
            }
            context.note_completion(id);
        }
    };
    let running = start(one_slot(&database).handle_any(handler, RetryPolicy::default()));
    database.run("select reveille.enqueue('k', max_attempts => 1) from generate_series(1, 2)").await;
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    database.until("select completed = 1 from reveille.queue_totals").await;
    assert_eq!(database.value("select id from reveille.finished_jobs").await, 1);
    running.stop().await;
}
