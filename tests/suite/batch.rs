//! Handlers that take many jobs in one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use reveille::admin::Cancelled;
use reveille::driver::FailureReason;
use reveille::handler::{Batch, Gather};
use reveille::handler::{Middleware, Next};
use reveille::worker::WorkerBuilder;
use reveille::{Context, Database, Outcome, State, Worker, driver::Memory, enqueue, enqueue::enqueue_all, job::NewJob};
use serde_json::json;

use crate::harness::{Note, Reporter, TestDatabase, database, eventually, note, reporting, start};

const HOUR: Duration = Duration::from_secs(3600);

fn notes(texts: &[&str]) -> Vec<Note> {
    texts.iter().map(|text| note(text)).collect()
}

fn texts(batch: &Batch<Note>) -> String {
    batch.iter().map(|item| item.job.text.as_str()).collect::<Vec<_>>().join(" ")
}

async fn tell_all(batch: Batch<Note>, State(reporter): State<Reporter>) {
    reporter.report(texts(&batch));
}

/// Builds a worker with 16 slots that only the bell wakes.
fn worker(database: &Database) -> WorkerBuilder {
    Worker::builder(database.clone()).queue("default", 16).poll_interval(HOUR)
}

/// Returns the text, state, failures and last error of every job, live or ended.
async fn all(database: &TestDatabase) -> serde_json::Value {
    let all =
        "select jsonb_agg(jsonb_build_array(payload ->> 'text', state, failures, errors -> -1 ->> 'error') order by id)
        from (
            select id, payload, 'live' as state, failures, errors from reveille.jobs
            union all select id, payload, outcome, failures, errors from reveille.finished_jobs
            union all select id, payload, reason, failures, errors from reveille.dead_jobs
        ) as jobs";
    database.value(all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_begins_as_soon_as_it_is_full() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle_batch(Gather::up_to(3).within(HOUR), tell_all));
    enqueue_all(&database.database, &notes(&["a", "b", "c", "d", "e", "f"])).await.unwrap();
    assert_eq!(reports.next().await.split(' ').count(), 3);
    assert_eq!(reports.next().await.split(' ').count(), 3);
    database.until("select count(*) = 6 from reveille.finished_jobs where outcome = 'completed'").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_begins_when_its_first_job_has_waited_long_enough() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let gather = Gather::up_to(10).within(Duration::from_millis(10));
    let worker = start(worker(&database).state(reporter).handle_batch(gather, tell_all));
    for text in ["alone", "again"] {
        enqueue(&database.database, &note(text)).await.unwrap();
        assert_eq!(reports.next().await, text);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_of_a_batch_has_its_own_outcome() {
    async fn judge(batch: Batch<Note>) -> Vec<Outcome> {
        let judge = |text: &str| match text {
            "fail" => Outcome::RetryIn(HOUR, "no".into()),
            "die" => Outcome::Dead("never".into()),
            "cancel" => Outcome::Cancel,
            "snooze" => Outcome::Snooze(HOUR),
            _ => Outcome::Complete,
        };
        batch.iter().map(|item| judge(&item.job.text)).collect()
    }
    let database = database().await;
    let worker = start(worker(&database).handle_batch(Gather::up_to(5).within(HOUR), judge));
    enqueue_all(&database.database, &notes(&["done", "fail", "die", "cancel", "snooze"])).await.unwrap();
    database.until("select count(*) = 0 from reveille.jobs where attempts = 0 or reserved_at is not null").await;
    let expected = json!([
        ["done", "completed", 0, null],
        ["fail", "live", 1, "no"],
        ["die", "permanent", 1, "never"],
        ["cancel", "cancelled", 0, null],
        ["snooze", "live", 0, null]
    ]);
    assert_eq!(all(&database).await, expected);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_handler_is_a_failure_of_each_job() {
    async fn err(_: Batch<Note>) -> Result<Vec<Outcome>, &'static str> {
        Err("the index is away")
    }
    async fn panics(batch: Batch<Note>) {
        assert!(batch.is_empty(), "there are {}", batch.len());
    }
    async fn too_few(_: Batch<Note>) -> Vec<Outcome> {
        vec![Outcome::Complete]
    }
    type Handle = fn(WorkerBuilder, Gather) -> WorkerBuilder;
    let wrong = "the handler of a batch of 2 jobs returned 1 outcomes, not one per job";
    let gather = Gather::up_to(2).within(HOUR);
    let failures: [(Handle, &str); 3] = [
        (|builder, gather| builder.handle_batch(gather, err), "the index is away"),
        (|builder, gather| builder.handle_batch(gather, panics), "panicked: there are 2"),
        (|builder, gather| builder.handle_batch(gather, too_few), wrong),
    ];
    for (handle, error) in failures {
        let database = database().await;
        let worker = start(handle(worker(&database), gather));
        for text in ["a", "b"] {
            enqueue(&database.database, &note(text)).max_attempts(1).await.unwrap();
        }
        database.until("select count(*) = 2 from reveille.dead_jobs").await;
        assert_eq!(all(&database).await, json!([["a", "failed", 1, error], ["b", "failed", 1, error]]));
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_job_fails_alone() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle_batch(Gather::up_to(2).within(HOUR), tell_all));
    database.run("insert into reveille.jobs (kind, payload) values ('note', '{\"text\": 1}')").await;
    enqueue_all(&database.database, &notes(&["a", "b"])).await.unwrap();
    assert_eq!(reports.next().await, "a b");
    database.until("select count(*) = 1 from reveille.dead_jobs where reason = 'undecodable'").await;
    database.until("select count(*) = 2 from reveille.finished_jobs").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_one_job_leaves_the_others_running() {
    async fn wait_for_one(batch: Batch<Note>, State(reporter): State<Reporter>) -> Vec<Outcome> {
        reporter.report("begun");
        batch[1].context.cancellation().cancelled().await;
        let others = batch.iter().filter(|item| !item.context.cancellation().is_cancelled()).count();
        reporter.report(format!("{others} others, {}", batch.cancellation().is_cancelled()));
        vec![Outcome::Complete, Outcome::Fail("stopped".into()), Outcome::Complete]
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle_batch(Gather::up_to(3).within(HOUR), wait_for_one));
    let jobs = enqueue_all(&database.database, &notes(&["a", "b", "c"])).await.unwrap();
    assert_eq!(reports.next().await, "begun");
    assert_eq!(database.admin().cancel(jobs[1].id).await.unwrap(), Cancelled::Requested);
    assert_eq!(reports.next().await, "2 others, false");
    database.until("select count(*) = 3 from reveille.finished_jobs").await;
    let outcomes = "select jsonb_agg(outcome order by id) from reveille.finished_jobs";
    assert_eq!(database.value(outcomes).await, json!(["completed", "cancelled", "completed"]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cancelled_while_its_batch_gathers_takes_no_part() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle_batch(Gather::up_to(3).within(HOUR), tell_all));
    let first = enqueue(&database.database, &note("first")).await.unwrap();
    database.until("select count(*) = 1 from reveille.jobs where reserved_at is not null").await;
    assert_eq!(database.admin().cancel(first.id).await.unwrap(), Cancelled::Requested);
    database.until("select count(*) = 1 from reveille.finished_jobs where outcome = 'cancelled'").await;
    enqueue_all(&database.database, &notes(&["a", "b", "c"])).await.unwrap();
    assert_eq!(reports.next().await.split(' ').count(), 3, "the cancelled job has left its batch");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_timeout_ends_its_own_attempt_only() {
    async fn wait(batch: Batch<Note>, State(reporter): State<Reporter>, State(gate): State<Arc<tokio::sync::Notify>>) {
        reporter.report(texts(&batch));
        gate.notified().await;
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let gate = Arc::new(tokio::sync::Notify::new());
    let builder = worker(&database).state(reporter).state(gate.clone());
    let worker = start(builder.handle_batch(Gather::up_to(2).within(HOUR), wait));
    enqueue(&database.database, &note("long")).await.unwrap();
    enqueue(&database.database, &note("short")).timeout(Duration::from_millis(300)).max_attempts(1).await.unwrap();
    reports.next().await;
    database.until("select count(*) = 1 from reveille.dead_jobs where reason = 'timed_out'").await;
    gate.notify_one();
    database.until("select count(*) = 1 from reveille.finished_jobs where payload ->> 'text' = 'long'").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_shutdown_the_jobs_gathered_so_far_run() {
    struct Gathered(Reporter);
    impl Middleware for Gathered {
        fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
            let attempt = next.run(context);
            self.0.report("gathered");
            attempt
        }
    }
    let database = database().await;
    let ((reporter, mut reports), (gathered, mut gathering)) = (reporting(), reporting());
    let builder = worker(&database).state(reporter).middleware(Gathered(gathered));
    let worker = start(builder.handle_batch(Gather::up_to(10).within(HOUR), tell_all));
    enqueue_all(&database.database, &notes(&["a", "b"])).await.unwrap();
    assert_eq!((gathering.next().await, gathering.next().await), ("gathered".into(), "gathered".into()));
    worker.stop().await;
    assert_eq!(reports.next().await, "a b");
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_shutdown_a_batch_that_goes_on_is_dropped_and_released() {
    struct Dropped(Reporter);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.report("dropped");
        }
    }
    async fn hang(batch: Batch<Note>, State(reporter): State<Reporter>) {
        let _dropped = Dropped(reporter.clone());
        reporter.report("begun");
        batch.cancellation().cancelled().await;
        reporter.report("cancelled");
        std::future::pending::<()>().await;
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder = worker(&database).grace(Duration::ZERO).state(reporter);
    let worker = start(builder.handle_batch(Gather::up_to(2).within(HOUR), hang));
    enqueue_all(&database.database, &notes(&["a", "b"])).await.unwrap();
    assert_eq!(reports.next().await, "begun");
    worker.stop().await;
    assert_eq!([reports.next().await, reports.next().await], ["cancelled", "dropped"]);
    let back = "select jsonb_agg(jsonb_build_array(reserved_at, failures)) from reveille.jobs";
    assert_eq!(database.value(back).await, json!([[null, 0], [null, 0]]), "the jobs are released without a failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_can_be_completed_in_the_handlers_transaction() {
    async fn store(batch: Batch<Note>, State(database): State<Database>) -> reveille::Result<()> {
        let mut client = database.client().await?;
        let tx = client.transaction().await.unwrap();
        for item in &batch {
            tx.execute("insert into stored values ($1)", &[&item.job.text]).await.unwrap();
            item.context.complete_in(&tx).await?;
        }
        tx.commit().await.unwrap();
        Ok(())
    }
    let database = database().await;
    database.run("create table stored (text text)").await;
    let builder = worker(&database).state(database.database.clone());
    let worker = start(builder.handle_batch(Gather::up_to(2).within(HOUR), store));
    enqueue_all(&database.database, &notes(&["a", "b"])).await.unwrap();
    database.until("select count(*) = 2 from reveille.finished_jobs").await;
    assert_eq!(database.value("select string_agg(text, ' ' order by text) from stored").await, "a b");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_queue_gathers_separately_up_to_its_slots() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder = worker(&database).queue("narrow", 2).state(reporter);
    let worker = start(builder.handle_batch(Gather::up_to(3).within(HOUR), tell_all));
    for (queue, text) in [("default", "a"), ("narrow", "x"), ("default", "b"), ("narrow", "y"), ("default", "c")] {
        enqueue(&database.database, &note(text)).queue(queue).await.unwrap();
    }
    let mut both = [reports.next().await, reports.next().await];
    both.sort();
    assert_eq!(both, ["a b c", "x y"]);
    worker.stop().await;
}

#[test]
fn a_batch_that_cannot_be_gathered_is_refused() {
    let refusal = |most, slots| {
        let builder = Worker::builder(Memory::new()).queue("default", slots).queue("narrow", 1).state(reporting().0);
        builder.handle_batch(Gather::up_to(most), tell_all).build().err().map(|error| error.to_string())
    };
    assert_eq!(refusal(8, 8), None);
    assert!(refusal(9, 8).unwrap().contains("batch of 9 jobs of the kind \"note\""));
    assert!(refusal(0, 8).is_some());
    let stateless = Worker::builder(Memory::new()).handle_batch(Gather::up_to(8), tell_all).build();
    assert!(stateless.err().unwrap().to_string().contains("State<"));
    let twice = Worker::builder(Memory::new()).state(reporting().0).handle(crate::harness::report);
    assert!(twice.handle_batch(Gather::up_to(8), tell_all).build().is_err(), "a kind can have only one handler");
}

#[tokio::test]
async fn draining_and_inline_runs_wait_for_no_further_jobs() {
    let memory = Memory::new();
    let (reporter, mut reports) = reporting();
    let gather = Gather::up_to(4).within(HOUR);
    let worker = Worker::builder(memory.clone()).queue("default", 6).state(reporter).handle_batch(gather, tell_all);
    let worker = worker.build().unwrap();
    enqueue_all(&memory, &notes(&["a", "b", "c", "d", "e"])).await.unwrap();
    let undecodable = NewJob::new("note", reveille::job::Payload::encode(&1).unwrap());
    let bad = enqueue(&memory, &undecodable).await.unwrap();
    let drained = worker.run_until_drained().await.unwrap();
    assert_eq!((drained.completed, drained.dead), (5, 1));
    assert_eq!(memory.job(bad.id).unwrap().reason, Some(FailureReason::Undecodable));
    assert_eq!([reports.next().await, reports.next().await], ["a b c d", "e"]);
    enqueue(&worker.inline(), &note("inline")).await.unwrap();
    assert_eq!(reports.rest(), ["inline"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_go_through_in_large_batches() {
    #[derive(Clone, Default)]
    struct Seen(Arc<AtomicUsize>, Arc<AtomicUsize>);
    async fn count(batch: Batch<Note>, State(Seen(jobs, batches)): State<Seen>) {
        jobs.fetch_add(batch.len(), Ordering::Relaxed);
        batches.fetch_add(1, Ordering::Relaxed);
    }
    const JOBS: usize = 10_000;
    let database = database().await;
    let notes: Vec<Note> = (0..JOBS).map(|n| note(&n.to_string())).collect();
    enqueue_all(&database.database, &notes).await.unwrap();
    let seen = Seen::default();
    let builder = Worker::builder(database.database.clone()).queue("default", 400).state(seen.clone());
    let worker = start(builder.handle_batch(Gather::up_to(200), count));
    eventually("all jobs have run", async || seen.0.load(Ordering::Relaxed) >= JOBS).await;
    database.until("select count(*) = 0 from reveille.jobs").await;
    // On a busy machine, the gathering time of some batches ends before the batch is full.
    let batches = seen.1.load(Ordering::Relaxed);
    assert!((JOBS / 200..JOBS / 10).contains(&batches), "{batches} batches");
    assert_eq!(seen.0.load(Ordering::Relaxed), JOBS);
    worker.stop().await;
}
