//! Jobs are enqueued from Rust.

use std::time::{Duration, SystemTime};

use reveille::database::EnqueueOn;
use reveille::driver::{Driver, Memory};
use reveille::enqueue::{Enqueuer, copy_all, enqueue_all};
use reveille::handler::BoxFuture;
use reveille::job::{Due, Enqueued, JobState, NewJob, Payload, Priority, UniqueMode, UniqueUntil};
use reveille::{Database, Job, State, Worker, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::conformance::with;
use crate::harness::{Note, TestDatabase, database, note};

async fn kinds(database: &TestDatabase) -> Value {
    database.value("select coalesce(jsonb_agg(kind order by id), '[]') from reveille.jobs").await
}

#[tokio::test]
async fn a_rolled_back_job_does_not_exist() {
    let database = database().await;
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    enqueue(&tx, &note("never")).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(kinds(&database).await, json!([]));
}

#[tokio::test]
async fn a_job_exists_once_its_transaction_commits() {
    let database = database().await;
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    enqueue(&tx, &note("soon")).await.unwrap();
    assert_eq!(kinds(&database).await, json!([]), "the job is invisible before the commit");
    tx.commit().await.unwrap();
    assert_eq!(kinds(&database).await, json!(["note"]));
}

#[tokio::test]
async fn every_client_can_enqueue() {
    let database = database().await;
    let mut plain = database.client().await;
    enqueue(&plain, &note("tokio-postgres client")).await.unwrap();
    let tx = plain.transaction().await.unwrap();
    enqueue(&tx, &note("tokio-postgres transaction")).await.unwrap();
    tx.commit().await.unwrap();
    let mut pooled = database.database.client().await.unwrap();
    enqueue(&pooled, &note("deadpool client")).await.unwrap();
    let tx = pooled.transaction().await.unwrap();
    enqueue(&tx, &note("deadpool transaction")).await.unwrap();
    tx.commit().await.unwrap();
    enqueue(&database.database, &note("database")).await.unwrap();
    let count = database.value("select count(distinct payload ->> 'text') from reveille.jobs").await;
    assert_eq!(count, 5);
}

#[tokio::test]
async fn every_option_reaches_its_column() {
    let database = database().await;
    enqueue(&database.database, &note("x"))
        .queue("mail; drop table \"jobs\" 🐘")
        .delay(Duration::from_secs(3600))
        .priority(Priority::Urgent)
        .max_attempts(3)
        .timeout(Duration::from_millis(1500))
        .key("tenant 7")
        .tag("a, b")
        .tag("{c}")
        .metadata(json!({"trace": "00-ab"}))
        .await
        .unwrap();
    let row = "select to_jsonb(array[queue, priority::text, max_attempts::text, timeout::text, key, tags::text, \
        metadata::text,
        (available_at - created_at)::text, attempts::text, failures::text]) from reveille.jobs";
    let expected = json!([
        "mail; drop table \"jobs\" 🐘",
        "0",
        "3",
        "00:00:01.5",
        "tenant 7",
        "{\"a, b\",\"{c}\"}",
        "{\"trace\": \"00-ab\"}",
        "01:00:00",
        "0",
        "0"
    ]);
    assert_eq!(database.value(row).await, expected);
}

#[tokio::test]
async fn a_kinds_own_settings_are_its_defaults() {
    #[derive(Serialize, Deserialize)]
    struct Invoice {}
    impl Job for Invoice {
        const KIND: &'static str = "invoice";
        const QUEUE: &'static str = "billing";
        const PRIORITY: Priority = Priority::High;
        const MAX_ATTEMPTS: u32 = 5;
    }
    let database = database().await;
    enqueue(&database.database, &Invoice {}).await.unwrap();
    let row = "select to_jsonb(array[queue, kind, priority::text, max_attempts::text]) from reveille.jobs";
    assert_eq!(database.value(row).await, json!(["billing", "invoice", "1", "5"]));
}

#[tokio::test]
async fn a_job_can_be_due_at_a_time() {
    let database = database().await;
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    enqueue(&database.database, &note("x")).at(at).await.unwrap();
    let due = database.value("select extract(epoch from available_at)::bigint from reveille.jobs").await;
    assert_eq!(due, 4_000_000_000u64);
}

