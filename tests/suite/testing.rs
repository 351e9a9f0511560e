//! The test kit, used as in a user's tests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use reveille::driver::{Ending, FailureReason};
use reveille::enqueue::copy_all;
use reveille::job::{JobState, Payload, UniqueMode};
use reveille::{
    Context, Job, Outcome, State, Worker,
    driver::Memory,
    enqueue,
    enqueue::enqueue_all,
    job::{NewJob, Priority, RetryPolicy},
};
use reveille::{testing, testing::Jobs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::{Note, Reporter, database, note, report, reporting};

/// A kind of job beside the notes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Bill {
    cents: f64,
    #[serde(default)]
    currency: String,
}

impl Job for Bill {
    const KIND: &'static str = "bill";
}

fn texts(jobs: &Jobs) -> Vec<String> {
    jobs.of::<Note>().into_iter().map(|note| note.text).collect()
}

#[tokio::test]
async fn a_transaction_sees_only_the_jobs_that_it_enqueued() {
    let database = database().await;
    enqueue(&database.database, &note("committed before")).await.unwrap();
    let (mut client, mut other) = (database.client().await, database.client().await);
    let open = other.transaction().await.unwrap();
    enqueue(&open, &note("of another, not committed")).await.unwrap();
    let tx = client.transaction().await.unwrap();
    testing::enqueued(&tx).await.unwrap().assert_empty();
    enqueue(&tx, &note("one")).await.unwrap();
    enqueue_all(&tx, &[note("two"), note("three")]).await.unwrap();
    copy_all(&tx, &[note("four")]).await.unwrap();
    tx.execute("insert into reveille.jobs (kind, payload) values ('note', '{\"text\": \"five\"}')", &[]).await.unwrap();
    tx.execute("select reveille.enqueue('note', '{\"text\": \"six\"}')", &[]).await.unwrap();
    enqueue(&database.database, &note("committed meanwhile")).await.unwrap();
    let jobs = testing::enqueued(&tx).await.unwrap();
    assert_eq!(texts(&jobs), ["one", "two", "three", "four", "five", "six"]);
    tx.rollback().await.unwrap();
    let tx = client.transaction().await.unwrap();
    testing::enqueued(&tx).await.unwrap().assert_empty();
    open.rollback().await.unwrap();
}

#[tokio::test]
async fn savepoints_are_parts_of_their_transaction() {
    let database = database().await;
    let mut client = database.client().await;
    let mut tx = client.transaction().await.unwrap();
    let released = tx.transaction().await.unwrap();
    enqueue(&released, &note("released")).await.unwrap();
    released.commit().await.unwrap();
    let undone = tx.transaction().await.unwrap();
    enqueue(&undone, &note("undone")).await.unwrap();
    undone.rollback().await.unwrap();
    let mut open = tx.transaction().await.unwrap();
    enqueue(&open, &note("open")).await.unwrap();
    let deeper = open.transaction().await.unwrap();
    enqueue(&deeper, &note("deeper")).await.unwrap();
    assert_eq!(texts(&testing::enqueued(&deeper).await.unwrap()), ["released", "open", "deeper"]);
    deeper.commit().await.unwrap();
    open.rollback().await.unwrap();
    assert_eq!(texts(&testing::enqueued(&tx).await.unwrap()), ["released"]);
}

#[tokio::test]
async fn jobs_can_be_listed_through_every_client() {
    let database = database().await;
    let plain = database.client().await;
    let error = testing::enqueued(&plain).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("not in a transaction"), "{error}");
    plain.batch_execute("begin").await.unwrap();
    enqueue(&plain, &note("by hand")).await.unwrap();
    assert_eq!(texts(&testing::enqueued(&plain).await.unwrap()), ["by hand"]);
    plain.batch_execute("rollback").await.unwrap();

    let mut pooled = database.database.client().await.unwrap();
    assert!(testing::enqueued(&pooled).await.unwrap_err().is_invalid());
    let tx = pooled.transaction().await.unwrap();
    enqueue(&tx, &note("pooled")).await.unwrap();
    assert_eq!(texts(&testing::enqueued(&tx).await.unwrap()), ["pooled"]);
}

#[tokio::test]
async fn a_debounced_job_is_listed_and_a_kept_one_is_not() {
    let database = database().await;
    enqueue(&database.database, &note("old")).unique_key("a").await.unwrap();
    enqueue(&database.database, &note("old")).unique_key("b").await.unwrap();
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    enqueue(&tx, &note("new")).unique_key("a").unique_mode(UniqueMode::Debounce).await.unwrap();
    enqueue(&tx, &note("new")).unique_key("b").await.unwrap();
    let jobs = testing::enqueued(&tx).await.unwrap();
    assert_eq!(jobs.one::<Note>().job.unique_key.as_deref(), Some("a"));
    assert_eq!(texts(&jobs), ["new"]);
}

