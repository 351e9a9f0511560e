//! Jobs are enqueued by COPY.

use std::time::{Duration, SystemTime};

use reveille::enqueue::copy_all;
use reveille::job::Payload;
use reveille::{
    driver::Memory,
    job::{NewJob, Priority},
};
use serde_json::json;

use crate::harness::{Note, database, note, reporting_worker, start};

fn raw(kind: &str) -> NewJob {
    NewJob::new(kind, Payload::encode(&json!({})).unwrap())
}

#[tokio::test]
async fn every_client_can_copy() {
    let database = database().await;
    let mut plain = database.client().await;
    assert_eq!(copy_all(&plain, &[note("tokio-postgres client")]).await.unwrap(), 1);
    let tx = plain.transaction().await.unwrap();
    copy_all(&tx, &[note("tokio-postgres transaction")]).await.unwrap();
    tx.commit().await.unwrap();
    let mut pooled = database.database.client().await.unwrap();
    copy_all(&pooled, &[note("deadpool client")]).await.unwrap();
    let tx = pooled.transaction().await.unwrap();
    copy_all(&tx, &[note("deadpool transaction")]).await.unwrap();
    tx.commit().await.unwrap();
    copy_all(&database.database, &[note("database")]).await.unwrap();
    copy_all(&reveille::driver::Postgres::new(database.database.clone()).unwrap(), &[note("driver")]).await.unwrap();
    assert_eq!(database.value("select count(distinct payload ->> 'text') from reveille.jobs").await, 6);
}

#[tokio::test]
async fn copied_jobs_keep_their_order_and_number() {
    let database = database().await;
    let notes: Vec<Note> = (0..20_000).map(|n| note(&n.to_string())).collect();
    assert_eq!(copy_all(&database.database, &notes).await.unwrap(), 20_000);
    let in_order = "select bool_and((payload ->> 'text')::int = place - 1) and count(*) = 20000
        from (select payload, row_number() over (order by id) as place from reveille.jobs) as jobs";
    assert_eq!(database.value(in_order).await, true);
    assert_eq!(copy_all::<_, Note>(&database.database, &[]).await.unwrap(), 0, "copying nothing is fine");
}

#[tokio::test]
async fn every_option_of_a_copied_job_reaches_its_column() {
    let database = database().await;
    let metadata = json!({"trace": "00-ab"});
    let full = raw("full")
        .queue("mail\t\\N; drop table \"jobs\" 🐘")
        .priority(Priority::Urgent)
        .max_attempts(3)
        .delay(Duration::from_secs(3600))
        .timeout(Duration::from_millis(1500))
        .key("tenant 7")
        .tag("a, b")
        .tag("{c}")
        .metadata(&metadata)
        .unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    copy_all(&database.client().await, &[full, raw("at").at(at), raw("plain")]).await.unwrap();
    let row = "select to_jsonb(array[queue, priority::text, max_attempts::text, timeout::text, key, tags::text, \
        metadata::text])
        from reveille.jobs where kind = 'full'";
    let expected = json!([
        "mail\t\\N; drop table \"jobs\" 🐘",
        "0",
        "3",
        "00:00:01.5",
        "tenant 7",
        "{\"a, b\",\"{c}\"}",
        "{\"trace\": \"00-ab\"}"
    ]);
    assert_eq!(database.value(row).await, expected);
    let plain = "select queue = 'default' and coalesce(key, timeout::text, tags::text, metadata::text) is null
        and available_at <= created_at from reveille.jobs where kind = 'plain'";
    assert_eq!(database.value(plain).await, true);
    let due = "select extract(epoch from available_at)::bigint from reveille.jobs where kind = 'at'";
    assert_eq!(database.value(due).await, 4_000_000_000u64);
    let delayed = "select available_at - now() between interval '59 minutes' and interval '61 minutes'
        from reveille.jobs where kind = 'full'";
    assert_eq!(database.value(delayed).await, true);
}

#[tokio::test]
async fn one_bad_job_makes_the_whole_copy_fail() {
    let database = database().await;
    let client = database.client().await;
    let unique = raw("unique").unique_key("k");
    let error = copy_all(&client, &[raw("good"), unique]).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("unique key"), "{error}");
    let error = copy_all(&client, &[raw("good"), raw("")]).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("kind"), "{error}");
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
    assert_eq!(copy_all(&client, &[raw("good")]).await.unwrap(), 1, "the connection still works");
}

#[tokio::test]
async fn jobs_copied_in_a_rolled_back_transaction_do_not_exist() {
    let database = database().await;
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    copy_all(&tx, &[note("never")]).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

#[tokio::test]
async fn copying_wakes_a_sleeping_worker() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database.database);
    let worker = start(builder.poll_interval(Duration::from_secs(3600)));
    database.until("select exists (select from reveille.sleepers)").await;
    copy_all(&database.client().await, &[note("up")]).await.unwrap();
    assert_eq!(reports.next().await, "up");
    worker.stop().await;
}

#[tokio::test]
async fn a_driver_without_copy_inserts_the_jobs_instead() {
    let memory = Memory::new();
    assert_eq!(copy_all(&memory, &[note("a"), note("b")]).await.unwrap(), 2);
    assert_eq!(memory.jobs().len(), 2);
}
