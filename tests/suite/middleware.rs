//! Middleware around enqueuing and around attempts.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reveille::driver::{Ending, FailureReason};
use reveille::enqueue::Enqueuer;
use reveille::handler::{AttemptEnd, BoxFuture, Middleware, Next};
use reveille::job::{Payload, ReservedJob};
use reveille::{
    Context, Outcome, State, Worker,
    driver::Memory,
    enqueue,
    handler::Cancellation,
    job::{NewJob, RetryPolicy},
};
use serde_json::{Value, json};

use crate::harness::{Note, Reporter, database, note, report, reporting, start, worker};

type Refusal = Box<dyn StdError + Send + Sync>;

/// Encrypts payloads, so that the database holds no payload in plain text.
struct Cipher(u8);

impl Cipher {
    fn turn(&self, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().map(|byte| byte ^ self.0).collect()
    }

    fn open(&self, payload: &Payload) -> Result<Payload, Refusal> {
        let sealed: Vec<u8> = payload.decode()?;
        Ok(Payload::parse(&String::from_utf8(self.turn(&sealed))?)?)
    }
}

impl Middleware for Cipher {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Refusal> {
        job.payload = Payload::encode(&self.turn(job.payload.as_bytes()))?;
        Ok(())
    }

    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match self.open(&context.job().payload) {
                Ok(payload) => next.run(context.with_payload(payload)).await,
                Err(error) => Outcome::Undecodable(format!("cannot be decrypted: {error}")),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_encrypted_in_the_database_and_plain_in_the_handler() {
    let database = database().await;
    let cipher = Arc::new(Cipher(0x5a));
    let enqueuer = Enqueuer::new().middleware(Arc::clone(&cipher));
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    enqueuer.enqueue(&tx, &note("secret one")).tag("t").await.unwrap();
    enqueuer.enqueue_all(&tx, &[note("secret two"), note("secret three")]).await.unwrap();
    assert_eq!(enqueuer.copy_all(&tx, &[note("secret four")]).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let plain =
        "select count(*) from reveille.jobs where payload::text like '%secret%' or jsonb_typeof(payload) <> 'array'";
    assert_eq!(database.value(plain).await, 0);

    let (reporter, mut reports) = reporting();
    let running = start(worker(&database).state(reporter).middleware(cipher).handle(report));
    let mut texts = [reports.next().await, reports.next().await, reports.next().await, reports.next().await];
    texts.sort();
    assert_eq!(texts, ["secret four", "secret one", "secret three", "secret two"]);
    running.stop().await;
    let kept = "select count(*) from reveille.finished_jobs where jsonb_typeof(payload) = 'array'";
    assert_eq!(database.value(kept).await, 4, "the history keeps the payloads as they were stored");
}

#[tokio::test]
async fn a_job_whose_payload_cannot_be_decrypted_is_dead() {
    let memory = Memory::new();
    let builder = Worker::builder(memory.clone()).state(reporting().0).middleware(Cipher(1));
    let id = enqueue(&memory, &note("not encrypted")).await.unwrap().id;
    builder.handle(report).build().unwrap().run_until_drained().await.unwrap();
    let job = memory.job(id).unwrap();
    assert_eq!(job.reason, Some(FailureReason::Undecodable));
    assert!(job.errors[0].error.starts_with("cannot be decrypted: invalid type: map"), "{:?}", job.errors);
}

/// Reports each job that passes the middleware, and wraps the job's payload at the enqueue.
struct Mark(&'static str, Reporter);

impl Middleware for Mark {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Refusal> {
        self.1.report(format!("{} enqueue", self.0));
        job.payload = Payload::encode(&json!({ self.0: job.payload.decode::<Value>()? }))?;
        Ok(())
    }

    fn span(&self, job: &ReservedJob, _: &tracing::Span) {
        self.1.report(format!("{} span {}", self.0, job.kind));
    }

    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.1.report(format!("{} begins", self.0));
            let wrapped: Value = context.job().payload.decode().unwrap();
            let inner = Payload::encode(&wrapped[self.0]).unwrap();
            let outcome = next.run(context.with_payload(inner)).await;
            self.1.report(format!("{} ends with {outcome:?}", self.0));
            outcome
        })
    }
}

#[tokio::test]
async fn the_first_added_is_the_outermost_and_nearest_to_the_database() {
    let (reporter, mut reports) = reporting();
    let memory = Memory::new();
    let builder = Worker::builder(memory.clone()).state(reporter.clone());
    let builder = builder.middleware(Mark("first", reporter.clone())).middleware(Mark("last", reporter));
    let worker = builder.handle(report).build().unwrap();
    let id = worker.enqueuer().enqueue(&memory, &note("handled")).await.unwrap().id;
    let stored: Value = memory.job(id).unwrap().job.payload.decode().unwrap();
    assert_eq!(stored, json!({"first": {"last": {"text": "handled"}}}));
    assert_eq!(reports.rest(), ["last enqueue", "first enqueue"]);
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 1);
    let passed = ["first span note", "last span note", "first begins", "last begins", "handled"];
    let back = ["last ends with Complete", "first ends with Complete"];
    assert_eq!(reports.rest(), [&passed[..], &back[..]].concat());
}