#[tokio::test]
async fn every_option_of_an_enqueued_job_is_found() {
    let (database, memory) = (database().await, Memory::new());
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    let full = NewJob::new("note", Payload::encode(&note("x")).unwrap())
        .queue("mail")
        .priority(Priority::High)
        .delay(Duration::from_secs(3600))
        .max_attempts(3)
        .timeout(Duration::from_millis(1500))
        .unique_key("u")
        .key("k")
        .tag("t")
        .metadata(&json!({"m": 1}))
        .unwrap();
    enqueue(&tx, &full).await.unwrap();
    enqueue(&memory, &full).await.unwrap();
    for jobs in [testing::enqueued(&tx).await.unwrap(), testing::enqueued(&memory).await.unwrap()] {
        let mut found = jobs.one::<Note>().job.clone();
        assert_eq!(found.payload.decode::<Note>().unwrap(), note("x"));
        assert_eq!(found.metadata.as_ref().unwrap().decode::<serde_json::Value>().unwrap(), json!({"m": 1}));
        (found.payload, found.metadata) = (full.payload.clone(), full.metadata.clone());
        assert_eq!(format!("{found:?}"), format!("{full:?}"));
    }
}

#[tokio::test]
async fn a_database_lists_all_jobs_or_those_since_a_listing() {
    let database = database().await;
    let (reporter, _reports) = reporting();
    let worker = Worker::builder(database.database.clone()).state(reporter).handle(report).build().unwrap();
    enqueue(&database.database, &note("finished before")).await.unwrap();
    enqueue(&database.database, &NewJob::new("note", Payload::encode(&7).unwrap())).await.unwrap();
    worker.run_until_drained().await.unwrap();
    let before = testing::enqueued(&database.database).await.unwrap();
    assert_eq!(before.all().len(), 2, "one job has finished, one job is dead");
    enqueue(&database.database, &note("finished since")).await.unwrap();
    worker.run_until_drained().await.unwrap();
    enqueue(&database.database, &note("waits")).await.unwrap();
    let since = testing::enqueued(&database.database).await.unwrap().since(&before);
    assert_eq!(texts(&since), ["finished since", "waits"]);
}

#[tokio::test]
async fn another_schema_can_be_looked_into() {
    let behind = crate::harness::empty_database().await;
    let database = reveille::Database::options(Some(behind.address.clone())).schema("jobs_2").connect().await.unwrap();
    database.migrate().await.unwrap();
    let mut client = behind.client().await;
    let tx = client.transaction().await.unwrap();
    enqueue(&tx, &note("elsewhere")).schema("jobs_2").await.unwrap();
    assert_eq!(texts(&testing::enqueued_in(&tx, "jobs_2").await.unwrap()), ["elsewhere"]);
    tx.commit().await.unwrap();
    assert_eq!(texts(&testing::enqueued(&database).await.unwrap()), ["elsewhere"]);
}

/// Returns the message of an assertion that fails.
fn message_of(assertion: impl FnOnce()) -> String {
    *catch_unwind(AssertUnwindSafe(assertion)).expect_err("the assertion fails").downcast::<String>().unwrap()
}

#[tokio::test]
async fn a_failing_assertion_lists_the_jobs_that_were_enqueued() {
    let memory = Memory::new();
    let nothing = testing::enqueued(&memory).await.unwrap();
    let none = "no job of the kind \"note\" was enqueued; nothing was enqueued";
    assert_eq!(message_of(|| drop(nothing.one::<Note>().clone())), none);
    enqueue(&memory, &note("a")).await.unwrap();
    enqueue(&memory, &note(&"b".repeat(300))).queue("mail").delay(Duration::from_secs(60)).await.unwrap();
    enqueue(&memory, &Bill { cents: 1e16, currency: String::new() }).await.unwrap();
    let jobs = testing::enqueued(&memory).await.unwrap();
    let there = format!(
        "these were enqueued:\n  job 1: note {{\"text\":\"a\"}} in the queue \"default\"\n  job 2: note \
            {{\"text\":\"{}… in the queue \"mail\", due after 60s\n  job 3: bill {{\"cents\":1e+16,\"currency\":\"\"}} \
            in the queue \"default\"",
        "b".repeat(191)
    );
    let missing = message_of(|| drop(jobs.assert_has(&note("c")).clone()));
    let expected = format!("no job of the kind \"note\" with the payload {{\"text\":\"c\"}} was enqueued; {there}");
    assert_eq!(missing, expected);
    assert_eq!(message_of(|| jobs.assert_empty()), format!("jobs were enqueued; {there}"));
    assert_eq!(message_of(|| jobs.assert_none::<Bill>()), format!("a job of the kind \"bill\" was enqueued; {there}"));
    let two = message_of(|| drop(jobs.one::<Note>().clone()));
    assert_eq!(two, format!("2 jobs of the kind \"note\" were enqueued, not one; {there}"));
    assert_eq!(jobs.assert_has(&note("a")).id, 1);
}

