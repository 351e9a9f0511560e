//! Workflows: jobs start once the jobs that they wait for have ended.

use reveille::enqueue::{Members, Workflow};
use reveille::handler::Inputs;
use reveille::job::{Completed, NewJob, Payload};
use reveille::{Context, Job, Outcome, State, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{TestDatabase, database, start, worker};

/// A job that ends as it is told: `completed`, `dead` or `cancelled`.
#[derive(Serialize, Deserialize)]
struct Act(String);

impl Job for Act {
    const KIND: &'static str = "act";
    const MAX_ATTEMPTS: u32 = 1;
}

fn act(end: &str) -> Act {
    Act(end.into())
}

async fn acts(job: Act, State(told): State<mpsc::UnboundedSender<i64>>, context: Context) -> Outcome {
    let _ = told.send(context.id());
    match job.0.as_str() {
        "dead" => Outcome::Dead("told to".into()),
        "cancelled" => Outcome::Cancel,
        _ => Outcome::Complete,
    }
}

const STATES: &str = "select jsonb_object_agg(name, state) from reveille.workflow_job_status";

async fn until_state(database: &TestDatabase, state: &str) {
    database.until(&format!("select bool_and(state = '{state}') from reveille.workflow_status")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_of_a_workflow_starts_once_what_it_waits_for_has_ended() {
    let database = database().await;
    let (told, mut ran) = mpsc::unbounded_channel::<i64>();
    let running = start(worker(&database).state(told).handle(acts));
    let mut workflow = Workflow::new("onboard");
    let extract = workflow.add("extract", &act("completed"));
    let load = workflow.add("load", &act("completed")).after(&extract);
    workflow.add("undo", &act("completed")).after_dead(&load);
    workflow.add("report", &act("completed")).after_any_end([&extract, &load]);
    workflow.enqueue(&database.database).await.unwrap();
    until_state(&database, "completed").await;
    running.stop().await;
    let states = json!({"extract": "completed", "load": "completed", "report": "completed", "undo": "skipped"});
    assert_eq!(database.value(STATES).await, states);
    let mut order = Vec::new();
    while let Ok(id) = ran.try_recv() {
        order.push(id);
    }
    assert_eq!(order, [1, 2, 4], "each job ran once, after those that it waited for");
    let left = "select (select count(*) from reveille.blocked_jobs) + (select count(*) from reveille.linked_ends)";
    assert_eq!(database.value(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_job_holds_up_its_followers_until_it_is_revived() {
    let database = database().await;
    let (told, _ran) = mpsc::unbounded_channel::<i64>();
    let running = start(worker(&database).state(told).handle(acts));
    let mut workflow = Workflow::new("nightly");
    let first = workflow.add("first", &act("dead"));
    workflow.add("second", &act("completed")).after(&first);
    workflow.add("third", &act("completed")).after(&first).cancel_if_dead();
    let id = workflow.enqueue(&database.database).await.unwrap().id;
    until_state(&database, "stalled").await;
    assert_eq!(database.value(STATES).await, json!({"first": "dead", "second": "blocked", "third": "skipped"}));
    database.run("update reveille.dead_jobs set payload = '\"completed\"'").await;
    let retried = format!("select jsonb_agg(to_jsonb(retried)) from reveille.retry_workflow({id}) as retried");
    assert_eq!(database.value(&retried).await, json!([{"name": "first", "job": 1, "answer": "revived"}]));
    until_state(&database, "completed").await;
    running.stop().await;
    assert_eq!(database.value(STATES).await, json!({"first": "completed", "second": "completed", "third": "skipped"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_that_was_acted_on_is_revived_only_by_force() {
    let database = database().await;
    let (told, _ran) = mpsc::unbounded_channel::<i64>();
    let running = start(worker(&database).state(told).handle(acts));
    let mut workflow = Workflow::new("transfer");
    let debit = workflow.add("debit", &act("dead"));
    workflow.add("refund", &act("completed")).after_dead(&debit);
    workflow.enqueue(&database.database).await.unwrap();
    until_state(&database, "failed").await;
    assert_eq!(database.value("select reveille.retry(1)").await, "compensated");
    let reason = "select reason from reveille.dead_jobs";
    assert_eq!(database.value(reason).await, "permanent", "the refusal changes nothing");
    database.run("update reveille.dead_jobs set payload = '\"completed\"'").await;
    assert_eq!(database.value("select reveille.retry(1, forced => true)").await, "revived");
    until_state(&database, "completed").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_reads_the_results_of_the_jobs_before_it() {
    #[derive(Serialize, Deserialize)]
    struct Extract;
    impl Job for Extract {
        const KIND: &'static str = "extract";
    }
    #[derive(Serialize, Deserialize)]
    struct Load;
    impl Job for Load {
        const KIND: &'static str = "load";
    }
    async fn extract(_: Extract) -> reveille::Result<Completed<Vec<i32>>> {
        Ok(Completed(vec![1, 2, 3]))
    }
    async fn load(_: Load, inputs: Inputs, context: Context) -> reveille::Result<Completed<Value>> {
        let rows: Vec<i32> = inputs.get("extract").await?;
        let wrong = inputs.get::<String>("extract").await.unwrap_err().to_string();
        let unknown = inputs.get::<i32>("extrakt").await.unwrap_err().to_string();
        let labels: Vec<String> = inputs.all().await?.into_iter().map(|input| input.label).collect();
        let day: Option<String> = context.workflow_input().await?;
        Ok(Completed(json!([rows, wrong, unknown, labels, day])))
    }
    let database = database().await;
    // Results stand with the workflow, even if the queue keeps no history.
    database.run("insert into reveille.queues (name, retention) values ('default', '0')").await;
    let running = start(worker(&database).handle(extract).handle(load));
    let mut workflow = Workflow::new("etl").input(&"monday");
    let first = workflow.add("extract", &Extract);
    workflow.add("load", &Load).after(&first);
    workflow.enqueue(&database.database).await.unwrap();
    until_state(&database, "completed").await;
    running.stop().await;
    let expected = json!([
        [1, 2, 3],
        "job 2 cannot read its input: the result of \"extract\" has another form: invalid type: sequence, expected a \
         string at line 1 column 0",
        "job 2 cannot read its input: it has not waited for \"extrakt\"",
        ["extract"],
        "monday"
    ]);
    assert_eq!(database.value("select result from reveille.workflows").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_calls_back_once_all_of_its_jobs_have_ended() {
    let database = database().await;
    let (told, _ran) = mpsc::unbounded_channel::<i64>();
    let running = start(worker(&database).state(told).handle(acts));
    let ends = ["completed", "completed", "dead", "completed", "cancelled", "dead"];
    let batch = Workflow::batch("invoices", ends.map(act));
    let batch = batch.on_complete(&act("completed")).on_success(&act("completed")).on_dead(&act("completed"));
    batch.enqueue(&database.database).await.unwrap();
    until_state(&database, "failed").await;
    running.stop().await;
    let states = json!({
        "1": "completed", "2": "completed", "3": "dead", "4": "completed", "5": "cancelled", "6": "dead",
        "on complete": "completed", "on success": "skipped", "on dead": "completed"
    });
    assert_eq!(database.value(STATES).await, states);
    let counts = "select jsonb_build_array(jobs, live, blocked, completed, dead, cancelled, skipped)
        from reveille.workflow_status";
    assert_eq!(database.value(counts).await, json!([9, 0, 0, 5, 2, 1, 1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_filled_in_several_transactions_calls_back_after_its_seal() {
    let database = database().await;
    let (told, mut ran) = mpsc::unbounded_channel::<i64>();
    let running = start(worker(&database).state(told).handle(acts));
    let batch = Workflow::batch("import", [act("completed")]).on_complete(&act("completed"));
    let batch = batch.open(&database.database).await.unwrap();
    ran.recv().await.unwrap();
    database.until("select completed = 1 from reveille.workflow_status").await;
    let more = Members::new();
    more.add("two", &act("completed")).before_any_end("on complete");
    batch.add(&database.database, more).await.unwrap();
    ran.recv().await.unwrap();
    database.until("select completed = 2 from reveille.workflow_status").await;
    assert_eq!(database.value("select needs from reveille.blocked_jobs").await, 0, "only the seal is missing");
    batch.seal(&database.database).await.unwrap();
    until_state(&database, "completed").await;
    running.stop().await;
    let late = Members::new();
    late.add("three", &act("completed"));
    let refused = batch.add(&database.database, late).await.unwrap_err();
    assert!(refused.to_string().contains("workflow 1 is completed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_workflow_runs_only_its_cleanup() {
    let database = database().await;
    let mut workflow = Workflow::new("cancelled");
    let first = workflow.add("first", &act("completed"));
    let second = workflow.add("second", &act("completed")).after(&first);
    workflow.add("undo", &act("completed")).after_dead(&second);
    workflow.add("cleanup", &act("completed")).after_any_end([&first, &second]);
    workflow.enqueue(&database.database).await.unwrap();
    assert_eq!(database.value("select reveille.cancel_workflow(1)").await, "cancelling");
    assert_eq!(database.value("select reveille.cancel_workflow(2)").await, "unknown");
    let (told, _ran) = mpsc::unbounded_channel::<i64>();
    database.run("select reveille.apply_linked_ends()").await;
    let running = start(worker(&database).state(told).handle(acts));
    until_state(&database, "cancelled").await;
    running.stop().await;
    assert_eq!(
        database.value(STATES).await,
        json!({"first": "cancelled", "second": "cancelled", "undo": "cancelled", "cleanup": "completed"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outside_a_workflow_can_wait_for_others_too() {
    let database = database().await;
    let (told, mut ran) = mpsc::unbounded_channel::<i64>();
    let first = enqueue(&database.database, &act("completed")).await.unwrap();
    let second = enqueue(&database.database, &act("completed")).after([first.id]).await.unwrap();
    let sql = "select reveille.enqueue_after(array[1, 2], 'act', '\"completed\"')";
    assert_eq!(database.value(sql).await, 3);
    let running = start(worker(&database).state(told).handle(acts));
    for id in [first.id, second.id, 3] {
        assert_eq!(ran.recv().await, Some(id));
    }
    database.until("select count(*) = 3 from reveille.finished_jobs").await;
    // All three have ended, which counts at once.
    let late = enqueue(&database.database, &act("completed")).after([first.id, 3]).await.unwrap();
    assert_eq!(ran.recv().await, Some(late.id));
    let end = late.finished(&database.database).await.unwrap();
    assert!(end.is_some(), "the program that awaits a blocked job hears of its end");
    database.until("select not exists (select from reveille.dependencies)").await;
    running.stop().await;
}

#[tokio::test]
async fn a_wrong_graph_is_refused_with_the_name_of_what_is_wrong() {
    let database = database().await;
    let job = || NewJob::new("k", Payload::encode(&()).unwrap());
    let mut workflow = Workflow::new("w");
    workflow.add("a", &job()).after("b");
    workflow.add("b", &job()).after("c");
    workflow.add("c", &job()).after("a");
    let circle = workflow.enqueue(&database.database).await.unwrap_err().to_string();
    assert!(circle.contains(r#""a" waits for "b", which waits for "c", which waits for "a""#), "{circle}");
    let refusals = [
        (json!([{"name": "a", "kind": "k", "after": ["x"]}]), r#"job "a": "x" is not a job of the workflow"#),
        (json!([{"name": "a", "kind": "k", "after": ["a"]}]), r#"job "a" waits for itself"#),
        (json!([{"name": "a", "kind": "k"}, {"name": "a", "kind": "k"}]), r#"the name "a" occurs twice"#),
        (json!([{"kind": "k"}]), r#"job 1: key "name": must be a string of 1 to 128 characters"#),
        (json!([]), "a workflow needs at least one job"),
    ];
    for (jobs, expected) in refusals {
        let sql = format!("select reveille.enqueue_workflow('w', '{jobs}')");
        let error = database.client().await.query(&sql, &[]).await.unwrap_err();
        assert_eq!(error.as_db_error().unwrap().message(), expected);
    }
    let mut workflow = Workflow::new("w");
    workflow.add("a", &job().unique_key("u"));
    let unique = workflow.enqueue(&database.database).await.unwrap_err();
    assert!(unique.to_string().contains("unique key"), "{unique}");
    assert_eq!(database.value("select count(*) from reveille.workflows").await, 0);
}

#[tokio::test]
async fn a_workflow_with_a_unique_key_is_enqueued_once_until_it_has_ended() {
    let database = database().await;
    let again = || async {
        Workflow::batch("w", [act("completed")]).unique_key("u").enqueue(&database.database).await.unwrap()
    };
    let first = again().await;
    let second = again().await;
    assert_eq!((first.existed, second.existed, second.id), (false, true, first.id));
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1);
    database.run("select reveille.cancel(1); select reveille.apply_linked_ends()").await;
    assert!(!again().await.existed);
}

#[tokio::test]
async fn no_job_is_linked_while_a_worker_of_an_older_version_lives() {
    let database = database().await;
    database
        .run("insert into reveille.workers (id, host, pid, version, queues, slots) values (1, 'h', 1, '0', '{q}', 1)")
        .await;
    let refused = Workflow::batch("w", [act("completed")]).enqueue(&database.database).await.unwrap_err();
    assert!(refused.to_string().contains("workers of an older version are running"), "{refused}");
}
