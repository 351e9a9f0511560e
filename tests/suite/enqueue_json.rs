//! `reveille.enqueue_json`: one job or many by one statement with one parameter, from any client.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use reveille::enqueue::{Enqueuer, enqueue_all, to_json_all};
use reveille::handler::Middleware;
use reveille::job::{NewJob, Payload, Priority, UniqueMode, UniqueUntil};
use reveille::{Database, State, enqueue};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Transaction};

use crate::harness::{
    Note, Reporter, TestDatabase, database, eventually, note, reporting, reporting_worker, start, worker,
};

const CALL: &str = "select place, id, existed from reveille.enqueue_json($1::text::jsonb)";

/// The answers of a call: place, id and existed of each job.
type Answers = Vec<(i32, i64, bool)>;

async fn call(client: &Client, jobs: &str) -> Result<Answers, tokio_postgres::Error> {
    let rows = client.query(CALL, &[&jobs]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

async fn answers(database: &TestDatabase, jobs: &Value) -> Answers {
    call(&database.client().await, &jobs.to_string()).await.unwrap()
}

async fn refusal(client: &Client, jobs: &str) -> String {
    let error = call(client, jobs).await.expect_err(jobs);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{jobs}: {error}"));
    assert_eq!(error.code().code(), "22023", "{jobs}: {error:?}");
    error.message().to_owned()
}

#[tokio::test]
async fn a_job_or_an_array_of_jobs_is_enqueued_each_with_its_place() {
    let database = database().await;
    assert_eq!(answers(&database, &json!({"kind": "a"})).await, [(1, 1, false)]);
    let three = json!([{"kind": "a"}, {"kind": "b", "payload": [1], "queue": "q"}, {"kind": "c", "priority": "low"}]);
    assert_eq!(answers(&database, &three).await, [(1, 2, false), (2, 3, false), (3, 4, false)]);
    assert_eq!(answers(&database, &json!([])).await, []);
    let rows = "select jsonb_agg(jsonb_build_array(kind, payload, queue, priority) order by id) from reveille.jobs";
    let expected =
        json!([["a", {}, "default", 2], ["a", {}, "default", 2], ["b", [1], "q", 2], ["c", {}, "default", 3]]);
    assert_eq!(database.value(rows).await, expected);
}

#[tokio::test]
async fn every_option_of_a_job_reaches_its_column() {
    let database = database().await;
    let job = json!({
        "kind": "k", "payload": {"a": 1}, "queue": "q", "delay": "1 hour", "priority": "high", "max_attempts": 3,
        "timeout": 1.5, "unique_key": "u", "unique_mode": "replace", "unique_until": "started", "key": "é",
        "tags": ["a", "b, c"], "metadata": {"m": [1]}, "parent_id": 7, "max_payload": 100,
    });
    answers(&database, &job).await;
    let row = "select jsonb_build_array(
            kind, payload, queue, available_at - created_at, priority, max_attempts, timeout, unique_key, unique_until,
            key, tags, metadata, parent_id
        ) from reveille.jobs";
    let expected = json!([
        "k", {"a": 1}, "q", "01:00:00", 1, 3, "00:00:01.5", "u", "started", "é", ["a", "b, c"], {"m": [1]}, 7
    ]);
    assert_eq!(database.value(row).await, expected);
    let at = json!([{"kind": "at", "available_at": "2126-01-02 03:04+01"}, {"kind": "at", "delay": 90.5}]);
    answers(&database, &at).await;
    let due = "select jsonb_agg(case id when 2 then extract(epoch from available_at)::bigint
            else extract(epoch from available_at - created_at)::float8 end order by id)
        from reveille.jobs where kind = 'at'";
    assert_eq!(database.value(due).await, json!([4_922_993_040_u64, 90.5]));
}

