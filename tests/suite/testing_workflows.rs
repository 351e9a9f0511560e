//! The test kit with jobs that wait for others, steps, sleeps and events.

use std::time::Duration;

use reveille::driver::{Ending, Memory};
use reveille::enqueue::{Workflow, emit};
use reveille::handler::Inputs;
use reveille::job::{JobState, WorkflowState};
use reveille::{Context, Job, State, Worker, enqueue, testing};
use serde::{Deserialize, Serialize};

use crate::conformance::job;
use crate::harness::{Note, Reporter, database, note, report, reporting};

const DAY: Duration = Duration::from_secs(86_400);

/// A job that pays, sleeps, and waits for an event.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order(i64);

impl Job for Order {
    const KIND: &'static str = "order";
}

async fn work_order(Order(number): Order, context: Context, State(reporter): State<Reporter>) -> reveille::Result<()> {
    let pay = async |_| {
        reporter.report("pays");
        Ok::<(), reveille::Error>(())
    };
    context.step("pay", pay).await?;
    context.sleep("cooling off", DAY * 14).await?;
    let sent: Option<String> = context.wait_for(format!("sent:{number}"), DAY * 30).await?;
    reporter.report(sent.unwrap_or_else(|| "was never sent".into()));
    Ok(())
}

#[tokio::test]
async fn a_test_finds_the_blocked_jobs_of_its_transaction() {
    let database = database().await;
    let before = enqueue(&database.database, &note("before")).await.unwrap().id;
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    let mut workflow = Workflow::new("w");
    let first = workflow.add("first", &note("first"));
    workflow.add("second", &note("second")).after(&first).with(|job| job.delay(DAY).key("k"));
    workflow.enqueue(&tx).await.unwrap();
    enqueue(&tx, &note("third")).after([before]).await.unwrap();
    let jobs = testing::enqueued(&tx).await.unwrap();
    let texts: Vec<String> = jobs.of::<Note>().into_iter().map(|note| note.text).collect();
    assert_eq!(texts, ["first", "second", "third"], "and not the job that one of these waits for");
    let second = jobs.assert_has(&note("second"));
    assert_eq!((second.job.key.as_deref(), second.available_at), (Some("k"), second.created_at + DAY));
    tx.commit().await.unwrap();
    assert_eq!(testing::enqueued(&database.database).await.unwrap().all().len(), 4);
    let memory = Memory::new();
    Workflow::chain("w", [job("first"), job("second")]).enqueue(&memory).await.unwrap();
    assert_eq!(testing::enqueued(&memory).await.unwrap().all().len(), 2);
}

#[tokio::test]
async fn a_wrong_graph_leaves_the_transaction_of_its_caller_as_it_is() {
    let database = database().await;
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    let mut workflow = Workflow::new("w");
    workflow.add("a", &note("a")).after("b");
    workflow.add("b", &note("b")).after("a");
    assert!(workflow.enqueue(&tx).await.unwrap_err().is_invalid());
    enqueue(&tx, &note("goes on")).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn after_one_worked_job_its_followers_can_be_worked() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(database.database.clone()).state(reporter).handle(report).handle(work_order);
    let worker = builder.build().unwrap();
    let first = enqueue(&database.database, &note("first")).await.unwrap().id;
    let second = enqueue(&database.database, &note("second")).after([first]).await.unwrap().id;
    let cancelled = enqueue(&database.database, &Order(1)).await.unwrap().id;
    let callback = enqueue(&database.database, &note("callback"));
    let callback = callback.after_outcome(reveille::job::FiresOn::Cancelled, [cancelled]).await.unwrap().id;
    for id in [first, second] {
        assert_eq!(worker.work_one::<Note>().await.unwrap().unwrap().id, id);
    }
    database.database.admin().cancel(cancelled).await.unwrap();
    assert_eq!(worker.work_one::<Note>().await.unwrap().unwrap().id, callback);
    assert_eq!(reports.rest(), ["first", "second", "callback"]);
}

#[tokio::test]
async fn running_until_empty_runs_workflows_with_steps_sleeps_and_events() {
    let memory = Memory::new();
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(memory.clone()).state(reporter).handle(report).handle(work_order);
    let worker = builder.build().unwrap();
    let mut workflow = Workflow::new("w");
    let one = workflow.add("one", &Order(1));
    let two = workflow.add("two", &Order(2)).after(&one);
    workflow.add("note", &note("done")).after([&one, &two]).with(|job| job.delay(DAY));
    let id = workflow.enqueue(&memory).await.unwrap().id;
    emit(&memory, "sent:1", "on monday").await.unwrap();
    let run = worker.run_until_empty(&memory).await.unwrap();
    assert_eq!((run.completed, run.failed, run.blocked), (3, 0, 0));
    assert_eq!(reports.rest(), ["pays", "on monday", "pays", "was never sent", "done"]);
    assert_eq!(memory.workflow(id).unwrap().state, WorkflowState::Completed);
}

#[tokio::test]
async fn running_until_empty_counts_the_jobs_that_dead_ones_hold_up() {
    async fn dies(_: Order) -> reveille::Outcome {
        reveille::Outcome::Dead("told to".into())
    }
    let memory = Memory::new();
    let worker = Worker::builder(memory.clone()).handle(dies).build().unwrap();
    let first = enqueue(&memory, &Order(1)).await.unwrap().id;
    let held = enqueue(&memory, &Order(2)).after([first]).await.unwrap().id;
    let run = worker.run_until_empty(&memory).await.unwrap();
    assert_eq!((run.dead, run.blocked), (1, 1));
    assert_eq!(memory.job(held).unwrap().state, JobState::Blocked);
}

#[tokio::test]
async fn inline_runs_what_an_event_makes_due() {
    let memory = Memory::new();
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(memory.clone()).state(reporter).handle(report).handle(work_order);
    let inline = builder.build().unwrap().inline();
    let mut workflow = Workflow::new("w");
    let order = workflow.add("order", &Order(1));
    workflow.add("note", &note("done")).after(&order);
    let id = workflow.enqueue(&inline).await.unwrap().id;
    assert_eq!(reports.rest(), ["pays"]);
    memory.advance(DAY * 14);
    enqueue(&inline, &note("another")).await.unwrap();
    emit(&inline, "sent:1", "on monday").await.unwrap();
    assert_eq!(reports.rest(), ["another", "on monday", "done"]);
    assert_eq!(memory.workflow(id).unwrap().state, WorkflowState::Completed);
}

#[tokio::test]
async fn an_attempt_at_an_unstored_job_has_no_inputs_and_no_workflow() {
    async fn reads(_: Order, inputs: Inputs, context: Context) -> reveille::Result<()> {
        assert!(inputs.all().await?.is_empty());
        assert!(context.workflow().await?.is_none());
        inputs.get("other").await
    }
    let worker = Worker::builder(Memory::new()).handle(reads).build().unwrap();
    let Ending::Waiting { failure: Some(failure), .. } = worker.attempt(&Order(1)).await.unwrap() else {
        panic!("the attempt fails")
    };
    assert!(failure.error.contains(r#"it has not waited for "other""#), "{failure:?}");
}