#[tokio::test]
async fn payloads_are_compared_as_values_of_their_type() {
    let database = database().await;
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    let bill = Bill { cents: 1e16, currency: String::new() };
    tx.execute("insert into reveille.jobs (kind, payload) values ('bill', '{\"cents\": 10000000000000000}')", &[])
        .await
        .unwrap();
    testing::enqueued(&tx).await.unwrap().assert_has(&bill);
    tx.execute("insert into reveille.jobs (kind, payload) values ('bill', '{}')", &[]).await.unwrap();
    let jobs = testing::enqueued(&tx).await.unwrap();
    jobs.assert_has(&bill);
    assert!(
        message_of(|| drop(jobs.of::<Bill>()))
            .starts_with("the payload of job 2 does not decode to its kind: missing field `cents`")
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_at_an_unstored_job_has_its_usual_ending() {
    async fn ends(note: Note) -> Result<Outcome, String> {
        match note.text.as_str() {
            "fail" => Err("no".into()),
            "panic" => panic!("dear"),
            "hang" => std::future::pending().await,
            "keep" => Ok(Outcome::CompleteWith(Payload::encode(&7).unwrap())),
            _ => Ok(Outcome::Snooze(Duration::from_secs(5))),
        }
    }
    let memory = Memory::new();
    let worker = Worker::builder(memory.clone()).timeout(Duration::from_secs(9)).handle(ends).build().unwrap();
    let attempt = async |text| worker.attempt(&note(text)).await.unwrap();
    assert_eq!(attempt("keep").await, Ending::Completed(Some(Payload::encode(&7).unwrap())));
    assert_eq!(attempt("x").await, Ending::Waiting { failure: None, delay: Duration::from_secs(5) });
    for (text, reason, error) in [
        ("fail", FailureReason::Failed, "no"),
        ("panic", FailureReason::Failed, "panicked: dear"),
        ("hang", FailureReason::TimedOut, "took longer than its timeout of 9s"),
    ] {
        let Ending::Waiting { failure: Some(failure), .. } = attempt(text).await else { panic!("{text} should fail") };
        assert_eq!((failure.reason, failure.error.as_str()), (reason, error));
    }
    let last = NewJob::of(&note("fail")).unwrap().max_attempts(1);
    assert!(
        matches!(worker.attempt(&last).await.unwrap(), Ending::Dead(_)),
        "a failed last attempt makes the job dead"
    );
    let later = NewJob::of(&note("keep")).unwrap().delay(Duration::from_secs(60));
    assert_eq!(
        worker.attempt(&later).await.unwrap(),
        Ending::Completed(Some(Payload::encode(&7).unwrap())),
        "the job need not be due"
    );
    assert!(memory.jobs().is_empty());
}

#[tokio::test]
async fn an_attempt_at_an_unstored_job_may_report_progress() {
    async fn reports_progress(_: Note, context: Context) -> reveille::Result<()> {
        for done in 0..3 {
            context.progress(&json!({ "done": done })).await?;
        }
        Ok(())
    }
    let database = database().await;
    let worker = Worker::builder(database.database.clone()).handle(reports_progress).build().unwrap();
    assert_eq!(worker.attempt(&note("a")).await.unwrap(), Ending::Completed(None));
    let worker = Worker::builder(std::sync::Arc::new(Memory::new())).handle(reports_progress).build().unwrap();
    assert_eq!(worker.attempt(&note("a")).await.unwrap(), Ending::Completed(None));
}

#[tokio::test]
async fn an_error_names_progress_that_cannot_be_stored() {
    async fn reports_progress(_: Note, context: Context) -> reveille::Result<()> {
        context.progress("\0").await
    }
    let worker = Worker::builder(std::sync::Arc::new(Memory::new())).handle(reports_progress).build().unwrap();
    let Ending::Waiting { failure: Some(failure), .. } = worker.attempt(&note("a")).await.unwrap() else {
        panic!("the attempt should have failed")
    };
    assert!(failure.error.starts_with("progress holds a NUL character"), "{}", failure.error);
}

#[tokio::test]
async fn a_test_can_attempt_the_jobs_of_its_open_transaction() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = Worker::builder(database.database.clone()).state(reporter).handle(report).build().unwrap();
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    enqueue(&tx, &note("welcome")).await.unwrap();
    for job in testing::enqueued(&tx).await.unwrap().all() {
        assert_eq!(worker.attempt(&job.job).await.unwrap(), Ending::Completed(None));
    }
    assert_eq!(reports.rest(), ["welcome"]);
    tx.rollback().await.unwrap();
    testing::enqueued(&database.database).await.unwrap().assert_empty();
}

async fn bill(bill: Bill, State(reporter): State<Reporter>) -> Result<(), String> {
    reporter.report(format!("{} cents", bill.cents));
    if bill.cents < 0.0 { Err("a debt".into()) } else { Ok(()) }
}

#[tokio::test]
async fn working_one_job_of_a_kind_returns_its_ending() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(database.database.clone()).state(reporter).handle(bill).handle(report);
    let worker = builder.build().unwrap();
    assert_eq!(worker.work_one::<Bill>().await.unwrap(), None);
    enqueue(&database.database, &note("not this")).priority(Priority::Urgent).await.unwrap();
    let later = enqueue(&database.database, &Bill { cents: 1.0, currency: "€".into() });
    later.delay(Duration::from_secs(60)).await.unwrap();
    let first = enqueue(&database.database, &Bill { cents: 2.0, currency: "€".into() }).await.unwrap().id;
    let second = enqueue(&database.database, &Bill { cents: -3.0, currency: "€".into() }).await.unwrap().id;
    let worked = worker.work_one::<Bill>().await.unwrap().unwrap();
    assert_eq!((worked.id, worked.ending), (first, Ending::Completed(None)));
    let worked = worker.work_one::<Bill>().await.unwrap().unwrap();
    assert_eq!(worked.id, second);
    assert!(matches!(worked.ending, Ending::Waiting { failure: Some(_), .. }));
    assert_eq!(worker.work_one::<Bill>().await.unwrap(), None, "the other jobs are not due");
    assert_eq!(reports.rest(), ["2 cents", "-3 cents"]);
    let left = "select count(*) from reveille.jobs where failures = 0 and reserved_at is null";
    assert_eq!(database.value(left).await, 2);
    assert_eq!(database.value("select count(*) from reveille.workers").await, 0, "the worker has deregistered");
}

