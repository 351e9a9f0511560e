//! A worker goes to sleep without waiting for other transactions. A session without rights cannot keep a worker awake.

use std::time::{Duration, Instant};

use reveille::driver::WorkerInfo;
use reveille::{
    driver::{Driver, Postgres},
    enqueue,
};

use crate::harness::{TestDatabase, database, note, reporting_worker, start, worker};

const ASLEEP: &str = "select count(*) = 1 from reveille.sleepers";

/// Checks that a worker goes to sleep and wakes by the bell while another session, which has run `statement`, stays
/// open.
async fn sleeps_beside(statement: &str) {
    let database = database().await;
    database.run("insert into reveille.queues (name) values ('default')").await;
    let stranger = database.client().await;
    stranger.batch_execute(statement).await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    database.until(ASLEEP).await;
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "x", "{statement}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_to_sleep_while_its_queues_settings_are_locked() {
    sleeps_beside("begin; select * from reveille.queues for update").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_to_sleep_while_its_queues_bell_is_being_switched() {
    sleeps_beside("begin; update reveille.queues set bell = false").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_advisory_lock_does_not_keep_a_worker_awake() {
    sleeps_beside("select pg_advisory_lock(hashtextextended('reveille.somebody_sleeps', 0))").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_advisory_lock_does_not_keep_the_bell_armed() {
    let database = database().await;
    let (builder, _reports) = reporting_worker(&database);
    let worker = start(builder);
    database.until(ASLEEP).await;
    let stranger = database.client().await;
    let lock = "select pg_advisory_lock_shared(hashtextextended('reveille.somebody_sleeps', 0))";
    stranger.batch_execute(lock).await.unwrap();
    worker.stop().await;
    assert_eq!(database.value("select last_value from reveille.somebody_sleeps").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_start_at_the_next_poll_while_the_bell_cannot_be_armed() {
    let database = database().await;
    let owner = database.client().await;
    owner.batch_execute("begin; lock table reveille.sleepers in share mode").await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder.poll_interval(Duration::from_millis(500)));
    let began = Instant::now();
    for text in ["one", "two", "three"] {
        database
            .until(
                "select exists (select from pg_locks where relation = 'reveille.sleepers'::regclass and not granted)",
            )
            .await;
        enqueue(&database.database, &note(text)).await.unwrap();
        assert_eq!(reports.next().await, text);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    owner.batch_execute("commit").await.unwrap();
    database.until(ASLEEP).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bell_switched_off_is_off_for_a_worker_that_just_fell_asleep() {
    let database = database().await;
    database.run("insert into reveille.queues (name) values ('default')").await;
    let operator = database.client().await;
    operator.batch_execute("begin; update reveille.queues set bell = false").await.unwrap();
    let (builder, _reports) = reporting_worker(&database);
    let worker = start(builder);
    database.until("select count(*) = 1 from reveille.sleepers where not silent").await;
    operator.batch_execute("commit").await.unwrap();
    assert_eq!(database.value("select jsonb_agg(silent) from reveille.sleepers").await, serde_json::json!([true]));
    worker.stop().await;
}

/// Turns the bell on or off in an operator's transaction, and leaves the transaction open.
async fn switching(database: &TestDatabase) -> tokio_postgres::Client {
    let operator = database.client().await;
    operator.batch_execute("begin; update reveille.queues set bell = not bell").await.unwrap();
    operator
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_while_its_queues_bell_is_being_switched() {
    let database = database().await;
    database.run("insert into reveille.queues (name) values ('default')").await;
    let (builder, _reports) = reporting_worker(&database);
    let worker = start(builder);
    database.until(ASLEEP).await;
    let operator = switching(&database).await;
    worker.stop().await;
    assert_eq!(database.value("select count(*) from reveille.workers").await, 0);
    operator.batch_execute("commit").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_worker_is_found_while_its_queues_bell_is_switched() {
    let database = database().await;
    database.run("insert into reveille.queues (name) values ('default')").await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    let dead = WorkerInfo::new(7).host("h").queues(["default"]);
    driver.register(&dead).await.unwrap();
    driver.arm(7, "default").await.unwrap();
    let operator = switching(&database).await;
    let quick = worker(&database).heartbeat(Duration::from_millis(50)).dead_after(Duration::from_millis(300));
    let other = start(quick.handle(crate::harness::report).state(crate::harness::reporting().0));
    database.until("select not exists (select from reveille.workers where id = 7)").await;
    operator.batch_execute("commit").await.unwrap();
    other.stop().await;
}
