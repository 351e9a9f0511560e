//! Workers rescue the jobs of a dead worker.

use std::time::Duration;

use reveille::driver::{Peer, Report, WorkerInfo};
use reveille::{
    State,
    driver::{Driver, Postgres},
    enqueue,
};
use serde_json::json;

use crate::harness::{Note, Reporter, TestDatabase, claim, database, note, report, reporting, start, worker};

async fn hangs(note: Note, State(reporter): State<Reporter>) {
    reporter.report(note.text);
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_job_runs_elsewhere_and_counts_as_a_failure() {
    let database = database().await;
    // Registers a worker that has reserved a job and sends no heartbeat any more.
    let driver = Postgres::new(database.database.clone()).unwrap();
    let info = WorkerInfo::new(7).host("gone").queues(["default"]);
    driver.register(&info).await.unwrap();
    enqueue(&database.database, &note("x")).await.unwrap();
    claim(&driver, 7, 1).await;

    let (reporter, mut reports) = reporting();
    let quick = worker(&database).heartbeat(Duration::from_millis(50)).dead_after(Duration::from_millis(300));
    let worker = start(quick.state(reporter).handle(report));
    assert_eq!(reports.next().await, "x");
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    let row = "select jsonb_build_array(attempts, failures, errors -> 0 -> 'reason', errors -> 0 -> 'worker') \
        from reveille.finished_jobs";
    assert_eq!(database.value(row).await, json!([2, 1, "lost", 7]));
    assert_eq!(database.value("select count(*) from reveille.workers where id = 7").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_heartbeat_keeps_its_job() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let build = || {
        let beats = worker(&database).heartbeat(Duration::from_millis(50)).dead_after(Duration::from_millis(400));
        beats.grace(Duration::ZERO).state(reporter.clone())
    };
    let holder = start(build().handle(hangs));
    enqueue(&database.database, &note("held")).await.unwrap();
    assert_eq!(reports.next().await, "held");
    let other = start(build().handle(report));
    // Waits for several heartbeats of the other worker, because each of them could rescue the job wrongly.
    database
        .until(
            "select bool_and(last_seen_at > started_at + interval '1 second') and count(*) = 2 from reveille.workers",
        )
        .await;
    assert_eq!(database.value("select attempts from reveille.jobs").await, 1);
    other.stop().await;
    holder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_declared_dead_cancels_its_handlers_and_begins_anew() {
    let database = database().await;
    async fn waits(
        note: Note,
        State(reporter): State<Reporter>,
        cancellation: reveille::handler::Cancellation,
    ) -> Result<(), String> {
        reporter.report(note.text);
        cancellation.cancelled().await;
        reporter.report("stopped");
        Err("cancelled".into())
    }
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).heartbeat(Duration::from_millis(50)).state(reporter).handle(waits));
    enqueue(&database.database, &note("first")).await.unwrap();
    assert_eq!(reports.next().await, "first");
    let old = database.value("select id from reveille.workers").await;
    database.run("delete from reveille.workers").await;
    assert_eq!(reports.next().await, "stopped");
    // No worker holds the job now. The same worker finds the job, and runs it under the worker's new id.
    assert_eq!(reports.next().await, "first");
    assert_ne!(database.value("select id from reveille.workers").await, old);
    assert_eq!(database.value("select attempts from reveille.jobs").await, 2);
    worker.begin_stop();
    database.run("select reveille.cancel(1)").await;
    worker.ended().await;
}

/// Loses a job `times` times in a row. Each time, the worker of the job dies.
async fn lost(database: &TestDatabase, times: u32, max_attempts: u32) -> Postgres {
    let driver = Postgres::new(database.database.clone()).unwrap();
    enqueue(&database.database, &note("x")).max_attempts(max_attempts).await.unwrap();
    for round in 0..times {
        database.run("update reveille.jobs set available_at = now()").await;
        let id = i64::from(round) + 7;
        let info = WorkerInfo::new(id).host("gone");
        driver.register(&info).await.unwrap();
        assert_eq!(claim(&driver, id, 1).await.len(), 1);
        let seen = driver.beat(99, &Report::default()).await.unwrap().peers;
        let rescue = driver.rescue(99, &seen).await.unwrap();
        assert_eq!((rescue.workers, rescue.jobs.len()), (vec![id], 1));
        assert_eq!(rescue.dead.len(), usize::from(round + 1 == max_attempts), "the rescue names the jobs that died");
    }
    driver
}

#[tokio::test]
async fn a_lost_job_is_due_at_once_twice_and_then_waits() {
    let database = database().await;
    lost(&database, 2, 20).await;
    assert_eq!(database.value("select available_at <= now() from reveille.jobs").await, true);
    let database = crate::harness::database().await;
    lost(&database, 3, 20).await;
    let waits = database.value("select available_at - now() between '3 s' and '4 s' from reveille.jobs").await;
    assert_eq!(waits, true);
}

#[tokio::test]
async fn a_job_that_kills_its_workers_dies_in_the_end() {
    let database = database().await;
    lost(&database, 3, 3).await;
    let dead =
        "select jsonb_build_array(reason, failures, attempts, jsonb_array_length(errors)) from reveille.dead_jobs";
    assert_eq!(database.value(dead).await, json!(["lost", 3, 3, 3]));
    assert_eq!(database.value("select sum(failed) from reveille.counters").await, 3);
}

#[tokio::test]
async fn a_worker_with_a_newer_heartbeat_is_not_declared_dead() {
    let database = database().await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    let info = WorkerInfo::new(7).host("slow");
    driver.register(&info).await.unwrap();
    let watched: Vec<Peer> = driver.beat(99, &Report::default()).await.unwrap().peers;
    driver.beat(7, &Report::default()).await.unwrap();
    assert_eq!(driver.rescue(99, &watched).await.unwrap(), Default::default());
}

#[tokio::test]
async fn a_job_reserved_by_an_unknown_worker_is_rescued() {
    let database = database().await;
    database
        .run("insert into reveille.jobs (kind, reserved_at, reserved_by, attempts) values ('k', now(), 12345, 1)")
        .await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    assert_eq!(driver.rescue(99, &[]).await.unwrap().jobs, [1]);
}

#[tokio::test]
async fn strays_go_back_at_no_cost_and_held_jobs_stay() {
    let database = database().await;
    let insert = "insert into reveille.jobs (kind, reserved_at, reserved_by, attempts)
        values ('a', now(), 7, 1), ('b', now(), 7, 1), ('c', now(), 8, 1)";
    database.run(insert).await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    assert_eq!(driver.release_strays(7, &[2]).await.unwrap(), [1]);
    let rows = database
        .value("select jsonb_agg(jsonb_build_array(reserved_by, failures) order by id) from reveille.jobs")
        .await;
    assert_eq!(rows, json!([[null, 0], [7, 0], [8, 0]]));
}