#[tokio::test]
async fn inline_jobs_go_through_the_middleware_too() {
    let (reporter, mut reports) = reporting();
    let worker = Worker::builder(Memory::new()).state(reporter).middleware(Cipher(7)).handle(report).build().unwrap();
    let enqueuer = worker.enqueuer();
    let inline = worker.inline();
    enqueuer.enqueue(&inline, &note("at once")).await.unwrap();
    assert_eq!(reports.rest(), ["at once"]);
}

/// Refuses jobs whose payload is longer than 20 bytes.
struct Short;

impl Middleware for Short {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Refusal> {
        if job.payload.as_bytes().len() > 20 { Err("too long for us".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_refused_job_is_not_stored_and_the_transaction_goes_on() {
    let database = database().await;
    let enqueuer = Enqueuer::new().middleware(Short);
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    let long = note("this is longer than it may be");
    let error = enqueuer.enqueue(&tx, &long).await.unwrap_err();
    assert!(error.is_refused(), "{error:?}");
    assert_eq!(error.to_string(), "cannot enqueue: a middleware refused the job: too long for us");
    assert_eq!(error.source().unwrap().to_string(), "too long for us");
    assert!(enqueuer.enqueue_all(&tx, &[note("short"), long.clone()]).await.unwrap_err().is_refused());
    enqueuer.enqueue(&tx, &note("short")).await.unwrap();
    tx.commit().await.unwrap();
    assert!(enqueuer.copy_all(&database.database, &[note("short"), long]).await.unwrap_err().is_refused());
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1);
}

#[tokio::test]
async fn a_job_is_checked_after_its_middleware() {
    struct Spoil;
    impl Middleware for Spoil {
        fn enqueue(&self, job: &mut NewJob) -> Result<(), Refusal> {
            job.queue.clear();
            Ok(())
        }
    }
    struct Nul;
    impl Middleware for Nul {
        fn enqueue(&self, job: &mut NewJob) -> Result<(), Refusal> {
            job.payload = Payload::encode("a\0b")?;
            Ok(())
        }
    }
    let memory = Memory::new();
    let error = Enqueuer::new().middleware(Spoil).enqueue(&memory, &note("x")).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("queue"), "{error}");
    let sealing = Enqueuer::new().middleware(Cipher(1));
    let error = sealing.enqueue(&memory, &note("x")).max_payload(20).await.unwrap_err();
    assert!(error.is_invalid(), "the stored payload is measured: {error}");
    let error = Enqueuer::new().middleware(Nul).enqueue(&memory, &note("x")).await.unwrap_err();
    assert!(error.is_invalid(), "an error of Reveille's keeps its kind: {error:?}");
    assert!(memory.jobs().is_empty());
}

#[tokio::test]
async fn a_panic_in_a_middleware_is_a_failure_of_the_attempt() {
    struct Panics(&'static str);
    impl Middleware for Panics {
        fn span(&self, _: &ReservedJob, _: &tracing::Span) {
            assert!(self.0 != "span", "span");
        }
        fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
            assert!(self.0 != "call", "call");
            Box::pin(async move {
                assert!(self.0 != "before", "before");
                next.run(context).await;
                panic!("after")
            })
        }
    }
    for place in ["span", "call", "before", "after"] {
        let outermost = Worker::builder(Memory::new()).middleware(Panics(place)).state(reporting().0);
        let within = Worker::builder(Memory::new()).middleware(Short).middleware(Panics(place)).state(reporting().0);
        for builder in [outermost, within] {
            let worker = builder.handle(report).build().unwrap();
            let Ending::Waiting { failure: Some(failure), .. } = worker.attempt(&note("x")).await.unwrap() else {
                panic!("the attempt should have failed")
            };
            assert_eq!((failure.reason, failure.error), (FailureReason::Failed, format!("panicked: {place}")));
        }
    }
}

#[tokio::test]
async fn a_middleware_sees_the_outcome_and_can_change_it() {
    struct Softens(Reporter);
    impl Middleware for Softens {
        fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
            Box::pin(async move {
                let outcome = next.run(context).await;
                self.0.report(format!("{outcome:?}"));
                if let Outcome::Undecodable(_) = outcome { Outcome::Cancel } else { outcome }
            })
        }
    }
    async fn fails(_: Note) -> Result<(), String> {
        Err("no".into())
    }
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(Memory::new()).middleware(Softens(reporter));
    let builder = builder.handle(fails).handle_any(async |_| Outcome::Dead("any".into()), RetryPolicy::default());
    let worker = builder.build().unwrap();
    assert!(matches!(worker.attempt(&note("x")).await.unwrap(), Ending::Waiting { failure: Some(_), .. }));
    let seven = Payload::encode(&7).unwrap();
    assert_eq!(worker.attempt(&NewJob::new("note", seven.clone())).await.unwrap(), Ending::Cancelled);
    assert!(matches!(worker.attempt(&NewJob::new("other", seven)).await.unwrap(), Ending::Dead(_)));
    let seen = reports.rest();
    assert_eq!(seen[0], "Fail(\"no\")");
    assert!(seen[1].starts_with("Undecodable(\"invalid type: integer `7`"), "{seen:?}");
    assert_eq!(seen[2], "Dead(\"any\")");
}

#[tokio::test]
async fn a_handler_enqueues_through_its_workers_middleware() {
    async fn split(
        note: Note,
        State(memory): State<Memory>,
        State(reporter): State<Reporter>,
        enqueuer: Enqueuer,
        context: Context,
    ) -> reveille::Result<()> {
        if note.text == "both" {
            enqueuer.enqueue(&memory, &Note { text: "left".into() }).await?;
            context.enqueuer().enqueue_all(&memory, &[Note { text: "right".into() }]).await?;
        }
        reporter.report(note.text);
        Ok(())
    }
    let (memory, (reporter, mut reports)) = (Memory::new(), reporting());
    let builder = Worker::builder(memory.clone()).state(memory.clone()).state(reporter).middleware(Cipher(9));
    let worker = builder.handle(split).build().unwrap();
    worker.enqueuer().enqueue(&memory, &note("both")).await.unwrap();
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 3);
    assert_eq!(reports.rest(), ["both", "left", "right"]);
    let stored = memory.jobs().iter().all(|job| job.job.payload.decode::<Vec<u8>>().is_ok());
    assert!(stored, "all stored payloads are encrypted");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_drops_the_middlewares_future() {
    struct OnDrop(Arc<Mutex<Vec<&'static str>>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.lock().unwrap().push("dropped");
        }
    }
    struct Guards(Arc<Mutex<Vec<&'static str>>>);
    impl Middleware for Guards {
        fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
            Box::pin(async move {
                let _guard = OnDrop(Arc::clone(&self.0));
                let outcome = next.run(context).await;
                self.0.lock().unwrap().push("ended");
                outcome
            })
        }
    }
    async fn hangs(_: Note) {
        std::future::pending().await
    }
    let seen = Arc::default();
    let builder = Worker::builder(Memory::new()).middleware(Guards(Arc::clone(&seen)));
    let worker = builder.timeout(Duration::from_secs(3)).handle(hangs).build().unwrap();
    let Ending::Waiting { failure: Some(failure), .. } = worker.attempt(&note("x")).await.unwrap() else {
        panic!("the attempt should have failed")
    };
    assert_eq!(failure.reason, FailureReason::TimedOut);
    assert_eq!(*seen.lock().unwrap(), ["dropped"]);
}

