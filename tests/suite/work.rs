//! Attempts: the input of handlers, the outcomes of attempts, and the state of the job after an attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reveille::admin::{Cancelled, Retried};
use reveille::job::Payload;
use reveille::{
    Attempt, Context, Job, Outcome, State, Worker, enqueue,
    enqueue::enqueue_all,
    handler::Cancellation,
    job::{Priority, RetryPolicy},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::harness::{
    Note, Reporter, TestDatabase, database, note, report, reporting, reporting_worker, start, worker,
};

/// Returns `[state, attempts, failures]` of a job.
async fn fate(database: &TestDatabase, id: i64) -> Value {
    let sql = format!(
        "select jsonb_build_array('live', attempts, failures) from reveille.jobs where id = {id}
        union all select jsonb_build_array('dead', attempts, failures) from reveille.dead_jobs where id = {id}
        union all select jsonb_build_array(outcome, attempts, failures) from reveille.finished_jobs where id = {id}"
    );
    database.value(&sql).await
}

/// Waits until a job is neither waiting nor running.
async fn ended(database: &TestDatabase, id: i64) {
    database.until(&format!("select not exists (select from reveille.jobs where id = {id})")).await;
}

/// A kind whose retries are due at once.
#[derive(Serialize, Deserialize)]
struct Shaky {
    fails: u32,
}

impl Job for Shaky {
    const KIND: &'static str = "shaky";
    const MAX_ATTEMPTS: u32 = 3;
    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::ZERO)
    }
}

