//! `Context::run`: a handler enqueues a job once, waits for its end, and has its result.

use std::time::Duration;

use reveille::driver::{Driver, Memory, Postgres, WorkerInfo};
use reveille::enqueue::emit;
use reveille::job::{NewJob, Payload, RetryPolicy};
use reveille::{Context, Database, Error, Job, Outcome, State, Worker, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::{Reporter, claim, database, reporting, start, worker};

#[derive(Serialize, Deserialize)]
struct Album {
    photos: Vec<i64>,
}

impl Job for Album {
    const KIND: &'static str = "album";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_millis(1))
    }
}

#[derive(Serialize, Deserialize)]
struct Resize {
    photo: i64,
}

impl Job for Resize {
    const KIND: &'static str = "resize";
    const MAX_ATTEMPTS: u32 = 1;
}

async fn album(album: Album, context: Context, State(reporter): State<Reporter>) -> reveille::Result<()> {
    let mut all = Vec::new();
    for photo in album.photos {
        match context.run::<String>(format!("resize {photo}"), &Resize { photo }).await {
            Ok(resized) => all.push(resized),
            Err(error) => all.push(error.to_string()),
        }
    }
    reporter.report(format!("{} failures: {}", context.attempt().failures, all.join(", ")));
    Ok(())
}

async fn resize(resize: Resize) -> Outcome {
    match resize.photo {
        0 => Outcome::Fail("no such photo".into()),
        -1 => Outcome::Cancel,
        photo => {
            let small = format!("small {photo}{}", "!".repeat(photo as usize));
            Outcome::CompleteWith(Payload::encode(&small).unwrap())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_goes_on_with_the_results_of_the_jobs_that_it_runs() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    // One slot: the waiting job does not occupy it.
    let builder =
        Worker::builder(database.database.clone()).queue("default", 1).state(reporter).handle(album).handle(resize);
    let worker = start(builder);
    // A result larger than the value of a step may be.
    let id = enqueue(&database.database, &Album { photos: vec![1, 20_000, 2] }).await.unwrap().id;
    let all = format!("0 failures: small 1!, small 20000{}, small 2!!", "!".repeat(20_000));
    assert_eq!(reports.next().await, all);
    database.until("select count(*) = 4 from reveille.finished_jobs where outcome = 'completed'").await;
    let children = format!("select count(*) from reveille.finished_jobs where kind = 'resize' and parent_id = {id}");
    assert_eq!(database.value(&children).await, 3);
    let left = "select not exists (select from reveille.steps) and not exists (select from reveille.waits)";
    database.until(left).await;
    worker.stop().await;
    database.admin().prune().await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.events").await, 0, "the ends go with the waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_runs_jobs_in_another_schema_too() {
    let database = database().await;
    let other = Database::options(Some(database.address.clone())).schema("other").connect().await.unwrap();
    other.migrate().await.unwrap();
    let (reporter, mut reports) = reporting();
    let worker = start(Worker::builder(other.clone()).state(reporter).handle(album).handle(resize));
    enqueue(&other, &Album { photos: vec![2] }).await.unwrap();
    assert_eq!(reports.next().await, "0 failures: small 2!!");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_and_the_cancel_of_a_job_are_errors_of_run() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(album).handle(resize));
    enqueue(&database.database, &Album { photos: vec![0, -1] }).await.unwrap();
    let dead = "job 2 of step \"resize 0\" is dead: no such photo";
    let ends = format!("0 failures: {dead}, job 3 of step \"resize -1\" is cancelled");
    assert_eq!(reports.next().await, ends);
    worker.stop().await;
}

#[tokio::test]
async fn no_second_job_is_enqueued_for_a_step_and_none_without_the_reservation() {
    let database = database().await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(7).host("h").queues(["default"])).await.unwrap();
    enqueue(&database.database, &Album { photos: vec![] }).await.unwrap();
    let reservation = claim(&driver, 7, 1).await[0].reservation;
    let child = NewJob::of(&Resize { photo: 1 }).unwrap();
    let first = driver.run_child(&reservation, "a", &child).await.unwrap().unwrap();
    let again = driver.run_child(&reservation, "a", &child).await.unwrap().unwrap();
    assert_eq!(first, again, "as after a lost answer");
    let children = "select count(*) from reveille.jobs where kind = 'resize'";
    assert_eq!(database.value(children).await, 1);
    database.run("update reveille.jobs set attempts = attempts + 1 where kind = 'album'").await;
    assert_eq!(driver.run_child(&reservation, "b", &child).await.unwrap(), None);
    assert_eq!(database.value(children).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_a_unique_key_is_not_run_and_its_event_is_not_emitted_by_hand() {
    async fn handle(_: Album, context: Context, State(reporter): State<Reporter>) -> Result<(), Error> {
        let job = NewJob::of(&Resize { photo: 1 })?.unique_key("once");
        reporter.report(context.run::<()>("a", &job).await.unwrap_err().to_string());
        Ok(())
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(handle));
    enqueue(&database.database, &Album { photos: vec![] }).await.unwrap();
    let refused = "the job of step \"a\" has a unique key; leave the key out, since the step enqueues the job once";
    assert_eq!(reports.next().await, refused);
    worker.stop().await;
    let error = database.client().await.batch_execute("select reveille.emit('reveille:end:7')").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.message(), "names of events that begin with \"reveille:\" are reserved");
    let same = emit(&Memory::new(), "reveille:end:7", &()).await.unwrap_err().to_string();
    assert_eq!(same.split_once(';').unwrap().0, error.message());
    assert_eq!(database.value("select to_jsonb(count(*)) from reveille.events").await, json!(0));
}
