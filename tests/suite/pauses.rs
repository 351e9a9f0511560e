//! Pauses of kinds and keys: the jobs that a pause covers do not start, and the others do.

use std::time::Duration;

use reveille::admin::{JobEdit, Pause, Retried};
use reveille::driver::{ClaimRequest, Driver, Postgres, WorkerInfo};
use reveille::job::JobState;
use reveille::{Context, Job, State, Worker, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::harness::{Reporter, Reports, TestDatabase, database, eventually, reporting, soon, start, worker};

#[derive(Serialize, Deserialize)]
struct Mail {
    text: String,
}

impl Job for Mail {
    const KIND: &'static str = "mail";
}

#[derive(Serialize, Deserialize)]
struct Charge {
    text: String,
}

impl Job for Charge {
    const KIND: &'static str = "charge";
}

async fn send(mail: Mail, State(reporter): State<Reporter>) {
    reporter.report(mail.text);
}

async fn charge(charge: Charge, State(reporter): State<Reporter>) {
    reporter.report(charge.text);
}

/// Builds a worker of mails and charges that report their texts. Only the bell wakes it.
pub fn working(database: &TestDatabase) -> (reveille::worker::WorkerBuilder, Reports) {
    let (reporter, reports) = reporting();
    (worker(database).state(reporter).handle(send).handle(charge), reports)
}

/// Enqueues a job whose text is its name, with further arguments of `reveille.enqueue`.
pub async fn add(database: &TestDatabase, kind: &str, text: &str, more: &str) -> i64 {
    let payload = json!({"text": text});
    let sql = format!("select id from reveille.enqueue('{kind}', '{payload}'{more})");
    database.value(&sql).await.as_i64().unwrap()
}

/// Waits until this number of jobs is parked.
pub async fn until_parked(database: &TestDatabase, jobs: usize) {
    database.until(&format!("select count(*) = {jobs} from reveille.jobs where paused_by is not null")).await;
}

/// Returns a driver with a registered worker, whose id is 1.
pub async fn driver(database: &TestDatabase) -> Postgres {
    let driver = Postgres::new(database.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(1)).await.unwrap();
    driver
}

pub async fn claim(driver: &Postgres, limit: usize) -> Vec<i64> {
    let request = ClaimRequest::new(1, "default", limit);
    let claimed = soon("the claim is answered", driver.claim(&request)).await.unwrap();
    claimed.jobs.iter().map(|job| job.reservation.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_kind_starts_once_it_is_resumed_and_the_others_meanwhile() {
    let database = database().await;
    let (builder, mut reports) = working(&database);
    let worker = start(builder);
    let pauses = [
        ("kind => 'mail'", Pause::new().kind("mail")),
        ("key => 'a'", Pause::new().key("a")),
        ("kind => 'mail', key => 'a'", Pause::new().kind("mail").key("a")),
        ("queue => 'default', kind => 'mail'", Pause::new().queue("default").kind("mail")),
        ("queue => 'default', key => 'a'", Pause::new().queue("default").key("a")),
    ];
    for (arguments, pause) in pauses {
        for in_sql in [true, false] {
            if in_sql {
                database.run(&format!("select reveille.pause({arguments})")).await;
            } else {
                database.admin().pause(pause.clone()).await.unwrap();
            }
            add(&database, "mail", "covered", ", key => 'a'").await;
            until_parked(&database, 1).await;
            add(&database, "charge", "other", ", key => 'b'").await;
            assert_eq!(reports.next().await, "other", "{arguments}");
            if in_sql {
                database.run(&format!("select reveille.resume({arguments})")).await;
            } else {
                database.admin().resume(pause.clone()).await.unwrap();
            }
            assert_eq!(reports.next().await, "covered", "{arguments}");
        }
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_another_queue_kind_or_key_holds_nothing_back() {
    let database = database().await;
    for arguments in ["'other', 'mail'", "kind => 'mai'", "key => 'b'", "kind => 'mail', key => 'b'", "'other'"] {
        database.run(&format!("select reveille.pause({arguments})")).await;
    }
    let (builder, mut reports) = working(&database);
    let worker = start(builder);
    for more in ["", ", key => 'a'"] {
        add(&database, "mail", "a mail", more).await;
        assert_eq!(reports.next().await, "a mail");
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_parked_job_keeps_all_that_it_has() {
    let database = database().await;
    let driver = driver(&database).await;
    database.run("select reveille.pause(kind => 'mail')").await;
    let due = ", available_at => '2020-02-02 00:00Z', unique_key => 'u', unique_until => 'started', priority => 1";
    let id = add(&database, "mail", "a mail", due).await;
    let row = "select to_jsonb(jobs) - 'paused_by' from reveille.jobs";
    let before = database.value(row).await;
    for _ in 0..3 {
        assert!(claim(&driver, 10).await.is_empty());
        assert_eq!(database.value(row).await, before);
    }
    assert_eq!(database.value("select paused_by from reveille.jobs").await, 1);
    assert_eq!(add(&database, "mail", "again", ", unique_key => 'u'").await, id, "it keeps its unique key");
    database.run("select reveille.resume(kind => 'mail')").await;
    assert_eq!(database.value("select paused_by from reveille.jobs").await, Value::Null);
    assert_eq!(claim(&driver, 10).await, [id]);
    let claimed = database.value("select jsonb_build_array(attempts, failures, available_at) from reveille.jobs").await;
    assert_eq!(claimed, json!([1, 0, "2020-02-02T00:00:00+00:00"]));
}

#[tokio::test]
async fn a_delayed_job_of_a_paused_kind_keeps_its_due_time() {
    let database = database().await;
    let driver = driver(&database).await;
    database.run("select reveille.pause(kind => 'mail')").await;
    let id = add(&database, "mail", "later", ", delay => '1 hour'").await;
    assert!(claim(&driver, 10).await.is_empty());
    assert_eq!(database.admin().job(id).await.unwrap().unwrap().state, JobState::Delayed);
    assert_eq!(database.admin().retry(id).await.unwrap(), Retried::Due);
    assert!(claim(&driver, 10).await.is_empty(), "a retry makes it due, and it is parked");
    assert_eq!(database.admin().job(id).await.unwrap().unwrap().state, JobState::Parked);
    assert_eq!(database.admin().retry(id).await.unwrap(), Retried::Due);
    assert!(claim(&driver, 10).await.is_empty());
    database.run("select reveille.resume(kind => 'mail')").await;
    assert_eq!(claim(&driver, 10).await, [id]);
}

#[tokio::test]
async fn a_job_that_two_pauses_cover_starts_after_the_last_of_them() {
    let database = database().await;
    let driver = driver(&database).await;
    database.run("select reveille.pause(kind => 'mail'), reveille.pause(key => 'a'), reveille.pause(key => 'a')").await;
    assert_eq!(database.value("select count(*) from reveille.pauses").await, 2, "a pause is stored once");
    let id = add(&database, "mail", "a mail", ", key => 'a'").await;
    assert!(claim(&driver, 10).await.is_empty());
    for arguments in ["key => 'a'", "kind => 'mail'"] {
        assert!(claim(&driver, 10).await.is_empty());
        database.run(&format!("select reveille.resume({arguments})")).await;
    }
    assert_eq!(claim(&driver, 10).await, [id]);
}

#[tokio::test]
async fn a_whole_queue_and_a_kind_are_paused_and_resumed_apart() {
    let database = database().await;
    let driver = driver(&database).await;
    database.run("select reveille.pause('default'), reveille.pause('default', 'mail')").await;
    let (mail, other) = (add(&database, "mail", "a mail", "").await, add(&database, "charge", "a charge", "").await);
    assert!(claim(&driver, 10).await.is_empty());
    database.run("select reveille.resume('default')").await;
    assert_eq!(claim(&driver, 10).await, [other]);
    database.run("select reveille.resume('default', 'mail')").await;
    assert_eq!(claim(&driver, 10).await, [mail]);
}

/// The settings of a queue, by the statement that claims from it.
pub const QUEUES: [(&str, &str); 4] = [
    ("claim_paused", ""),
    ("claim_limited", "insert into reveille.queues (name, max_running, rate_limit) values ('default', 5000, 100000)"),
    ("claim_by_key", "insert into reveille.queues (name, max_running_per_key) values ('default', 3000)"),
    ("claim_by_key, ordered", "insert into reveille.queues (name, ordered) values ('default', true)"),
];

#[tokio::test]
async fn each_claim_parks_covered_jobs_and_reserves_the_others() {
    for (statement, settings) in QUEUES {
        let database = database().await;
        database.run(settings).await;
        database.run("select reveille.pause(kind => 'mail')").await;
        // The jobs of the paused kind are due before the others. Each job has a key of its own, or none.
        database
            .run(
                "insert into reveille.jobs (kind, key, available_at) \
                select case when n <= 2500 then 'mail' else 'charge' end, case when n % 2 = 0 then n::text end, \
                now() - (3000 - n) * interval '1 second' \
                from generate_series(1, 2600) as n",
            )
            .await;
        let driver = driver(&database).await;
        let mut claimed = Vec::new();
        soon("the jobs of other kinds are claimed", async {
            while claimed.len() < 100 {
                claimed.extend(claim(&driver, 30).await);
            }
        })
        .await;
        claimed.sort_unstable();
        assert_eq!(claimed, (2501..=2600).collect::<Vec<_>>(), "{statement}");
        eventually("the jobs of the paused kind are parked", async || {
            assert!(claim(&driver, 30).await.is_empty());
            database.value("select count(*) from reveille.jobs where paused_by is not null").await == 2500
        })
        .await;
        database.run("select reveille.resume(kind => 'mail')").await;
        let mut started = 0;
        soon("the paused kind is claimed", async {
            while started < 2500 {
                started += claim(&driver, 1000).await.len();
            }
        })
        .await;
        let odd = "select count(*) from reveille.jobs where attempts <> 1 or failures <> 0 or paused_by is not null";
        assert_eq!(database.value(odd).await, 0, "{statement}");
    }
}

#[tokio::test]
async fn in_an_ordered_queue_a_parked_job_holds_back_its_key() {
    let database = database().await;
    database.run("insert into reveille.queues (name, ordered) values ('default', true)").await;
    let driver = driver(&database).await;
    database.run("select reveille.pause(kind => 'mail')").await;
    let first = add(&database, "mail", "first", ", key => 'a'").await;
    let second = add(&database, "charge", "second", ", key => 'a'").await;
    let other = add(&database, "charge", "other", ", key => 'b'").await;
    assert_eq!(claim(&driver, 10).await, [other]);
    until_parked(&database, 1).await;
    assert!(claim(&driver, 10).await.is_empty());
    database.run("select reveille.resume(kind => 'mail')").await;
    assert_eq!(claim(&driver, 10).await, [first]);
    database.run(&format!("delete from reveille.jobs where id = {first}")).await;
    assert_eq!(claim(&driver, 10).await, [second]);
}

#[tokio::test]
async fn parked_jobs_use_no_start_of_a_rate_and_no_place_of_a_limit() {
    let database = database().await;
    let settings = "insert into reveille.queues (name, max_running, rate_limit, rate_period) \
        values ('default', 1, 1, '1 hour')";
    database.run(settings).await;
    let driver = driver(&database).await;
    database.run("select reveille.pause(kind => 'mail')").await;
    for _ in 0..3 {
        add(&database, "mail", "a mail", "").await;
    }
    assert!(claim(&driver, 1).await.is_empty());
    until_parked(&database, 3).await;
    assert_eq!(database.value("select count(*) from reveille.rates").await, 0);
    let charge = add(&database, "charge", "a charge", "").await;
    assert_eq!(claim(&driver, 1).await, [charge]);
}

#[tokio::test]
async fn a_parked_job_that_is_changed_starts_if_no_pause_covers_it_any_more() {
    let database = database().await;
    let driver = driver(&database).await;
    let admin = database.admin();
    database.run("select reveille.pause('default', key => 'a')").await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(add(&database, "mail", "a mail", ", key => 'a'").await);
    }
    assert!(claim(&driver, 10).await.is_empty());
    admin.edit(ids[0], JobEdit::new().key("b")).await.unwrap();
    database.run(&format!("update reveille.jobs set key = null where id = {}", ids[1])).await;
    database.run(&format!("update reveille.jobs set kind = 'charge' where id = {}", ids[2])).await;
    assert_eq!(claim(&driver, 10).await, ids[..2], "the third is still covered");
    admin.cancel(ids[2]).await.unwrap();
    admin.edit(ids[3], JobEdit::new().queue("other")).await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.jobs where paused_by is not null").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_a_kind_reaches_jobs_that_are_claimed_ahead() {
    async fn works(mail: Mail, context: Context, State(reporter): State<Reporter>) {
        reporter.report(context.id().to_string());
        let millis = if mail.text == "slow" { 60 } else { 0 };
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let hour = Duration::from_secs(3600);
    let builder = Worker::builder(database.database.clone()).queue("default", 1).poll_interval(hour).heartbeat(hour);
    let worker = start(builder.state(reporter).handle(works));
    // While jobs are quick, the worker claims ahead; the slow jobs after them wait for the slot.
    let many = "insert into reveille.jobs (kind, payload) select 'mail', jsonb_build_object('text', case when n > 3000 \
        then 'slow' else 'quick' end) from generate_series(1, 6000) as n";
    database.run(many).await;
    while reports.next().await.parse::<i64>().unwrap() <= 3000 {}
    database.run("select reveille.pause(kind => 'mail')").await;
    database.until("select count(*) = 0 from reveille.jobs where reserved_at is not null").await;
    until_parked(&database, database.value("select count(*) from reveille.jobs").await.as_u64().unwrap() as usize)
        .await;
    let last = reports.rest().pop();
    assert!(last.is_none_or(|last| last.parse::<i64>().unwrap() < 3100), "few have started after the pause");
    assert_eq!(database.value("select sum(failures) from reveille.jobs").await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_pause_that_names_nothing_or_a_bad_name_is_refused() {
    let database = database().await;
    for function in ["pause", "resume"] {
        let refusal = database.refusal(&format!("select reveille.{function}()")).await;
        assert_eq!(refusal, format!("{function} needs a queue, a kind or a key"));
    }
    for (arguments, constraint) in [
        ("kind => ''", "kind_has_1_to_128_characters"),
        ("kind => repeat('k', 129)", "kind_has_1_to_128_characters"),
        ("key => ''", "key_has_1_to_512_bytes"),
        ("queue => '', kind => 'mail'", "queue_has_1_to_128_characters"),
    ] {
        let refusal = database.refusal(&format!("select reveille.pause({arguments})")).await;
        assert!(refusal.contains(constraint), "{arguments}: {refusal}");
    }
    let admin = database.admin();
    for pause in [Pause::new(), Pause::new().kind(""), Pause::new().key("x".repeat(513)), "".into()] {
        assert!(admin.pause(pause.clone()).await.unwrap_err().is_invalid());
        assert!(admin.resume(pause).await.unwrap_err().is_invalid());
    }
    admin.resume(Pause::new().kind("never paused")).await.unwrap();
    enqueue(&database.database, &Mail { text: "x".into() }).await.unwrap();
}
