//! Nobody settles a job that is no longer theirs.

use std::time::Duration;

use reveille::driver::{Ending, Failure, Reason, Settlement, WorkerInfo};
use reveille::job::ReservedJob;
use reveille::{Driver, Postgres, enqueue};
use serde_json::json;

use crate::harness::{TestDatabase, Told, claim, database, note, start, telling, worker};

async fn driver(database: &TestDatabase, worker: i64) -> Postgres {
    let driver = Postgres::new(database.database.clone()).unwrap();
    let queues = vec!["default".into()];
    driver.register(&WorkerInfo { id: worker, host: "test".into(), pid: 1, queues, slots: 1 }).await.unwrap();
    driver
}

async fn reserved(database: &TestDatabase, driver: &Postgres, worker: i64) -> ReservedJob {
    enqueue(&database.database, &note("x")).await.unwrap();
    claim(driver, worker, 1).await.pop().expect("a job was claimed")
}

fn settlement(job: &ReservedJob, ending: Ending) -> Settlement {
    Settlement { reservation: job.reservation, ending, waited: Duration::ZERO, ran: Duration::ZERO }
}

fn every_ending() -> [Ending; 4] {
    let failure = Failure { reason: Reason::Failed, error: "no".into() };
    let waiting = Ending::Waiting { failure: None, delay: Duration::ZERO };
    [Ending::Completed(None), Ending::Cancelled, waiting, Ending::Dead(failure)]
}

#[tokio::test]
async fn an_ending_counts_once() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let job = reserved(&database, &driver, 7).await;
    let settled = settlement(&job, Ending::Completed(None));
    assert_eq!(driver.settle(std::slice::from_ref(&settled)).await.unwrap(), [true]);
    assert_eq!(driver.settle(&[settled]).await.unwrap(), [false]);
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 1);
}

#[tokio::test]
async fn each_part_of_the_fence_holds_for_each_ending() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let job = reserved(&database, &driver, 7).await;
    for ending in every_ending() {
        let good = settlement(&job, ending);
        let mut wrong = vec![good.clone(); 4];
        wrong[0].reservation.id += 1;
        wrong[1].reservation.worker += 1;
        wrong[2].reservation.attempt += 1;
        wrong[3].reservation.reserved_at += Duration::from_micros(1);
        assert_eq!(driver.settle(&wrong).await.unwrap(), [false; 4], "{:?}", good.ending);
    }
    let untouched = "select jsonb_build_array(reserved_by, attempts, failures) from reveille.jobs";
    assert_eq!(database.value(untouched).await, json!([7, 1, 0]));
}

#[tokio::test]
async fn a_mixed_batch_settles_what_stands_and_nothing_else() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let mut batch = Vec::new();
    for ending in every_ending() {
        let job = reserved(&database, &driver, 7).await;
        batch.push(settlement(&job, ending));
    }
    batch[1].reservation.attempt = 99;
    assert_eq!(driver.settle(&batch).await.unwrap(), [true, false, true, true]);
    let counts =
        "select jsonb_build_array((select count(*) from reveille.jobs), (select count(*) from reveille.finished_jobs),
        (select count(*) from reveille.dead_jobs))";
    assert_eq!(database.value(counts).await, json!([2, 1, 1]));
}

#[tokio::test]
async fn a_worker_without_its_row_claims_nothing() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    enqueue(&database.database, &note("x")).await.unwrap();
    assert!(claim(&driver, 8, 1).await.is_empty());
    assert_eq!(claim(&driver, 7, 1).await.len(), 1);
}

#[tokio::test]
async fn a_claim_takes_no_more_than_it_asks_for_across_levels() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    database.run("insert into reveille.jobs (kind, priority) select 'k', n % 4 from generate_series(1, 40) as n").await;
    let levels: Vec<_> = claim(&driver, 7, 15).await.iter().map(|job| job.priority as i16).collect();
    assert_eq!(levels, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    assert_eq!(database.value("select count(*) from reveille.jobs where reserved_at is not null").await, 15);
}

#[tokio::test]
async fn a_job_with_started_uniqueness_gives_its_key_up_when_it_starts() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let call = "select existed from reveille.enqueue(kind => 'k', unique_key => 'u', unique_until => 'started')";
    assert_eq!(database.value(call).await, false);
    assert_eq!(database.value(call).await, true);
    claim(&driver, 7, 1).await;
    assert_eq!(database.value(call).await, false, "the first one runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_does_after_its_job_was_taken_away_changes_nothing() {
    let database = database().await;
    async fn holds(_: crate::harness::Note, reveille::State(told): reveille::State<Told>, gate: reveille::State<Gate>) {
        told.tell("started");
        gate.0.notified().await;
    }
    type Gate = std::sync::Arc<tokio::sync::Notify>;
    let (told, mut heard) = telling();
    let gate = Gate::default();
    let worker = start(worker(&database).state(told).state(gate.clone()).handle(holds));
    enqueue(&database.database, &note("x")).await.unwrap();
    heard.next().await;
    database
        .run(
            "insert into reveille.workers (id, host, pid, version, queues, slots) values (8, 'h', 1, 'v', '{default}', 1);
            update reveille.jobs set reserved_by = 8, attempts = 2",
        )
        .await;
    gate.notify_one();
    worker.stop().await;
    assert_eq!(
        database.value("select jsonb_build_array(reserved_by, attempts) from reveille.jobs").await,
        json!([8, 2])
    );
}

#[tokio::test]
async fn a_cancelled_job_that_comes_back_is_cancelled_and_not_run() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let job = reserved(&database, &driver, 7).await;
    database.run("select reveille.cancel(1)").await;
    let later = Ending::Waiting { failure: None, delay: Duration::from_secs(3600) };
    driver.settle(&[settlement(&job, later)]).await.unwrap();
    let again = claim(&driver, 7, 1).await.pop().expect("it is due at once");
    assert!(again.cancel_requested);
}