#[tokio::test]
async fn a_null_counts_as_an_absent_key_except_as_a_payload() {
    let database = database().await;
    let keys = [
        "queue",
        "delay",
        "available_at",
        "priority",
        "max_attempts",
        "timeout",
        "unique_key",
        "unique_mode",
        "unique_until",
        "key",
        "tags",
        "metadata",
        "parent_id",
        "max_payload",
    ];
    let mut job = json!({"kind": "nulls", "payload": null});
    for key in keys {
        job[key] = Value::Null;
    }
    answers(&database, &json!([job, {"kind": "absent"}])).await;
    let rows = "select jsonb_agg(to_jsonb(jobs) - 'id' - 'kind' - 'payload') from reveille.jobs";
    let rows = database.value(rows).await;
    assert_eq!(rows[0], rows[1]);
    let payloads = "select jsonb_agg(payload order by id) from reveille.jobs";
    assert_eq!(database.value(payloads).await, json!([null, {}]), "a job without fields has the payload null");
}

/// Members of a job that are refused, with the error behind the job's place.
const REFUSED: [(&str, &str); 44] = [
    (r#""kind": null"#, r#"key "kind": is missing"#),
    (r#""kind": 7"#, r#"key "kind": must be a string, not a number"#),
    (r#""kind": """#, r#"key "kind": must have 1 to 128 characters, not 0"#),
    (r#""kin": "k""#, r#"key "kin": is unknown; known are kind, payload, queue, "#),
    (r#""a\nb\"": 1"#, r#"key "a\nb\"": is unknown; "#),
    (r#""queue": ["q"]"#, r#"key "queue": must be a string, not an array"#),
    (r#""queue": """#, r#"key "queue": must have 1 to 128 characters, not 0"#),
    (r#""delay": true"#, r#"key "delay": must be a length of time: a string such as "5 minutes", or a number of "#),
    (r#""delay": "soon""#, r#"key "delay": must be a length of time from 0 on: a string such as "5 minutes", or a "#),
    (
        r#""delay": -1"#,
        r#"key "delay": must be a length of time from 0 on: a string such as "5 minutes", or a number "#,
    ),
    (r#""delay": "-1 s""#, r#"key "delay": must be a length of time from 0 on"#),
    (r#""delay": 1e300"#, r#"key "delay": must be a length of time from 0 on"#),
    (r#""delay": 1e4000"#, r#"key "delay": must be a length of time from 0 on"#),
    (r#""delay": "300000 years""#, r#"key "delay": must be a length of time from 0 on"#),
    (r#""delay": 1, "available_at": "now""#, r#"key "available_at": excludes the key "delay"; give one of them"#),
    (r#""available_at": 7"#, r#"key "available_at": must be a string, not a number"#),
    (r#""available_at": "some day""#, r#"key "available_at": must be a time that Postgres reads, such as "#),
    (r#""available_at": "infinity""#, r#"key "available_at": must be a time that Postgres reads, such as "#),
    (
        r#""priority": 4"#,
        r#"key "priority": must be 0 (urgent), 1 (high), 2 (normal), 3 (low), or one of these names, "#,
    ),
    (r#""priority": "later""#, r#"key "priority": must be 0 (urgent), "#),
    (
        r#""priority": {}"#,
        r#"key "priority": must be 0 (urgent), 1 (high), 2 (normal), 3 (low), or one of these names, "#,
    ),
    (r#""max_attempts": "3""#, r#"key "max_attempts": must be a whole number, not a string"#),
    (r#""max_attempts": 0"#, r#"key "max_attempts": must be a whole number from 1 to 2147483647, not 0"#),
    (r#""max_attempts": 1.5"#, r#"key "max_attempts": must be a whole number from 1 to 2147483647, not 1.5"#),
    (r#""max_attempts": 2147483648"#, r#"key "max_attempts": must be a whole number from 1 to 2147483647, not 214"#),
    (r#""timeout": 0"#, r#"key "timeout": must be a positive length of time: a string such as "5 minutes", or a "#),
    (r#""timeout": []"#, r#"key "timeout": must be a length of time: a string such as "5 minutes", or a number of "#),
    (r#""unique_key": 7"#, r#"key "unique_key": must be a string, not a number"#),
    (r#""unique_key": """#, r#"key "unique_key": must have 1 to 512 bytes, not 0"#),
    (r#""unique_mode": "maybe""#, r#"key "unique_mode": must be "keep", "replace" or "debounce", not "maybe""#),
    (r#""unique_mode": false"#, r#"key "unique_mode": must be a string, not a boolean"#),
    (r#""unique_key": "u", "unique_until": "never""#, r#"key "unique_until": must be "started", "finished" or a "#),
    (r#""unique_until": "1 hour""#, r#"key "unique_until": a length of time needs a unique_key; give one"#),
    (r#""key": {}"#, r#"key "key": must be a string, not an object"#),
    (r#""tags": "a""#, r#"key "tags": must be an array of strings, not a string"#),
    (r#""tags": ["a", 7]"#, r#"key "tags": must be an array of strings, and each of its elements a string"#),
    (r#""tags": ["a", null]"#, r#"key "tags": must be an array of strings, and each of its elements a string"#),
    (r#""tags": [["a"]]"#, r#"key "tags": must be an array of strings, and each of its elements a string"#),
    (r#""metadata": [1]"#, r#"key "metadata": must be an object, not an array"#),
    (r#""parent_id": "7""#, r#"key "parent_id": must be a whole number, not a string"#),
    (r#""parent_id": 1e30"#, r#"key "parent_id": must be a whole number, the id of a job, not 1000000000"#),
    (r#""max_payload": -1"#, r#"key "max_payload": must be a whole number of bytes, not -1"#),
    (r#""payload": "12345678", "max_payload": 9"#, r#"key "payload": must have at most 9 bytes, not 10; keep large "#),
    (r#""payload": null, "payload": 7, "x": 1"#, r#"key "x": is unknown; "#),
];

#[tokio::test]
async fn each_wrong_key_type_and_value_is_a_one_line_error_with_the_place_and_the_key() {
    let database = database().await;
    let client = database.client().await;
    let long = |key: &str, length: usize| format!("\"{key}\": \"{}\"", "é".repeat(length));
    let mut refused: Vec<(String, String)> =
        REFUSED.iter().map(|(members, error)| ((*members).to_owned(), (*error).to_owned())).collect();
    refused.push((long("queue", 129), "key \"queue\": must have 1 to 128 characters, not 129".into()));
    refused.push((long("key", 257), "key \"key\": must have 1 to 512 bytes, not 514".into()));
    refused.push((format!("\"tags\": {:?}", ["t"; 65]), "key \"tags\": must have at most 64 strings, not 65".into()));
    refused.push((format!("\"tags\": [{:?}]", "t".repeat(16_385)), "key \"tags\": must have at most 16 KiB".into()));
    refused.push((format!("\"metadata\": {{{}}}", long("m", 131_072)), "key \"metadata\": must have at most 2".into()));
    refused.push((long("payload", 600_000), "key \"payload\": must have at most 1048576 bytes, not 1200002; ".into()));
    refused.push((long("unknown", 9).replace("unknown", &"u".repeat(100)), format!("key \"{}\": is", "u".repeat(60))));
    for (members, error) in refused {
        let kind = if members.starts_with("\"kind\"") { "" } else { "\"kind\": \"k\", " };
        let jobs = format!("[{{\"kind\": \"good\"}}, {{\"kind\": \"good\", \"delay\": 1}}, {{{kind}{members}}}]");
        let message = refusal(&client, &jobs).await;
        let expected = format!("job 3: {error}");
        assert!(message.starts_with(&expected), "{members:.200}\n{message}\n{expected}");
        assert!(!message.contains('\n') && message.len() < 400, "{message}");
    }
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

#[tokio::test]
async fn what_is_no_job_and_no_array_of_jobs_is_refused() {
    let client = database().await;
    let client = client.client().await;
    for (jobs, error) in [
        ("7", "jobs must be a job, which is an object, or an array of jobs, not number"),
        ("null", "jobs must be a job, which is an object, or an array of jobs, not null"),
        ("{}", "job 1: key \"kind\": is missing"),
        (r#"[{"kind": "k"}, 7]"#, "job 2: must be an object, not a number"),
        (r#"[{"kind": "k"}, null]"#, "job 2: must be an object, not null"),
        (r#"[[{"kind": "k"}]]"#, "job 1: must be an object, not an array"),
    ] {
        assert_eq!(refusal(&client, jobs).await, error);
    }
    let null = client.query("select * from reveille.enqueue_json(null)", &[]).await.unwrap_err();
    assert!(null.as_db_error().unwrap().message().ends_with("not null"), "{null:?}");
}

#[tokio::test]
async fn of_ten_thousand_wrong_jobs_the_first_is_named() {
    let database = database().await;
    let client = database.client().await;
    let wrong = vec![r#"{"kind": "k", "kidn": 1}"#; 10_000].join(",");
    assert!(refusal(&client, &format!("[{wrong}]")).await.starts_with("job 1: key \"kidn\": is unknown"));
    let good = vec![r#"{"kind": "k"}"#; 9_999].join(",");
    let last = refusal(&client, &format!("[{good}, {wrong}]")).await;
    assert!(last.starts_with("job 10000: key \"kidn\": is unknown"), "{last}");
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

#[tokio::test]
async fn ten_thousand_jobs_keep_their_order_with_and_without_options() {
    let database = database().await;
    for options in [json!({}), json!({"delay": 60, "tags": ["t"], "key": "k"})] {
        let jobs: Vec<Value> = (1..=10_000)
            .map(|n| {
                let mut job = json!({"kind": "k", "payload": n, "queue": "q"});
                job.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
                job
            })
            .collect();
        database.run("truncate reveille.jobs").await;
        let answers = answers(&database, &json!(jobs)).await;
        assert!(answers.iter().enumerate().all(|(index, (place, _, existed))| *place == index as i32 + 1 && !existed));
        let of_place: HashMap<i64, i32> = answers.iter().map(|(place, id, _)| (*id, *place)).collect();
        let client = database.client().await;
        for row in client.query("select id, payload from reveille.jobs", &[]).await.unwrap() {
            assert_eq!(of_place[&row.get::<_, i64>(0)], row.get::<_, Value>(1), "each id belongs to its place");
        }
        let in_order = "select bool_and(payload::int = place) and count(*) = 10000
            from (select payload, row_number() over (order by id) as place from reveille.jobs) as jobs";
        assert_eq!(database.value(in_order).await, true);
    }
}

fn unique(key: &str, payload: i32, mode: &str) -> Value {
    json!({"kind": "k", "payload": payload, "unique_key": key, "unique_mode": mode})
}

#[tokio::test]
async fn the_second_of_two_equal_unique_jobs_existed() {
    let database = database().await;
    let jobs = json!([unique("b", 1, "keep"), {"kind": "plain"}, unique("a", 2, "keep"), unique("b", 3, "replace")]);
    let first = answers(&database, &jobs).await;
    let (b, plain, a) = (first[0].1, first[1].1, first[2].1);
    assert_eq!(first, [(1, b, false), (2, plain, false), (3, a, false), (4, b, true)]);
    assert!(a < b, "unique jobs are stored in the order of their keys");
    assert_eq!(database.value(&format!("select payload from reveille.jobs where id = {b}")).await, 3);
    let second = answers(&database, &json!(unique("a", 9, "keep"))).await;
    assert_eq!(second, [(1, a, true)]);
    let held = json!({"kind": "p", "unique_key": "p", "unique_until": "1 hour"});
    answers(&database, &held).await;
    database.run("delete from reveille.jobs where kind = 'p'").await;
    assert!(answers(&database, &held).await[0].2, "the period outlasts the job");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_callers_with_the_same_keys_in_opposite_order_do_not_deadlock() {
    let database = database().await;
    let jobs: Vec<NewJob> = (0..200).map(|key| NewJob::of(&note("x")).unwrap().unique_key(key.to_string())).collect();
    let reversed: Vec<NewJob> = jobs.iter().rev().cloned().collect();
    for round in 0..10 {
        database.run("delete from reveille.jobs").await;
        let (one, mut other) = (database.client().await, database.client().await);
        let json = to_json_all(&jobs).unwrap();
        let one = call(&one, &json);
        let other = async {
            if round % 2 == 0 {
                return call(&other, &to_json_all(&reversed).unwrap()).await.unwrap().iter().filter(|a| a.2).count();
            }
            // The library's statement stores jobs in the same order.
            let tx = other.transaction().await.unwrap();
            let enqueued = enqueue_all(&tx, &reversed).await.unwrap();
            tx.commit().await.unwrap();
            enqueued.iter().filter(|job| job.existed).count()
        };
        let (one, existed) = tokio::join!(one, other);
        assert_eq!(one.unwrap().iter().filter(|answer| answer.2).count() + existed, 200);
        assert_eq!(database.value("select count(*) from reveille.jobs").await, 200);
    }
}

#[tokio::test]
async fn numbers_keep_their_digits_and_large_payloads_their_text() {
    let database = database().await;
    let client = database.client().await;
    let digits = "12345678901234567890.012345678901234567890";
    let job = NewJob::new("digits", Payload::parse(&format!("{{\"n\": {digits}}}")).unwrap());
    let job = job.metadata(&Payload::parse(&format!("{{\"m\": {digits}}}")).unwrap()).unwrap();
    call(&client, &job.to_json().unwrap()).await.unwrap();
    let texts = "select to_jsonb(array[payload ->> 'n', metadata ->> 'm']) from reveille.jobs";
    assert_eq!(database.value(texts).await, json!([digits, digits]));

    let large = NewJob::new("large", Payload::encode(&"x".repeat(8 * 1024 * 1024 - 2)).unwrap());
    let json = Enqueuer::new().max_payload(8 * 1024 * 1024).to_json(&large).unwrap();
    call(&client, &json).await.unwrap();
    let length = "select octet_length(payload::text) from reveille.jobs where kind = 'large'";
    assert_eq!(database.value(length).await, 8 * 1024 * 1024);
    let larger = format!("{{\"kind\": \"k\", \"payload\": \"{}\", \"max_payload\": 90000000}}", "x".repeat(9_000_000));
    let message = refusal(&client, &larger).await;
    assert!(message.starts_with("job 1: key \"payload\": must have at most 8388608 bytes, not 9000002"), "{message}");
    client.batch_execute("set reveille.max_payload = 10").await.unwrap();
    let message = refusal(&client, r#"{"kind": "k", "payload": "0123456789"}"#).await;
    assert!(message.starts_with("job 1: key \"payload\": must have at most 10 bytes, not 12"), "{message}");
}

#[tokio::test]
async fn the_jobs_exist_once_their_transaction_commits() {
    let database = database().await;
    let mut client = database.client().await;
    let json = to_json_all(&[note("a"), note("b")]).unwrap();
    let tx = client.transaction().await.unwrap();
    assert_eq!(tx.query(CALL, &[&json]).await.unwrap().len(), 2);
    tx.rollback().await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
    let (builder, mut reports) = reporting_worker(&database.database);
    let worker = start(builder.poll_interval(Duration::from_secs(3600)));
    database.until("select exists (select from reveille.sleepers)").await;
    call(&client, &json).await.unwrap();
    let mut texts = [reports.next().await, reports.next().await];
    texts.sort();
    assert_eq!(texts, ["a", "b"], "the insert wakes a sleeping worker");
    worker.stop().await;
}

/// Marks each job, and refuses a job of the kind `refused`.
struct Marks;

impl Middleware for Marks {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if job.kind == "refused" {
            return Err("no such kind".into());
        }
        Ok(job.set_metadata_member("marked", &true)?)
    }
}

/// Enqueues a child of its job by the JSON function.
async fn has_a_child(_: Note, State(reporter): State<Reporter>, State(database): State<Database>) {
    let json = NewJob::new("child", Payload::encode(&()).unwrap()).to_json().unwrap();
    database.client().await.unwrap().query(CALL, &[&json]).await.unwrap();
    reporter.report("done");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_as_json_pass_middleware_and_know_their_parent() {
    let database = database().await;
    let enqueuer = Enqueuer::new().middleware(Marks);
    let json = enqueuer.to_json_all(&[note("a"), note("b")]).unwrap();
    call(&database.client().await, &json).await.unwrap();
    assert_eq!(database.value("select bool_and((metadata -> 'marked')::boolean) from reveille.jobs").await, true);
    let refused = NewJob::new("refused", Payload::encode(&()).unwrap());
    assert!(enqueuer.to_json(&refused).unwrap_err().is_refused());
    assert!(NewJob::new("", Payload::encode(&()).unwrap()).to_json().unwrap_err().is_invalid());

    database.run("truncate reveille.jobs").await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).state(database.database.clone()).handle(has_a_child));
    let parent = enqueue(&database.database, &note("parent")).await.unwrap().id;
    assert_eq!(reports.next().await, "done");
    eventually("the child is there", async || {
        let child = database.value("select parent_id from reveille.jobs where kind = 'child'").await;
        child == json!(parent)
    })
    .await;
    worker.stop().await;
}

/// Returns the only job of the transaction, without its id.
async fn row(tx: &Transaction<'_>) -> Value {
    let rows = tx.query("select to_jsonb(jobs) - 'id' from reveille.jobs", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    rows[0].get(0)
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", "[^\0]{1,40}", Just("é".repeat(128))]
}

fn payloads() -> impl Strategy<Value = Payload> {
    let known =
        ["null", "{}", "[]", "0", "-0.0", "1e-30", "12345678901234567890.5", "\"\"", "{\"a\": {\"b\": [true]}}"];
    prop_oneof![
        proptest::sample::select(known.to_vec()).prop_map(|json| Payload::parse(json).unwrap()),
        "[^\0]{0,1000}".prop_map(|text| Payload::encode(&text).unwrap()),
    ]
}

fn lengths() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1u64..100_000_000).prop_map(Duration::from_micros),
        (1u64..100_000_000).prop_map(Duration::from_secs),
        Just(Duration::MAX),
    ]
}

/// Makes any job that can be stored.
fn jobs() -> impl Strategy<Value = NewJob> {
    let times = prop_oneof![
        (-60_000_000_000i64..200_000_000_000).prop_map(|seconds| {
            let length = Duration::from_secs(seconds.unsigned_abs()) + Duration::from_nanos(123_456_789);
            if seconds < 0 { SystemTime::UNIX_EPOCH - length } else { SystemTime::UNIX_EPOCH + length }
        }),
        Just(SystemTime::UNIX_EPOCH),
    ];
    let due = (proptest::option::of(lengths()), proptest::option::of(times));
    let numbers = (proptest::sample::select(Priority::ALL.to_vec()), 1u32..=i32::MAX as u32);
    let modes = proptest::sample::select(vec![UniqueMode::Keep, UniqueMode::Replace, UniqueMode::Debounce]);
    let until =
        prop_oneof![Just(UniqueUntil::Started), Just(UniqueUntil::Finished), lengths().prop_map(UniqueUntil::Period)];
    let unique = (proptest::option::of(texts()), modes, until);
    let metadata = proptest::option::of(payloads().prop_map(|payload| json!({"m": Value::Null, "p": payload})));
    let others = (
        proptest::option::of(lengths()),
        proptest::option::of(texts()),
        proptest::collection::vec("[^\0]{0,9}", 0..5),
        proptest::option::of(any::<i64>()),
    );
    (texts(), texts(), payloads(), due, numbers, unique, metadata, others).prop_map(
        |(kind, queue, payload, (delay, at), (priority, attempts), (key, mode, until), metadata, others)| {
            let mut job = NewJob::new(kind, payload).queue(queue).priority(priority).max_attempts(attempts);
            job = match (delay, at) {
                (_, Some(at)) => job.at(at),
                (Some(delay), None) => job.delay(delay),
                (None, None) => job,
            };
            if let Some(key) = key {
                job = job.unique_key(key).unique_mode(mode).unique_until(until);
            }
            (job.timeout, job.key, job.tags, job.parent_id) = others;
            match metadata {
                Some(metadata) => job.metadata(&metadata).unwrap(),
                None => job,
            }
        },
    )
}

#[test]
fn the_same_row_is_stored_as_by_the_library() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(database());
    let client = Mutex::new(runtime.block_on(database.client()));
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&jobs(), |job| {
        prop_assume!(job.check(8 * 1024 * 1024).is_ok());
        runtime.block_on(async {
            // Both run in one transaction, so that `now()` is the same.
            let mut client = client.lock().await;
            let mut tx = client.transaction().await.unwrap();
            let first = tx.transaction().await.unwrap();
            enqueue(&first, &job).await.map_err(|error| TestCaseError::fail(error.to_string()))?;
            let expected = row(&first).await;
            first.rollback().await.unwrap();
            let json = job.to_json().unwrap();
            let called = tx.query(CALL, &[&json]).await;
            called.map_err(|error| TestCaseError::fail(format!("{json}: {error:?}")))?;
            prop_assert_eq!(row(&tx).await, expected, "{}", json);
            Ok(())
        })
    });
    outcome.unwrap_or_else(|failed| panic!("{failed}"));
}

/// Values of which each fits some key, and none fits all.
const VALUES: [&str; 36] = [
    "null",
    "true",
    "0",
    "1",
    "2.0",
    "3",
    "-1",
    "1.5",
    "1e2",
    "1e40",
    "-1e400",
    "99999999999",
    "9223372036854775808",
    "\"\"",
    "\"keep\"",
    "\"started\"",
    "\"debounce\"",
    "\"finished\"",
    "\"1 hour\"",
    "\"-1 hour\"",
    "\"infinity\"",
    "\"1 mon -31 days\"",
    "\"290000 years\"",
    "\"tomorrow\"",
    "\"high\"",
    "\"2\"",
    "\"é\"",
    "\"now\"",
    "\"P1D\"",
    "\"0\"",
    "[]",
    "[\"a\"]",
    "[1]",
    "{}",
    "{\"a\": 1e100}",
    "\"2026-02-30\"",
];

#[test]
fn any_other_job_is_stored_or_refused_by_its_place_and_key() {
    const KEYS: [&str; 17] = [
        "kind",
        "payload",
        "queue",
        "delay",
        "available_at",
        "priority",
        "max_attempts",
        "timeout",
        "unique_key",
        "unique_mode",
        "unique_until",
        "key",
        "tags",
        "metadata",
        "parent_id",
        "max_payload",
        "other",
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(database());
    let client = Mutex::new(runtime.block_on(database.client()));
    let member = (proptest::sample::select(KEYS.to_vec()), proptest::sample::select(VALUES.to_vec()));
    let members = proptest::collection::vec(member, 0..4);
    let config = Config { cases: 1500, failure_persistence: None, ..Config::default() };
    let stored = Cell::new(0);
    let outcome = TestRunner::new(config).run(&members, |members| {
        let members: String = members.iter().map(|(key, value)| format!(", {key:?}: {value}")).collect();
        let json = format!("[{{\"kind\": \"k\"}}, {{\"kind\": \"k\"{members}}}]");
        runtime.block_on(async {
            let mut client = client.lock().await;
            let tx = client.transaction().await.unwrap();
            match tx.query(CALL, &[&json]).await {
                Ok(rows) => {
                    prop_assert_eq!(rows.len(), 2);
                    stored.set(stored.get() + 1);
                }
                Err(error) => {
                    let error = error.as_db_error().expect("the server answers");
                    let is_ours = error.message().starts_with("job 2: key \"") && error.code().code() == "22023";
                    prop_assert!(is_ours && !error.message().contains('\n'), "{json}: {error:?}");
                }
            }
            Ok(())
        })
    });
    outcome.unwrap_or_else(|failed| panic!("{failed}"));
    assert!(stored.get() > 200, "{} of the jobs were stored", stored.get());
}