async fn shaky(job: Shaky, attempt: Attempt) -> Result<(), String> {
    if attempt.failures < job.fails { Err(format!("failure {}", attempt.number)) } else { Ok(()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_moves_to_the_history() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    let id = enqueue(&database.database, &note("x")).key("k").tag("t").await.unwrap().id;
    reports.next().await;
    ended(&database, id).await;
    let row =
        "select jsonb_build_array(queue, kind, payload, outcome, attempts, failures, key, tags, worker is not null,
        wait_seconds >= 0, run_seconds >= 0, finished_at >= created_at) from reveille.finished_jobs";
    let expected = json!(["default", "note", {"text": "x"}, "completed", 1, 0, "k", ["t"], true, true, true, true]);
    assert_eq!(database.value(row).await, expected);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_retention_keeps_nothing() {
    let database = database().await;
    database.run("insert into reveille.queues (name, retention) values ('default', '0')").await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    let id = enqueue(&database.database, &note("x")).await.unwrap().id;
    reports.next().await;
    ended(&database, id).await;
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_job_is_retried_until_it_succeeds() {
    let database = database().await;
    let worker = start(worker(&database).handle(shaky));
    let id = enqueue(&database.database, &Shaky { fails: 2 }).await.unwrap().id;
    ended(&database, id).await;
    assert_eq!(fate(&database, id).await, json!(["completed", 3, 2]));
    let errors =
        database.value("select jsonb_path_query_array(errors, '$[*].error') from reveille.finished_jobs").await;
    assert_eq!(errors, json!(["failure 1", "failure 2"]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_out_of_attempts_is_dead_with_every_error_kept() {
    let database = database().await;
    let worker = start(worker(&database).handle(shaky));
    let id = enqueue(&database.database, &Shaky { fails: 9 }).await.unwrap().id;
    ended(&database, id).await;
    assert_eq!(fate(&database, id).await, json!(["dead", 3, 3]));
    let dead = "select jsonb_build_array(reason, jsonb_array_length(errors), errors -> 2 -> 'attempt', \
        errors -> 2 -> 'error',
        errors -> 2 -> 'worker' = to_jsonb(worker), (errors -> 2 ->> 'at')::timestamptz <= now())
        from reveille.dead_jobs";
    assert_eq!(database.value(dead).await, json!(["failed", 3, 3, "failure 3", true, true]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revived_job_runs_again_with_fresh_failures() {
    let database = database().await;
    let worker = start(worker(&database).handle(shaky));
    let id = enqueue(&database.database, &Shaky { fails: 3 }).max_attempts(1).await.unwrap().id;
    ended(&database, id).await;
    database.run("update reveille.dead_jobs set payload = '{\"fails\": 0}'").await;
    assert_eq!(database.database.admin().retry(id).await.unwrap(), Retried::Revived);
    ended(&database, id).await;
    assert_eq!(fate(&database, id).await, json!(["completed", 2, 0]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_waits_as_its_policy_says() {
    #[derive(Serialize, Deserialize)]
    struct Slow {}
    impl Job for Slow {
        const KIND: &'static str = "slow";
        fn retry_policy() -> RetryPolicy {
            RetryPolicy::custom(|failures| Duration::from_secs(1000 * u64::from(failures)))
        }
    }
    let database = database().await;
    let worker = start(worker(&database).handle(async |_: Slow| Err::<(), _>("no")));
    enqueue(&database.database, &Slow {}).await.unwrap();
    database.until("select failures = 1 and reserved_at is null from reveille.jobs").await;
    let delay = database.value("select available_at - now() between '990 s' and '1000 s' from reveille.jobs").await;
    assert_eq!(delay, true);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_failure_with_its_message() {
    let database = database().await;
    async fn panics(note: Note) {
        panic!("cannot read {}", note.text);
    }
    let worker = start(worker(&database).handle(panics));
    let id = enqueue(&database.database, &note("this")).max_attempts(1).await.unwrap().id;
    ended(&database, id).await;
    assert_eq!(
        database.value("select errors -> 0 ->> 'error' from reveille.dead_jobs").await,
        "panicked: cannot read this"
    );
    assert!(worker.is_working(), "the worker goes on after the panic");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_payload_does_not_decode_dies_at_once_and_alone() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let insert = "insert into reveille.jobs (kind, payload) values ('note', '{\"txet\": 1}'),
        ('note', '{\"text\": \"good\"}'), ('note', '1e999'), ('note', (repeat('[', 300) || repeat(']', 300))::jsonb)";
    database.run(insert).await;
    let worker = start(builder);
    assert_eq!(reports.next().await, "good");
    database.until("select count(*) = 3 from reveille.dead_jobs where reason = 'undecodable'").await;
    let error = database.value("select errors -> 0 ->> 'error' from reveille.dead_jobs where id = 1").await;
    assert_eq!(error, "missing field `text` at line 1 column 11");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_a_handler_goes_back_at_no_cost() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    database.run("insert into reveille.jobs (kind) values ('unknown')").await;
    let worker = start(builder);
    database.until("select available_at > now() from reveille.jobs").await;
    assert_eq!(database.value("select jsonb_build_array(failures, errors) from reveille.jobs").await, json!([0, null]));
    enqueue(&database.database, &note("others go on")).await.unwrap();
    reports.next().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_does_what_it_says() {
    let database = database().await;
    async fn ends(note: Note, attempt: Attempt) -> Outcome {
        match (&*note.text, attempt.number) {
            ("complete", _) => Outcome::Complete,
            ("result", _) => Outcome::CompleteWith(Payload::encode(&json!({"answer": 42})).unwrap()),
            ("retry", 1) => Outcome::RetryIn(Duration::ZERO, "once more".into()),
            ("snooze", 1) => Outcome::Snooze(Duration::ZERO),
            ("cancel", _) => Outcome::Cancel,
            ("dead", _) => Outcome::Dead("hopeless".into()),
            _ => Outcome::Complete,
        }
    }
    let worker = start(worker(&database).handle(ends));
    let texts = ["complete", "result", "retry", "snooze", "cancel", "dead"];
    let notes = texts.map(note);
    let ids: Vec<i64> = enqueue_all(&database.database, &notes).await.unwrap().iter().map(|job| job.id).collect();
    let mut fates = Vec::new();
    for id in ids {
        ended(&database, id).await;
        fates.push(fate(&database, id).await);
    }
    let expected = json!([
        ["completed", 1, 0],
        ["completed", 1, 0],
        ["completed", 2, 1],
        ["completed", 2, 0],
        ["cancelled", 1, 0],
        ["dead", 1, 1]
    ]);
    assert_eq!(Value::from(fates), expected);
    let results = database.value("select jsonb_agg(result) from reveille.finished_jobs where result is not null").await;
    assert_eq!(results, json!([{"answer": 42}]));
    assert_eq!(database.value("select reason from reveille.dead_jobs").await, "permanent");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_ends_at_the_jobs_timeout() {
    let database = database().await;
    async fn hangs(_: Note) {
        std::future::pending::<()>().await;
    }
    let worker = start(worker(&database).handle(hangs));
    let short = Duration::from_millis(50);
    let id = enqueue(&database.database, &note("x")).timeout(short).max_attempts(1).await.unwrap().id;
    ended(&database, id).await;
    let dead = database.value("select jsonb_build_array(reason, errors -> 0 -> 'error') from reveille.dead_jobs").await;
    assert_eq!(dead, json!(["timed_out", "took longer than its timeout of 50ms"]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_and_a_worker_can_have_timeouts_too() {
    #[derive(Serialize, Deserialize)]
    struct Hang {}
    impl Job for Hang {
        const KIND: &'static str = "hang";
        const MAX_ATTEMPTS: u32 = 1;
        const TIMEOUT: Option<Duration> = Some(Duration::from_millis(20));
    }
    let database = database().await;
    let by_worker = async |_: Note| std::future::pending::<()>().await;
    let by_kind = async |_: Hang| std::future::pending::<()>().await;
    let worker = start(worker(&database).timeout(Duration::from_millis(30)).handle(by_worker).handle(by_kind));
    enqueue(&database.database, &Hang {}).await.unwrap();
    enqueue(&database.database, &note("x")).max_attempts(1).await.unwrap();
    database.until("select count(*) = 2 from reveille.dead_jobs").await;
    let errors = database.value("select jsonb_agg(errors -> 0 ->> 'error' order by id) from reveille.dead_jobs").await;
    assert_eq!(errors, json!(["took longer than its timeout of 20ms", "took longer than its timeout of 30ms"]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_jobs_run_first_and_equal_ones_in_order() {
    let database = database().await;
    for (text, priority) in [
        ("low", Priority::Low),
        ("normal 1", Priority::Normal),
        ("normal 2", Priority::Normal),
        ("urgent", Priority::Urgent),
    ] {
        enqueue(&database.database, &note(text)).priority(priority).await.unwrap();
    }
    let (reporter, mut reports) = reporting();
    let one_by_one = Worker::builder(database.database.clone()).queue("default", 1).state(reporter).handle(report);
    let worker = start(one_by_one);
    let order = [reports.next().await, reports.next().await, reports.next().await, reports.next().await];
    assert_eq!(order, ["urgent", "normal 1", "normal 2", "low"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_run_at_once_than_there_are_slots() {
    let database = database().await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, highest) = (Arc::clone(&running), Arc::clone(&most));
    let counts = move |_: Note| {
        let (now, highest) = (Arc::clone(&now), Arc::clone(&highest));
        async move {
            highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let notes: Vec<Note> = (0..200).map(|n| note(&n.to_string())).collect();
    enqueue_all(&database.database, &notes).await.unwrap();
    let worker = start(Worker::builder(database.database.clone()).queue("default", 5).handle(counts));
    database.until("select count(*) = 200 from reveille.finished_jobs").await;
    worker.stop().await;
    assert!((2..=5).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_gets_all_that_it_asks_for() {
    async fn asks(
        note: Note,
        State(reporter): State<Reporter>,
        State(number): State<u64>,
        attempt: Attempt,
        context: Context,
    ) {
        let job = context.job();
        let seen = json!([
            note.text,
            number,
            attempt.number,
            attempt.max_attempts,
            attempt.is_last(),
            job.queue,
            job.key,
            job.tags,
            context.metadata().unwrap(),
            context.id(),
            context.timeout().map(|timeout| timeout.as_secs())
        ]);
        reporter.report(seen.to_string());
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).state(7u64).handle(asks));
    let enqueue = enqueue(&database.database, &note("x")).key("k").tag("t").metadata(json!({"m": 1})).max_attempts(1);
    let id = enqueue.timeout(Duration::from_secs(9)).await.unwrap().id;
    let seen: Value = serde_json::from_str(&reports.next().await).unwrap();
    assert_eq!(seen, json!(["x", 7, 1, 1, true, "default", "k", ["t"], {"m": 1}, id, 9]));
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_cannot_work_is_not_built() {
    let database = database().await;
    let builder = || Worker::builder(database.database.clone());
    let refused = |builder: reveille::worker::WorkerBuilder| builder.build().err().expect("it is refused").to_string();
    assert!(refused(builder()).contains("needs a handler"));
    assert!(refused(builder().handle(report)).contains("State<"), "a state is missing");
    let (reporter, _reports) = reporting();
    let good = || builder().state(reporter.clone()).handle(report);
    assert!(refused(good().handle(report)).contains("the kind \"note\" has two handlers"));
    assert!(refused(good().queue("a", 1).queue("a", 2)).contains("twice"));
    assert!(refused(good().queue("a", 0)).contains("slot"));
    assert!(refused(good().queue("", 1)).contains("1 to 128"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_for_any_kind_takes_jobs_without_another_handler() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let others = reporter.clone();
    let any = move |context: Context| {
        let others = others.clone();
        async move { others.report(format!("any: {}", context.job().kind)) }
    };
    let worker = start(worker(&database).state(reporter).handle(report).handle_any(any, RetryPolicy::default()));
    database.run("insert into reveille.jobs (kind) values ('unknown')").await;
    assert_eq!(reports.next().await, "any: unknown");
    enqueue(&database.database, &note("mine")).await.unwrap();
    assert_eq!(reports.next().await, "mine");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_running_job_reaches_its_handler() {
    let database = database().await;
    async fn waits(_: Note, State(reporter): State<Reporter>, cancellation: Cancellation) -> Result<(), String> {
        reporter.report("started");
        cancellation.cancelled().await;
        reporter.report("cancelled");
        Err("stopped".into())
    }
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(waits));
    let id = enqueue(&database.database, &note("x")).await.unwrap().id;
    assert_eq!(reports.next().await, "started");
    assert_eq!(database.database.admin().cancel(id).await.unwrap(), Cancelled::Requested);
    assert_eq!(reports.next().await, "cancelled");
    ended(&database, id).await;
    assert_eq!(fate(&database, id).await, json!(["cancelled", 1, 0]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_a_worker_by_its_heartbeat() {
    let database = database().await;
    async fn waits(_: Note, State(reporter): State<Reporter>, cancellation: Cancellation) -> Result<(), String> {
        reporter.report("started");
        cancellation.cancelled().await;
        Err("stopped".into())
    }
    let (reporter, mut reports) = reporting();
    // The worker's first look finds the job. The next look comes an hour later.
    let id = enqueue(&database.database, &note("x")).await.unwrap().id;
    let polling = worker(&database).listen(false).heartbeat(Duration::from_millis(50)).state(reporter).handle(waits);
    let worker = start(polling);
    assert_eq!(reports.next().await, "started");
    database.run(&format!("select reveille.cancel({id})")).await;
    ended(&database, id).await;
    assert_eq!(fate(&database, id).await[0], "cancelled");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_errors_are_kept_and_no_more() {
    let database = database().await;
    let worker = start(worker(&database).handle(shaky));
    let id = enqueue(&database.database, &Shaky { fails: 999 }).max_attempts(103).await.unwrap().id;
    ended(&database, id).await;
    let kept = "select jsonb_build_array(failures, jsonb_array_length(errors), errors -> 99 -> 'attempt') \
        from reveille.dead_jobs";
    assert_eq!(database.value(kept).await, json!([103, 100, 103]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_error_with_a_nul_is_stored_shortened() {
    let database = database().await;
    async fn fails(note: Note) -> Result<(), String> {
        Err(format!("{} with a NUL \0 and {}", note.text, "x".repeat(100_000)))
    }
    let worker = start(worker(&database).handle(fails));
    let id = enqueue(&database.database, &note("x")).max_attempts(1).await.unwrap().id;
    ended(&database, id).await;
    let length = database.value("select length(errors -> 0 ->> 'error') < 9000 from reveille.dead_jobs").await;
    assert_eq!(length, true);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_a_queue_and_run_each_job_once() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let build = || worker(&database).state(reporter.clone()).handle(report);
    let (first, second) = (start(build()), start(build()));
    let notes: Vec<Note> = (0..500).map(|n| note(&n.to_string())).collect();
    enqueue_all(&database.database, &notes).await.unwrap();
    database.until("select count(*) = 500 from reveille.finished_jobs").await;
    first.stop().await;
    second.stop().await;
    let mut ran = reports.rest();
    ran.sort();
    ran.dedup();
    assert_eq!(
        (ran.len(), database.value("select sum(attempts) from reveille.finished_jobs").await),
        (500, json!(500))
    );
}