#[tokio::test]
async fn many_jobs_go_in_one_statement_and_keep_their_order() {
    for queues in [&["alike"][..], &["one", "another"]] {
        let database = database().await;
        let job = |n: usize| {
            NewJob::new("note", Payload::encode(&note(&n.to_string())).unwrap()).queue(queues[n % queues.len()])
        };
        let enqueued = enqueue_all(&database.database, &(0..1000).map(job).collect::<Vec<_>>()).await.unwrap();
        assert!(enqueued.windows(2).all(|pair| pair[0].id < pair[1].id), "the ids follow the order of the jobs");
        let in_order = "select bool_and((payload ->> 'text')::int = place - 1)
            from (select payload, row_number() over (order by id) as place from reveille.jobs) as jobs";
        assert_eq!(database.value(in_order).await, true);
        assert_eq!(database.value("select count(distinct xmin::text) from reveille.jobs").await, 1);
    }
}

#[tokio::test]
async fn enqueuing_nothing_is_fine() {
    let database = database().await;
    assert_eq!(enqueue_all::<_, Note>(&database.database, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn many_raw_jobs_keep_their_own_settings() {
    let database = database().await;
    let payload = Payload::encode(&json!({})).unwrap();
    let plain = NewJob::new("plain", payload.clone());
    let tagged = NewJob::new("tagged", payload).tag("x").queue("q");
    enqueue_all(&database.database, &[plain, tagged]).await.unwrap();
    let rows =
        database.value("select jsonb_agg(jsonb_build_array(kind, queue, tags) order by id) from reveille.jobs").await;
    assert_eq!(rows, json!([["plain", "default", null], ["tagged", "q", ["x"]]]));
}

#[tokio::test]
async fn many_jobs_are_stored_as_if_enqueued_one_by_one() {
    let database = database().await;
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let job = NewJob::new("k", Payload::encode(&json!({"n": 1})).unwrap())
        .queue("q")
        .priority(Priority::High)
        .at(at)
        .max_attempts(7)
        .timeout(Duration::from_millis(1500))
        .key("tenant")
        .tag("a, b")
        .tag("{c}")
        .metadata(&json!({"trace": [null, "\"x\""]}))
        .unwrap();
    let change = |change: fn(&mut NewJob)| {
        let mut job = job.clone();
        change(&mut job);
        job
    };
    let others = [
        change(|job| job.payload = Payload::encode(&json!(["other", 2.5])).unwrap()),
        change(|job| job.queue = "other".into()),
        change(|job| job.kind = "other".into()),
        change(|job| job.priority = Priority::Low),
        change(|job| job.due = Due::In(Duration::from_secs(60))),
        change(|job| job.max_attempts = 1),
        change(|job| job.timeout = None),
        change(|job| job.key = None),
        change(|job| job.tags.clear()),
        change(|job| job.metadata = None),
        NewJob::new("k", Payload::encode(&json!({})).unwrap()),
    ];
    for other in others {
        let rows = "select jsonb_agg(to_jsonb(jobs) - 'id' - 'created_at' - 'available_at' || jsonb_build_object('due',
            case when available_at > '2090-01-01' then available_at::text else (available_at - created_at)::text end)
            order by id)
            from reveille.jobs";
        for jobs in [[&job, &other, &job], [&other, &other, &other]].map(|jobs| jobs.map(NewJob::clone)) {
            enqueue_all(&database.database, &jobs).await.unwrap();
            let together = database.value(rows).await;
            database.run("truncate reveille.jobs").await;
            for job in &jobs {
                enqueue(&database.database, job).await.unwrap();
            }
            assert_eq!(together, database.value(rows).await);
            database.run("truncate reveille.jobs").await;
        }
    }
}

#[tokio::test]
async fn a_bad_job_is_refused_and_the_transaction_goes_on() {
    let database = database().await;
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    assert!(enqueue(&tx, &note("x")).queue("").await.unwrap_err().is_invalid());
    assert!(enqueue(&tx, &note("a\0b")).await.unwrap_err().is_invalid());
    assert!(enqueue(&tx, &note(&"x".repeat(2_000_000))).await.unwrap_err().is_invalid());
    assert!(enqueue(&tx, &note("x")).key("k".repeat(513)).await.unwrap_err().is_invalid());
    assert!(enqueue_all(&tx, &[note("a\0b")]).await.unwrap_err().is_invalid());
    enqueue(&tx, &note("good")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(kinds(&database).await, json!(["note"]));
}

#[tokio::test]
async fn a_payload_above_the_default_limit_can_be_allowed() {
    let database = database().await;
    let large = note(&"x".repeat(2_000_000));
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    enqueue(&tx, &large).max_payload(4_000_000).await.unwrap();
    enqueue(&tx, &large).max_payload(4_000_000).unique_key("one").await.unwrap();
    let enqueuer = Enqueuer::new().max_payload(4_000_000);
    let large = |key: &str| NewJob::of(&large).unwrap().unique_key(key);
    enqueuer.enqueue(&tx, &large("two")).await.unwrap();
    assert!(enqueuer.enqueue(&tx, &large("three")).max_payload(1_000_000).await.unwrap_err().is_invalid());
    enqueuer.enqueue_all(&tx, &[large("three"), large("four")]).await.unwrap();
    assert!(Enqueuer::new().enqueue_all(&tx, &[large("five")]).await.unwrap_err().is_invalid());
    let plain = NewJob::of(&note(&"x".repeat(2_000_000))).unwrap();
    enqueuer.enqueue_all(&tx, &[plain.clone(), plain.clone()]).await.unwrap();
    assert_eq!(enqueuer.copy_all(&tx, &[plain]).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert_eq!(database.value("select sum(length(payload ->> 'text')) from reveille.jobs").await, 16_000_000);
}

#[tokio::test]
async fn a_payload_is_measured_alike_with_and_without_a_unique_key() {
    let database = database().await;
    // Postgres writes a space after each comma. With the spaces, the text is longer than 1 MiB.
    let numbers = vec![1; 500_000];
    let job = NewJob::new("numbers", Payload::encode(&numbers).unwrap());
    enqueue(&database.database, &job).await.unwrap();
    enqueue(&database.database, &job).unique_key("k").await.unwrap();
    assert_eq!(database.value("select min(length(payload::text)) from reveille.jobs").await, 1_500_000);
}

#[tokio::test]
async fn a_unique_key_admits_one_live_job_of_a_kind() {
    let database = database().await;
    let first = enqueue(&database.database, &note("first")).unique_key("k").await.unwrap();
    let second = enqueue(&database.database, &note("second")).unique_key("k").await.unwrap();
    assert_eq!(second, Enqueued::new(first.id, true));
    let other = enqueue(&database.database, &NewJob::new("other", Payload::encode(&1).unwrap())).unique_key("k").await;
    assert!(!other.unwrap().existed, "another kind may use the same unique key");
    assert_eq!(database.value("select payload ->> 'text' from reveille.jobs where kind = 'note'").await, "first");
}

#[tokio::test]
async fn a_unique_job_can_be_replaced_or_debounced() {
    let database = database().await;
    let enqueue = |text: &str| enqueue(&database.database, &note(text)).unique_key("k");
    enqueue("first").await.unwrap();
    assert!(enqueue("second").unique_mode(UniqueMode::Replace).await.unwrap().existed);
    let row = "select to_jsonb(array[payload ->> 'text', (available_at > now())::text]) from reveille.jobs";
    assert_eq!(database.value(row).await, json!(["second", "false"]));
    let later = Duration::from_secs(60);
    assert!(enqueue("third").unique_mode(UniqueMode::Debounce).delay(later).await.unwrap().existed);
    assert_eq!(database.value(row).await, json!(["third", "true"]));
}

#[tokio::test]
async fn a_bulk_enqueue_reports_which_unique_jobs_existed() {
    let database = database().await;
    let job = |key: Option<&str>| {
        with(NewJob::new("bulk", Payload::encode(&key).unwrap()).unique_until(UniqueUntil::Finished), |job| {
            job.unique_key = key.map(Into::into)
        })
    };
    let jobs = [job(Some("a")), job(None), job(Some("a")), job(Some("b")), job(None)];
    let enqueued = enqueue_all(&database.database, &jobs).await.unwrap();
    let existed: Vec<bool> = enqueued.iter().map(|job| job.existed).collect();
    assert_eq!(existed, [false, false, true, false, false]);
    assert_eq!(enqueued[0].id, enqueued[2].id);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 4);
}

#[tokio::test]
async fn racing_unique_enqueues_make_one_job() {
    let database = database().await;
    let racers = (0..40).map(|_| {
        let database = database.database.clone();
        tokio::spawn(async move { enqueue(&database, &note("x")).unique_key("k").await.unwrap() })
    });
    let enqueued = futures::future::join_all(racers).await;
    let new = enqueued.iter().filter(|job| !job.as_ref().unwrap().existed).count();
    assert_eq!(new, 1);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1);
}

#[tokio::test]
async fn another_schema_is_reached_by_any_client() {
    let database = database().await;
    let other = reveille::Database::options(Some(database.address.clone())).schema("other").connect().await.unwrap();
    other.migrate().await.unwrap();
    enqueue(&database.client().await, &note("x")).schema("other").await.unwrap();
    enqueue(&other, &note("y")).await.unwrap();
    assert_eq!(database.value("select count(*) from other.jobs").await, 2);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

#[tokio::test]
async fn one_many_and_copied_jobs_reach_the_enqueuers_schema() {
    async fn enqueues_more(_: Note, State(behind): State<Database>, enqueuer: Enqueuer) -> reveille::Result<()> {
        // A client knows no schema, so the enqueuer determines the schema: that of the worker's database.
        let client = behind.client().await?;
        enqueuer.enqueue(&client, &NewJob::new("child", Payload::parse("1")?)).await.map(drop)
    }
    let database = database().await;
    let other = Database::options(Some(database.address.clone())).schema("two").connect().await.unwrap();
    other.migrate().await.unwrap();
    let client = database.client().await;
    for enqueuer in [Enqueuer::new().schema("two"), other.enqueuer()] {
        enqueuer.enqueue(&client, &note("one")).await.unwrap();
        enqueuer.enqueue_all(&client, &[note("many"), note("more")]).await.unwrap();
        assert_eq!(enqueuer.copy_all(&client, &[note("copied")]).await.unwrap(), 1);
    }
    assert_eq!(database.value("select count(*) from two.jobs").await, 8);

    let builder = Worker::builder(other).state(database.database.clone());
    let worker = builder.handle(enqueues_more).build().unwrap();
    worker.enqueuer().enqueue_all(&client, &[note("by the worker's")]).await.unwrap();
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 9);
    assert_eq!(database.value("select count(*) from two.jobs where kind = 'child'").await, 9);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

/// A store of another crate.
struct Elsewhere(Memory);

impl EnqueueOn for &Elsewhere {
    fn insert<'a>(self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, reveille::Result<Vec<Enqueued>>>
    where
        Self: 'a,
    {
        Driver::enqueue(&self.0, jobs)
    }
}

#[tokio::test]
async fn a_store_of_another_crate_can_be_enqueued_on() {
    let store = Elsewhere(Memory::new());
    enqueue(&store, &note("one")).delay(Duration::from_secs(60)).await.unwrap();
    enqueue_all(&store, &[note("two"), note("three")]).await.unwrap();
    assert_eq!(copy_all(&store, &[note("four")]).await.unwrap(), 1);
    let shared = std::sync::Arc::new(store);
    enqueue(&shared, &note("five")).await.unwrap();
    assert_eq!(shared.0.jobs().len(), 5);
    assert_eq!(shared.0.job(1).unwrap().state, JobState::Delayed);
}

#[tokio::test]
async fn metadata_keeps_long_numbers_and_must_be_an_object() {
    let database = database().await;
    let long = r#"{"long": 12345678901234567890.12345678901234567890}"#;
    enqueue(&database.database, &note("x")).metadata(Payload::parse(long).unwrap()).await.unwrap();
    let stored = database.value("select metadata::text from reveille.jobs").await;
    assert_eq!(stored, long);
    for other in [json!([1]), json!("text"), json!(7), json!(null)] {
        let error = enqueue(&database.database, &note("x")).metadata(&other).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("must be a JSON object"), "{other}: {error}");
    }
}

#[tokio::test]
async fn without_the_schema_the_error_names_the_command_to_run() {
    let database = crate::harness::empty_database().await;
    let error = enqueue(&database.database, &note("x")).await.unwrap_err();
    assert!(error.is_schema_missing());
    assert!(error.to_string().contains("reveille migrate"), "{error}");
}