#[cfg(feature = "schedules")]
mod schedules {
    use reveille::Database;
    use reveille::schedule::Schedule;
    use reveille::worker::WorkerBuilder;

    use super::*;

    fn often(name: &str) -> Schedule {
        Schedule::every(name, Duration::from_millis(50), &note("scheduled secret")).unwrap()
    }

    /// Builds a worker of a queue without jobs.
    fn idle(database: &Database) -> WorkerBuilder {
        Worker::builder(database.clone()).queue("nothing", 1)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn jobs_of_a_workers_schedules_pass_its_middleware() {
        let database = database().await;
        let (reporter, mut reports) = reporting();
        let running =
            start(worker(&database).state(reporter).middleware(Cipher(7)).schedule(often("own")).handle(report));
        for _ in 0..3 {
            assert_eq!(reports.next().await, "scheduled secret");
        }
        database.until("select count(*) > 2 from reveille.finished_jobs").await;
        running.stop().await;
        let stored = "select bool_and(jsonb_typeof(payload) = 'array' and schedule_id is not null \
            and metadata ->> 'schedule' = 'own'
            and (metadata ->> 'tick')::timestamptz = available_at) from reveille.finished_jobs";
        assert_eq!(database.value(stored).await, true);
        assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 0);
        let once = "select count(distinct available_at) = count(*) from reveille.finished_jobs";
        assert_eq!(database.value(once).await, true);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_the_declaring_worker_fires_a_schedule_with_middleware() {
        let database = database().await;
        let (reporter, mut reports) = reporting();
        let own = start(
            worker(&database).state(reporter.clone()).middleware(Cipher(7)).schedule(often("own")).handle(report),
        );
        reports.next().await;
        own.stop().await;
        let fired = "select max(last_at) from reveille.schedules where name = 'own'";
        let last = database.value(fired).await;
        let other = start(idle(&database).state(reporter.clone()).schedule(often("other")).handle(report));
        database.until("select count(*) > 3 from reveille.jobs where metadata ->> 'schedule' = 'other'").await;
        assert_eq!(database.value(fired).await, last);
        other.stop().await;
        // A worker without middleware now declares the schedule, so any worker may fire it.
        let plain = start(idle(&database).state(reporter).schedule(often("own")).handle(report));
        let plainly = "select count(*) > 0 from reveille.jobs where metadata ->> 'schedule' = 'own' \
            and jsonb_typeof(payload) = 'object'";
        database.until(plainly).await;
        plain.stop().await;
    }