#[tokio::test]
async fn running_until_empty_moves_the_clock_to_delayed_jobs() {
    #[derive(Serialize, Deserialize)]
    struct Stubborn;
    impl Job for Stubborn {
        const KIND: &'static str = "stubborn";
        const MAX_ATTEMPTS: u32 = 4;
        fn retry_policy() -> RetryPolicy {
            RetryPolicy::exponential(Duration::from_secs(3600), Duration::from_secs(86_400))
        }
    }
    async fn stubborn(_: Stubborn) -> Result<(), String> {
        Err("no".into())
    }
    let memory = Memory::new();
    let (reporter, mut reports) = reporting();
    let worker = Worker::builder(memory.clone()).state(reporter).handle(report).handle(stubborn).build().unwrap();
    enqueue(&memory, &note("next year")).delay(Duration::from_secs(365 * 86_400)).await.unwrap();
    enqueue(&memory, &note("tomorrow")).delay(Duration::from_secs(86_400)).await.unwrap();
    enqueue(&memory, &note("elsewhere")).queue("not worked here").await.unwrap();
    let stubborn = enqueue(&memory, &Stubborn).await.unwrap().id;
    let drained = worker.run_until_empty(&memory).await.unwrap();
    assert_eq!((drained.completed, drained.failed, drained.dead, drained.attempts()), (2, 3, 1, 6));
    assert_eq!(reports.rest(), ["tomorrow", "next year"]);
    assert_eq!(memory.job(stubborn).unwrap().state, JobState::Dead);
}

#[tokio::test]
async fn running_until_empty_gives_up_on_jobs_that_never_end() {
    async fn snoozes(_: Note) -> Outcome {
        Outcome::Snooze(Duration::from_secs(1))
    }
    let memory = Memory::new();
    let worker = Worker::builder(memory.clone()).handle(snoozes).build().unwrap();
    let unknown = enqueue(&memory, &Bill { cents: 1.0, currency: String::new() }).await.unwrap().id;
    let error = worker.run_until_empty(&memory).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("job 1 of the kind \"bill\" still waits"), "{error}");
    memory.cancel(unknown);
    enqueue(&memory, &note("for ever")).await.unwrap();
    let error = worker.run_until_empty(&memory).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("job 2 of the kind \"note\" still waits"), "{error}");
}
