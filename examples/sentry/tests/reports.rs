//! A worker reports each failed attempt, and each attempt of a worker that was killed.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reveille::job::{NewJob, Payload};
use reveille::{Database, Job, Outcome, Worker, dev, enqueue};
use reveille_sentry_example::{Import, Reports};
use sentry::protocol::Event;
use sentry::test::TestTransport;
use serde::{Deserialize, Serialize};

/// Ends as its text says.
#[derive(Serialize, Deserialize)]
struct EndBy {
    way: String,
}

impl Job for EndBy {
    const KIND: &'static str = "end_by";
    const MAX_ATTEMPTS: u32 = 2;
}

async fn end_by(job: EndBy) -> Result<Outcome, String> {
    match &*job.way {
        "an error" => Err("the mail server is away".into()),
        "a timeout" => std::future::pending().await,
        "a panic" => panic!("index out of range"),
        "death" => Ok(Outcome::Dead("no such user".into())),
        "a cancel" => Ok(Outcome::Cancel),
        "a snooze" => Ok(Outcome::Snooze(Duration::from_secs(3600))),
        _ => Ok(Outcome::Complete),
    }
}

/// A worker in another process, killed with this value.
struct OtherWorker(Child);

impl Drop for OtherWorker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a query returns true.
async fn until(database: &Database, condition: &str) {
    let client = database.client().await.unwrap();
    for _ in 0..3000 {
        if client.query_one(condition, &[]).await.unwrap().get(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 30 s: {condition}");
}

/// Returns the tags, the fingerprint, the level and the error of an event, as one line.
fn line(event: &Event<'_>) -> String {
    let tags: Vec<String> = event.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let exception = &event.exception[0];
    let error = exception.value.as_deref().unwrap_or_default();
    format!("{} [{}] {} {}: {error}", tags.join(" "), event.fingerprint.join(" "), event.level, exception.ty)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failed_attempt_is_reported_with_its_job() {
    let transport = TestTransport::new();
    let options = sentry::ClientOptions::new().dsn("https://public@sentry.invalid/1").transport(Arc::clone(&transport));
    let _sentry = sentry::init(options);
    let server = dev::Server::start().unwrap();
    let url = server.url("postgres");
    let database = Database::connect(&url).await.unwrap();
    database.migrate().await.unwrap();

    // Another process runs the first job, and is killed.
    let lost = enqueue(&database, &Import { file: "may.csv".into() }).await.unwrap().id;
    let mut program = Command::new(env!("CARGO_BIN_EXE_reveille-sentry-example"));
    let other = OtherWorker(program.env("DATABASE_URL", &url).stdout(Stdio::null()).spawn().unwrap());
    // A worker is known to be dead by its session, which it has once it listens.
    until(
        &database,
        "select exists (select from reveille.jobs where reserved_at is not null)
            and exists (select from reveille.workers where holds_lock)",
    )
    .await;
    drop(other);

    let mut ids = BTreeMap::new();
    for way in ["an error", "a timeout", "a panic", "death", "a cancel", "a snooze", "success"] {
        let job = EndBy { way: way.into() };
        let job = enqueue(&database, &job).timeout(Duration::from_millis(300)).await;
        ids.insert(way, job.unwrap().id);
    }
    let odd = NewJob::new(EndBy::KIND, Payload::parse(r#"{"way": 7}"#).unwrap());
    ids.insert("decoding", enqueue(&database, &odd).await.unwrap().id);
    // This job has one attempt, so its error is its death.
    let last = enqueue(&database, &EndBy { way: "an error".into() }).max_attempts(1);
    ids.insert("the last error", last.await.unwrap().id);

    let worker = Worker::builder(database.clone())
        .queue("default", 4)
        .queue("imports", 4)
        .middleware(Reports::new(database.clone()))
        .handle(end_by)
        .handle(|_: Import| async {})
        .build()
        .unwrap();
    let stop = Arc::new(tokio::sync::Notify::new());
    let running = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move { worker.run_until(stop.notified()).await }
    });
    // The import is rescued and completed; three jobs fail twice, which takes a second; the other ends come before.
    until(
        &database,
        "select (select count(*) from reveille.finished_jobs where kind = 'import') = 1
            and (select count(*) from reveille.dead_jobs) = 6",
    )
    .await;
    stop.notify_one();
    running.await.unwrap().unwrap();

    let mut seen: Vec<String> = Vec::new();
    for _ in 0..1000 {
        seen.extend(transport.fetch_and_clear_events().iter().map(line));
        if seen.len() >= 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    seen.sort();

    let event = |way: &str, attempt: u32, end: &str, is_dead: bool, error: &str| {
        let (id, level) = (ids[way], if is_dead { "error" } else { "warning" });
        format!(
            "job.attempt={attempt} job.dead={is_dead} job.end={end} job.id={id} job.kind=end_by job.queue=default \
             [end_by {end}] {level} end_by {end}: {error}"
        )
    };
    let late = "took longer than its timeout of 300ms";
    let mut expected = vec![
        event("an error", 1, "failed", false, "the mail server is away"),
        event("an error", 2, "failed", true, "the mail server is away"),
        event("a timeout", 1, "timed_out", false, late),
        event("a timeout", 2, "timed_out", true, late),
        event("a panic", 1, "panicked", false, "panicked: index out of range"),
        event("a panic", 2, "panicked", true, "panicked: index out of range"),
        event("death", 1, "permanent", true, "no such user"),
        event("decoding", 1, "undecodable", true, "invalid type: integer `7`, expected a string at line 1 column 9"),
        event("the last error", 1, "failed", true, "the mail server is away"),
        format!(
            "job.attempt=1 job.dead=false job.end=lost job.id={lost} job.kind=import job.queue=imports [import lost] \
             warning import lost: the worker that ran it died or was cut off"
        ),
    ];
    expected.sort();
    assert_eq!(seen, expected);
}
