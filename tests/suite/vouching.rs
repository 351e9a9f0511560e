//! The locks that prove that a worker is alive. Locks of strangers prove nothing, and no worker is declared dead
//! because its row is locked.

use std::time::Duration;

use reveille::driver::{Report, WorkerInfo, signals};
use reveille::{
    State,
    driver::{Driver, Postgres},
    enqueue,
    handler::Cancellation,
};

use crate::harness::{
    Note, Reporter, TestDatabase, claim, database, eventually, note, reporting, reporting_worker, start, worker,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a driver on which these workers are registered.
async fn driver(database: &TestDatabase, workers: &[i64]) -> Postgres {
    let driver = Postgres::new(database.database.clone()).unwrap();
    for &id in workers {
        let info = WorkerInfo::new(id).host("h").queues(["default"]);
        driver.register(&info).await.unwrap();
    }
    driver
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_lock_does_not_keep_a_dead_worker_alive() {
    let database = database().await;
    let driver = driver(&database, &[7]).await;
    let listening = signals(&driver, 7).await.unwrap();
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(claim(&driver, 7, 1).await.len(), 1);
    let stranger = database.client().await;
    stranger.batch_execute("select pg_advisory_lock_shared(7)").await.unwrap();
    drop(listening);
    let (builder, mut reports) = reporting_worker(&database);
    let other = start(builder.heartbeat(Duration::from_millis(50)).dead_after(HOUR));
    assert_eq!(reports.next().await, "x");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_vouches_for_a_worker_that_does_not_listen_yet() {
    let database = database().await;
    let (driver, other) = (driver(&database, &[1]).await, driver(&database, &[]).await);
    other.register(&WorkerInfo::new(7).listens(true)).await.unwrap();
    other.register(&WorkerInfo::new(8)).await.unwrap();
    database.run("update reveille.workers set last_seen_at = now() - interval '1 minute' where id > 1").await;
    let gone = async || driver.beat(1, &Report::default()).await.unwrap().gone;
    assert_eq!(gone().await, [] as [i64; 0]);
    drop(other);
    eventually("the end of the session is noticed", async || gone().await == [7]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_vouches_for_a_worker_that_noted_no_backend() {
    let database = database().await;
    let driver = driver(&database, &[1, 7]).await;
    let silent =
        "update reveille.workers set holds_lock = true, last_seen_at = now() - interval '1 minute' where id = 7";
    database.run(silent).await;
    let vouching = database.client().await;
    vouching.batch_execute("select pg_advisory_lock_shared(7)").await.unwrap();
    let gone = async || driver.beat(1, &Report::default()).await.unwrap().gone;
    assert_eq!(gone().await, [] as [i64; 0]);
    vouching.batch_execute("select pg_advisory_unlock_all()").await.unwrap();
    assert_eq!(gone().await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_row_is_kept_locked_works_on() {
    async fn waits(note: Note, State(reporter): State<Reporter>, cancellation: Cancellation) {
        reporter.report(note.text);
        cancellation.cancelled().await;
        reporter.report("cancelled");
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let quick = worker(&database).heartbeat(Duration::from_millis(50)).dead_after(Duration::from_secs(1));
    let held_up = start(quick.state(reporter).handle(waits));
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "x");
    let operator = database.client().await;
    operator.batch_execute("begin; select reveille.stop_worker(id) from reveille.workers").await.unwrap();
    let (builder, _reports) = reporting_worker(&database);
    let other = start(builder.heartbeat(Duration::from_millis(50)).dead_after(HOUR));
    // Waits three times as long as a worker may be silent.
    let long = "select max(last_seen_at) - min(last_seen_at) > interval '3 seconds' from reveille.workers";
    database.until(long).await;
    assert!(reports.rest().is_empty());
    operator.batch_execute("rollback").await.unwrap();
    database.until("select bool_and(last_seen_at > now() - interval '1 second') from reveille.workers").await;
    assert_eq!(database.value("select attempts from reveille.jobs where reserved_at is not null").await, 1);
    database.run("select reveille.cancel(id) from reveille.jobs").await;
    held_up.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_dead_worker_does_not_keep_others_from_rescue() {
    let database = database().await;
    let driver = driver(&database, &[7, 8]).await;
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(claim(&driver, 8, 1).await.len(), 1);
    let operator = database.client().await;
    operator.batch_execute("begin; select reveille.stop_worker(7)").await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let other = start(builder.heartbeat(Duration::from_millis(50)).dead_after(Duration::from_secs(1)));
    assert_eq!(reports.next().await, "x");
    assert_eq!(database.value("select jsonb_agg(id) from reveille.workers where id < 9").await, serde_json::json!([7]));
    operator.batch_execute("commit").await.unwrap();
    database.until("select not exists (select from reveille.workers where id = 7)").await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_vouches_once_its_workers_row_is_no_longer_locked() {
    let database = database().await;
    let (builder, _reports) = reporting_worker(&database);
    let worker = start(builder.heartbeat(HOUR));
    database.until("select count(*) = 1 from reveille.workers where holds_lock").await;
    let operator = database.client().await;
    operator.batch_execute("begin; select from reveille.workers for update").await.unwrap();
    // The listener opens another session, and finds the row locked.
    let end = "select pg_terminate_backend(backend, 60000) from reveille.workers";
    assert_eq!(database.value(end).await, true);
    let listens = "select count(*) = 1 from pg_stat_activity where application_name = 'reveille listener' \
        and datname = current_database() and query like '%pg_try_advisory_lock_shared%' and state = 'idle'";
    database.until(listens).await;
    operator.batch_execute("rollback").await.unwrap();
    let vouches = "select count(*) = 1 from reveille.workers join pg_locks as held on held.pid = backend
        where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())";
    database.until(vouches).await;
    worker.stop().await;
}
