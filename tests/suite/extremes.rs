//! The shortest and longest durations and times are refused with a message, or taken as a thousand years.

use std::time::{Duration, SystemTime};

use reveille::enqueue::copy_all;
use reveille::handler::{Batch, Gather};
use reveille::{
    Context, Database, Job, Outcome, Worker,
    driver::{Driver, Memory},
    enqueue,
    enqueue::enqueue_all,
    job::{NewJob, RetryPolicy},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::{Note, database, note, start, worker};

const AGES: Duration = Duration::MAX;

#[derive(Serialize, Deserialize)]
struct Later;

impl Job for Later {
    const KIND: &'static str = "later";
    fn retry_policy() -> RetryPolicy {
        RetryPolicy::exponential(AGES, AGES)
    }
}

#[derive(Serialize, Deserialize)]
struct Hasty;

impl Job for Hasty {
    const KIND: &'static str = "hasty";
    const TIMEOUT: Option<Duration> = Some(Duration::ZERO);
}

async fn nothing(_: Note) {}

#[tokio::test]
async fn a_duration_out_of_range_is_refused_by_the_builder() {
    let build = || Worker::builder(std::sync::Arc::new(Memory::new())).handle(nothing);
    for (builder, says) in [
        (build().heartbeat(AGES), "heartbeat interval must be between 1 ms and a day"),
        (build().heartbeat(Duration::ZERO), "heartbeat interval must be between 1 ms and a day"),
        (build().poll_interval(Duration::ZERO), "poll_interval must be 1 ms or longer"),
        (build().timeout(Duration::ZERO), "timeout must be a microsecond or longer"),
        (build().handle(async |_: Hasty| {}), "kind \"hasty\": timeout must be a microsecond"),
    ] {
        let error = builder.build().err().unwrap();
        assert!(error.is_invalid() && error.to_string().contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_works_with_the_longest_durations() {
    async fn batch(_: Batch<Note>) {}
    async fn later(_: Later, context: Context) -> Outcome {
        match context.attempt().failures {
            0 => Outcome::Fail("by the policy".into()),
            1 => Outcome::RetryIn(AGES, "by itself".into()),
            _ => Outcome::Snooze(AGES),
        }
    }
    let database = database().await;
    let builder =
        worker(&database).poll_interval(AGES).timeout(AGES).dead_after(AGES).heartbeat(Duration::from_secs(86_400));
    let running = start(builder.grace(AGES).handle(later).handle_batch(Gather::up_to(2).within(AGES), batch));
    enqueue_all(&database.database, &[note("a"), note("b")]).await.unwrap();
    enqueue(&database.database, &Later).timeout(AGES).await.unwrap();
    database.until("select count(*) = 2 from reveille.finished_jobs").await;
    for round in 1..=3 {
        let put_back = "select count(*) = 1 from reveille.jobs where reserved_at is null \
            and available_at > now() + interval '900 years'";
        database.until(&format!("{put_back} and attempts = {round}")).await;
        database.run("select reveille.retry(3)").await;
    }
    running.stop().await;
}

#[tokio::test]
async fn the_longest_durations_are_stored_as_a_thousand_years() {
    let database = database().await;
    enqueue(&database.database, &note("one")).delay(AGES).timeout(AGES).await.unwrap();
    enqueue(&database.database, &note("unique")).delay(AGES).unique_key("k").unique_for(AGES).await.unwrap();
    let job = NewJob::of(&note("copied")).unwrap().timeout(AGES).delay(AGES);
    copy_all(&database.database, [&job]).await.unwrap();
    enqueue_all(&database.database, [&job, &job]).await.unwrap();
    let ages = "select jsonb_agg(available_at - created_at = interval '365250 days') from reveille.jobs";
    assert_eq!(database.value(ages).await, json!([true, true, true, true, true]));
    let timeouts = "select jsonb_agg(distinct timeout = make_interval(secs => 31557600000)) from reveille.jobs \
        where timeout is not null";
    assert_eq!(database.value(timeouts).await, json!([true]));
}

#[tokio::test]
async fn a_time_that_postgres_cannot_store_is_refused() {
    let database = database().await;
    let far = Duration::from_secs(1 << 62);
    for time in [SystemTime::UNIX_EPOCH + far, SystemTime::UNIX_EPOCH - far] {
        let error = enqueue(&database.database, &note("x")).at(time).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("Postgres cannot store"), "{error}");
        let job = NewJob::of(&note("x")).unwrap().at(time);
        assert!(copy_all(&database.database, [&job]).await.unwrap_err().is_invalid());
    }
    let ages_ago = SystemTime::UNIX_EPOCH - Duration::from_secs(6_000 * 31_557_600);
    enqueue(&database.database, &note("of old")).at(ages_ago).await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.jobs where available_at < '4000-01-01 BC'").await, 1);
}

#[tokio::test]
async fn other_options_take_the_longest_duration_too() {
    let database = database().await;
    database.doctor().patience(AGES).examine().await.unwrap();
    let memory = Memory::new();
    enqueue(&memory, &note("x")).delay(AGES).await.unwrap();
    memory.advance(AGES);
    memory.advance(AGES);
    enqueue(&memory, &note("y")).delay(AGES).await.unwrap();
    assert_eq!(memory.jobs().len(), 2);
    let options = Database::options(Some(database.address.clone())).max_connections(usize::MAX);
    options.connect().await.unwrap().check().await.unwrap();
    Driver::check(&memory).await.unwrap();
}
