//! A stopping worker finishes its running jobs, and releases the jobs that do not finish.

use std::time::Duration;

use reveille::driver::Memory;
use reveille::{Context, State, Worker, enqueue, handler::Cancellation};
use serde_json::json;

use crate::harness::{Note, Reporter, database, note, reporting, soon, start, worker};
use crate::tracing::EventLog;

type Gate = std::sync::Arc<tokio::sync::Notify>;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_finished_within_the_grace_period() {
    async fn gated(note: Note, State(reporter): State<Reporter>, State(gate): State<Gate>) {
        reporter.report(note.text);
        gate.notified().await;
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let gate = Gate::default();
    let worker = start(worker(&database).state(reporter).state(gate.clone()).handle(gated));
    enqueue(&database.database, &note("running")).await.unwrap();
    reports.next().await;
    worker.begin_stop();
    database.until("select stopping from reveille.workers").await;
    enqueue(&database.database, &note("too late")).await.unwrap();
    gate.notify_one();
    worker.ended().await;
    assert_eq!(database.value("select payload ->> 'text' from reveille.finished_jobs").await, "running");
    let left = "select jsonb_build_array(payload -> 'text', attempts, reserved_at) from reveille.jobs";
    assert_eq!(database.value(left).await, json!(["too late", 0, null]), "the stopping worker starts no new job");
    assert!(reports.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_cancelled_at_the_end_of_the_grace_period() {
    async fn listens(_: Note, State(reporter): State<Reporter>, cancellation: Cancellation) -> Result<(), String> {
        reporter.report("started");
        cancellation.cancelled().await;
        reporter.report("cancelled");
        Err("stopped half-way".into())
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).grace(Duration::from_millis(100)).state(reporter).handle(listens));
    enqueue(&database.database, &note("x")).await.unwrap();
    reports.next().await;
    worker.stop().await;
    assert_eq!(reports.next().await, "cancelled");
    let back = "select jsonb_build_array(reserved_at, failures, available_at <= now()) from reveille.jobs";
    assert_eq!(database.value(back).await, json!([null, 0, true]), "the job is released without a failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_handler_ignores_its_cancel_is_released() {
    async fn ignores(_: Note, State(reporter): State<Reporter>) {
        reporter.report("started");
        std::future::pending::<()>().await;
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).grace(Duration::ZERO).state(reporter).handle(ignores));
    enqueue(&database.database, &note("x")).await.unwrap();
    reports.next().await;
    worker.stop().await;
    let back =
        "select jsonb_build_array(reserved_at, failures, attempts, available_at = created_at) from reveille.jobs";
    assert_eq!(database.value(back).await, json!([null, 0, 1, true]), "the job keeps its place");
}

/// Works the notes of a backlog slowly, reports every other note, and never ends the note `held`, unless it is tried
/// again.
async fn holds_one(note: Note, context: Context, State(reporter): State<Reporter>) {
    match note.text.as_str() {
        "backlog" => tokio::time::sleep(Duration::from_millis(1)).await,
        "held" if context.attempt().number == 1 => {
            reporter.report("holds");
            std::future::pending().await
        }
        text => reporter.report(text),
    }
}

const BACKLOG: &str = "insert into reveille.jobs (kind, payload, available_at)
    select 'note', '{\"text\": \"backlog\"}', now() - interval '1 hour' + n * interval '1 ms'
    from generate_series(1, 20000) as n";

#[tokio::test(flavor = "multi_thread")]
async fn a_released_job_keeps_its_place_before_a_backlog() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let holder = worker(&database).grace(Duration::ZERO).state(reporter.clone()).handle(holds_one);
    let hours_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    enqueue(&database.database, &note("held")).at(hours_ago).await.unwrap();
    let holder = start(holder);
    assert_eq!(reports.next().await, "holds");
    // The other worker has worked a part of the backlog when the first worker stops. So it searches the released job
    // below the place that its claims have reached.
    let other = start(worker(&database).state(reporter).handle(holds_one));
    database.run(BACKLOG).await;
    database.until("select count(*) > 500 from reveille.finished_jobs").await;
    holder.stop().await;
    assert_eq!(reports.next().await, "held");
    let left = database.value("select count(*) from reveille.jobs").await;
    assert!(left.as_i64().unwrap() > 0, "the backlog was not done yet");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_leaves_no_row_behind() {
    let database = database().await;
    let (builder, _reports) = crate::harness::reporting_worker(&database);
    let worker = start(builder);
    database.until("select count(*) = 1 from reveille.workers").await;
    worker.stop().await;
    assert_eq!(database.value("select count(*) from reveille.workers").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_in_the_middle_of_many_jobs_loses_none() {
    let database = database().await;
    let (builder, _reports) = crate::harness::reporting_worker(&database);
    let notes: Vec<Note> = (0..2000).map(|n| note(&n.to_string())).collect();
    reveille::enqueue::enqueue_all(&database.database, &notes).await.unwrap();
    let worker = start(builder);
    database.until("select count(*) > 50 from reveille.finished_jobs").await;
    worker.stop().await;
    let left =
        "select jsonb_build_array((select count(*) from reveille.jobs) + (select count(*) from reveille.finished_jobs),
        (select count(*) from reveille.jobs where reserved_at is not null))";
    assert_eq!(database.value(left).await, json!([2000, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_period_can_be_ended_early() {
    async fn listens(_: Note, State(reporter): State<Reporter>, cancellation: Cancellation) -> Result<(), String> {
        reporter.report("started");
        cancellation.cancelled().await;
        Err("stopped half-way".into())
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let gate = Gate::default();
    let again = std::sync::Arc::clone(&gate);
    let builder = worker(&database).grace(Duration::from_secs(3600)).end_grace(async move { again.notified().await });
    let worker = start(builder.state(reporter).handle(listens));
    enqueue(&database.database, &note("x")).await.unwrap();
    reports.next().await;
    worker.begin_stop();
    database.until("select stopping from reveille.workers").await;
    gate.notify_one();
    worker.ended().await;
    let back = "select jsonb_build_array(reserved_at, failures) from reveille.jobs";
    assert_eq!(database.value(back).await, json!([null, 0]));
}

#[tokio::test]
async fn a_second_request_to_stop_is_no_news_if_no_job_runs() {
    let (events, _guard) = EventLog::start();
    for _ in 0..20 {
        let worker = Worker::builder(Memory::new()).queue("default", 1).end_grace(std::future::ready(()));
        let worker = worker.handle(async |_: Note| {}).build().unwrap();
        soon("the worker ends", worker.run_until(std::future::ready(()))).await.unwrap();
    }
    assert_eq!(events.count("worker.grace_over", "jobs", "0"), 0);
}