    struct Refuses;

    impl Middleware for Refuses {
        fn enqueue(&self, job: &mut NewJob) -> Result<(), Refusal> {
            if job.queue == "refused" { Err("not this one".into()) } else { Ok(()) }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tick_that_middleware_refuses_stops_no_other_schedule() {
        let memory = Memory::new();
        let (reporter, mut reports) = reporting();
        let builder = Worker::builder(memory).state(reporter).middleware(Refuses).handle(report);
        let running = start(builder.schedule(often("bad").queue("refused")).schedule(often("good")));
        for _ in 0..3 {
            assert_eq!(reports.next().await, "scheduled secret");
        }
        running.stop().await;
    }
}

/// Reports the ends of attempts.
struct Hook(Reporter);

impl Middleware for Hook {
    fn ended(&self, end: &AttemptEnd<'_>) {
        let (queue, how) = (end.job.map_or("-", |job| &*job.queue), end.kind.name());
        let dead = if end.is_dead { " dead" } else { "" };
        let error = end.error.unwrap_or("-");
        self.0.report(format!("{} {queue} {how}{dead}: {error} {}", end.id, end.ran.is_some()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_sees_every_kind_of_end_of_an_attempt() {
    async fn ends(note: Note, cancellation: Cancellation) -> Outcome {
        match note.text.as_str() {
            "done" => Outcome::Complete,
            "fails" => Outcome::Fail("no".into()),
            "panics" => panic!("at once"),
            "dies" => Outcome::Dead("never".into()),
            "snoozes" => Outcome::Snooze(Duration::from_secs(3600)),
            "cancels" => Outcome::Cancel,
            "sleeps" => std::future::pending().await,
            _ => {
                cancellation.cancelled().await;
                Outcome::Fail("stopped".into())
            }
        }
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    // Inserts a reserved job whose worker is gone.
    database
        .run("insert into reveille.jobs (kind, reserved_at, reserved_by, attempts) values ('k', now(), 7, 1)")
        .await;
    let builder = worker(&database).middleware(Hook(reporter)).queue("more", 1).grace(Duration::ZERO);
    let running = start(builder.handle(ends));
    // The rescued job can be claimed, and released for want of a handler, before the rescue reports it.
    let mut first = [reports.next().await, reports.next().await];
    first.sort();
    let lost = "1 - lost: the worker that ran it died or was cut off false";
    assert_eq!(first, [lost, "1 default released: - true"]);
    let took = "took longer than its timeout of 10ms";
    for (id, text, end) in [
        (2, "done", "completed: -"),
        (3, "fails", "failed dead: no"),
        (4, "panics", "panicked dead: panicked: at once"),
        (5, "dies", "permanent dead: never"),
        (6, "snoozes", "snoozed: -"),
        (7, "cancels", "cancelled: -"),
        (8, "sleeps", &format!("timed_out dead: {took}")),
    ] {
        let timeout = if text == "sleeps" { Duration::from_millis(10) } else { Duration::from_secs(3600) };
        enqueue(&database.database, &note(text)).max_attempts(1).timeout(timeout).await.unwrap();
        assert_eq!(reports.next().await, format!("{id} default {end} true"));
    }
    database.run("insert into reveille.jobs (kind, payload, queue) values ('note', '7', 'more')").await;
    let undecodable = reports.next().await;
    assert!(undecodable.starts_with("9 more undecodable dead: "), "{undecodable}");
    enqueue(&database.database, &note("waits")).await.unwrap();
    database.until("select reserved_at is not null from reveille.jobs where id = 10").await;
    database.run("select reveille.cancel(10)").await;
    assert_eq!(reports.next().await, "10 default cancelled: - true");
    enqueue(&database.database, &note("waits")).await.unwrap();
    database.until("select reserved_at is not null from reveille.jobs where id = 11").await;
    running.stop().await;
    assert_eq!(reports.next().await, "11 default released: - true");
}
