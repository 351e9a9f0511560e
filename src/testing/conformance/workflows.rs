//! Workflows.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::subject::{Note, QUEUE, Subject, job};
use super::{WorkflowStanding, behaviours};
use crate::driver::Driver;
use crate::enqueue::{Members, Workflow};
use crate::handler::{Attempt, Context, Inputs, State};
use crate::job::{Completed, Job, NewJob, Outcome, Payload, Retried, WorkflowJobState, WorkflowState};
use crate::worker::{JobsRun, Worker};

behaviours![
    each_job_of_a_workflow_starts_once_what_it_waits_for_has_ended needs Workflows,
    a_chain_runs_in_its_order needs Workflows,
    a_batch_calls_back_once_its_jobs_have_ended needs Workflows,
    no_job_that_waits_starts_before_the_seal needs Workflows,
    a_wrong_graph_is_refused_as_a_whole needs Workflows,
    a_wrong_addition_is_refused_as_a_whole needs Workflows,
    a_unique_workflow_is_enqueued_once_until_it_has_ended needs Workflows,
    a_dead_job_stalls_its_workflow_until_it_is_revived needs Workflows Controls,
    a_death_that_was_acted_on_is_revived_only_by_force needs Workflows Controls,
    a_cancelled_workflow_runs_only_its_cleanup needs Workflows Controls,
    a_workflow_can_be_cancelled_before_its_seal needs Workflows Controls,
    a_handler_reads_results_and_adds_to_its_workflow needs Workflows,
    a_workflow_that_is_enqueued_inline_has_run needs Workflows,
    draining_counts_the_jobs_that_still_wait needs Workflows,
];

/// The channel that gets the text of each job that runs.
type Ran = mpsc::UnboundedSender<String>;

/// Ends a job as its text says: `dead`, `dead once` (in its first attempt), or `cancelled`.
async fn act(Note(text): Note, attempt: Attempt, State(ran): State<Ran>) -> Outcome {
    let _ = ran.send(text.clone());
    match text.as_str() {
        "dead" => Outcome::Dead("told to".into()),
        "dead once" if attempt.number == 1 => Outcome::Dead("told to".into()),
        "cancelled" => Outcome::Cancel,
        _ => Outcome::Complete,
    }
}

fn acting(subject: &Subject) -> (Worker, mpsc::UnboundedReceiver<String>) {
    let (ran, runs) = mpsc::unbounded_channel::<String>();
    let worker = Worker::builder(subject.driver.clone()).queue(QUEUE, 1).state(ran).handle(act).build().unwrap();
    (worker, runs)
}

/// Runs all due jobs. Returns the number of attempts, and the texts of the jobs in the order in which they ran.
async fn run(subject: &Subject) -> (JobsRun, Vec<String>) {
    let (worker, mut runs) = acting(subject);
    let run = worker.run_until_drained().await.unwrap();
    (run, std::iter::from_fn(|| runs.try_recv().ok()).collect())
}

async fn standing(subject: &Subject, id: i64) -> WorkflowStanding {
    subject.store.workflow(id).await.unwrap_or_else(|| panic!("the store knows workflow {id}"))
}

/// Checks the state of a workflow, and those of its jobs as `name: state`.
async fn assert_standing(subject: &Subject, id: i64, state: WorkflowState, jobs: &[&str]) {
    let standing = standing(subject, id).await;
    let mut found: Vec<String> =
        standing.jobs.iter().map(|(name, state)| format!("{name}: {}", state.name())).collect();
    found.sort();
    assert_eq!((standing.state, found.iter().map(String::as_str).collect::<Vec<_>>()), (state, jobs.to_vec()));
}

async fn each_job_of_a_workflow_starts_once_what_it_waits_for_has_ended(subject: &Subject) {
    let mut workflow = Workflow::new("onboard");
    let extract = workflow.add("extract", &job("1"));
    let load = workflow.add("load", &job("2")).after(&extract);
    workflow.add("undo", &job("undo")).after_dead(&load);
    workflow.add("report", &job("3")).after_any_end([&extract, &load]);
    let started = workflow.enqueue(&*subject.driver).await.unwrap();
    assert!(!started.existed);
    let waiting = ["extract: ready", "load: blocked", "report: blocked", "undo: blocked"];
    assert_standing(subject, started.id, WorkflowState::Running, &waiting).await;
    let (run, texts) = run(subject).await;
    assert_eq!((run.completed, run.blocked, texts), (3, 0, vec!["1".to_owned(), "2".into(), "3".into()]));
    let ended = ["extract: completed", "load: completed", "report: completed", "undo: skipped"];
    assert_standing(subject, started.id, WorkflowState::Completed, &ended).await;
    assert!(subject.store.workflow(started.id + 1).await.is_none());
}

async fn a_chain_runs_in_its_order(subject: &Subject) {
    let texts: Vec<String> = (1..=20).map(|place| place.to_string()).collect();
    let chain = Workflow::chain("chain", texts.iter().map(|text| job(text)));
    let id = chain.enqueue(&*subject.driver).await.unwrap().id;
    assert_eq!(run(subject).await.1, texts);
    assert_eq!(standing(subject, id).await.state, WorkflowState::Completed);
    let cancelled = Workflow::chain("cancelled", [job("a"), job("cancelled"), job("b"), job("c")]);
    let id = cancelled.enqueue(&*subject.driver).await.unwrap().id;
    assert_eq!(run(subject).await.1, ["a", "cancelled"]);
    let ended = ["1: completed", "2: cancelled", "3: skipped", "4: skipped"];
    assert_standing(subject, id, WorkflowState::Cancelled, &ended).await;
}

async fn a_batch_calls_back_once_its_jobs_have_ended(subject: &Subject) {
    let batch = |jobs: &[&str]| {
        let batch = Workflow::batch("invoices", jobs.iter().map(|text| job(text)).collect::<Vec<_>>());
        batch.on_complete(&job("all")).on_success(&job("success")).on_dead(&job("alarm"))
    };
    let id = batch(&["a", "dead", "cancelled", "dead"]).enqueue(&*subject.driver).await.unwrap().id;
    let (_, texts) = run(subject).await;
    let place = |text: &str| texts.iter().position(|ran| ran == text).unwrap();
    assert!(place("alarm") > place("dead") && place("all") > place("cancelled"), "{texts:?}");
    assert_eq!(texts.iter().filter(|text| *text == "alarm").count(), 1);
    let ended = [
        "1: completed",
        "2: dead",
        "3: cancelled",
        "4: dead",
        "on complete: completed",
        "on dead: completed",
        "on success: skipped",
    ];
    assert_standing(subject, id, WorkflowState::Failed, &ended).await;
    let id = batch(&["a", "b"]).enqueue(&*subject.driver).await.unwrap().id;
    run(subject).await;
    let ended = ["1: completed", "2: completed", "on complete: completed", "on dead: skipped", "on success: completed"];
    assert_standing(subject, id, WorkflowState::Completed, &ended).await;
}

async fn no_job_that_waits_starts_before_the_seal(subject: &Subject) {
    let batch = Workflow::batch("import", [job("1")]).on_complete(&job("sum"));
    let open = batch.open(&*subject.driver).await.unwrap();
    assert_eq!(run(subject).await.1, ["1"]);
    let waiting = ["1: completed", "on complete: blocked"];
    assert_standing(subject, open.id(), WorkflowState::Running, &waiting).await;
    let more = Members::new();
    more.add("2", &job("2")).before_any_end("on complete");
    more.add("3", &job("3")).after(["1", "2"]).before_any_end("on complete");
    open.add(&*subject.driver, more).await.unwrap();
    assert_eq!(run(subject).await.1, ["2"]);
    open.seal(&*subject.driver).await.unwrap();
    open.seal(&*subject.driver).await.unwrap();
    assert_eq!(run(subject).await.1, ["3", "sum"]);
    let ended = ["1: completed", "2: completed", "3: completed", "on complete: completed"];
    assert_standing(subject, open.id(), WorkflowState::Completed, &ended).await;
    let late = Members::new();
    late.add("4", &job("4"));
    let refused = open.add(&*subject.driver, late).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("workflow {} is completed", open.id())), "{refused}");
}

async fn a_wrong_graph_is_refused_as_a_whole(subject: &Subject) {
    let graph = |build: fn(&mut Workflow)| {
        let mut workflow = Workflow::new("w");
        workflow.add("good", &job("x"));
        build(&mut workflow);
        workflow
    };
    let refusals = [
        (
            graph(|workflow| {
                workflow.add("a", &job("x")).after("b");
                workflow.add("b", &job("x")).after("c");
                workflow.add("c", &job("x")).after("a");
            }),
            r#"in a circle: "a" waits for "b", which waits for "c", which waits for "a""#,
        ),
        (graph(|workflow| _ = workflow.add("a", &job("x")).after("y")), r#"job "a": "y" is not a job of the workflow"#),
        (graph(|workflow| _ = workflow.add("a", &job("x")).after("a")), r#"job "a" waits for itself"#),
        (graph(|workflow| _ = workflow.add("good", &job("x"))), r#"the name "good" occurs twice"#),
        (
            graph(|workflow| _ = workflow.add("a", &job("x")).after("good").after_dead("good")),
            r#"job "a" waits for "good" twice"#,
        ),
        (graph(|workflow| _ = workflow.add("a", &job("x").unique_key("u"))), "has a unique key"),
        (Workflow::new("w"), "a workflow needs at least one job"),
        (Workflow::batch("", [job("x")]), "a workflow's name must have 1 to 128 characters"),
        (Workflow::batch("w", [job("x")]).unique_key(""), "unique_key must have 1 to 512 bytes"),
        (Workflow::batch("w", [job("x")]).input(&"x".repeat(1_048_600)), "larger than 1 MiB"),
    ];
    for (workflow, expected) in refusals {
        let error = workflow.enqueue(&*subject.driver).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.is_invalid(), "{error:?}");
    }
    assert_eq!(run(subject).await.0, JobsRun::default(), "nothing is stored");
}

async fn a_wrong_addition_is_refused_as_a_whole(subject: &Subject) {
    let mut workflow = Workflow::new("w");
    let root = workflow.add("root", &job("dead"));
    let middle = workflow.add("middle", &job("x")).after(&root);
    workflow.add("end", &job("x")).after(&middle);
    let open = workflow.open(&*subject.driver).await.unwrap();
    run(subject).await;
    let addition = |build: fn(&Members)| {
        let members = Members::new();
        members.add("good", &job("x"));
        build(&members);
        members
    };
    let refusals = [
        (addition(|members| _ = members.add("root", &job("x"))), r#"the name "root" occurs twice"#),
        (addition(|members| _ = members.add("a", &job("x")).after("y")), r#"job "a": "y" is not a job"#),
        (addition(|members| _ = members.add("a", &job("x")).before("root")), r#"job "root" has started or ended"#),
        (addition(|members| _ = members.add("a", &job("x")).after("end").before("middle")), "would wait for itself"),
    ];
    for (members, expected) in refusals {
        let error = open.add(&*subject.driver, members).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_standing(subject, open.id(), WorkflowState::Running, &["end: blocked", "middle: blocked", "root: dead"])
        .await;
    let empty = Workflow::new("empty").open(&*subject.driver).await.unwrap();
    let refused = empty.seal(&*subject.driver).await.unwrap_err().to_string();
    assert!(refused.contains("a workflow needs at least one job"), "{refused}");
}

async fn a_unique_workflow_is_enqueued_once_until_it_has_ended(subject: &Subject) {
    let again = async |name: &str, key: &str| {
        Workflow::batch(name, [job("x")]).unique_key(key).enqueue(&*subject.driver).await.unwrap()
    };
    let first = again("w", "u").await;
    let second = again("w", "u").await;
    assert_eq!((first.existed, second.existed, second.id), (false, true, first.id));
    assert!(!again("w", "other").await.existed && !again("other", "u").await.existed);
    assert_eq!(run(subject).await.0.completed, 3);
    let third = again("w", "u").await;
    assert!(!third.existed && third.id > first.id);
}

async fn a_dead_job_stalls_its_workflow_until_it_is_revived(subject: &Subject) {
    let mut workflow = Workflow::new("nightly");
    let first = workflow.add("first", &job("dead once"));
    workflow.add("second", &job("2")).after(&first);
    workflow.add("third", &job("3")).after(&first).cancel_if_dead();
    let id = workflow.enqueue(&*subject.driver).await.unwrap().id;
    assert_eq!(run(subject).await.0.blocked, 1);
    let stalled = ["first: dead", "second: blocked", "third: skipped"];
    assert_standing(subject, id, WorkflowState::Stalled, &stalled).await;
    let retried = subject.store.retry_workflow(id, false).await.unwrap();
    let retried: Vec<_> = retried.iter().map(|retried| (retried.name.as_str(), retried.retried)).collect();
    assert_eq!(retried, [("first", Some(Retried::Revived))]);
    assert!(subject.store.retry_workflow(id + 1, false).await.is_none());
    assert_eq!(run(subject).await.1, ["dead once", "2"]);
    let ended = ["first: completed", "second: completed", "third: skipped"];
    assert_standing(subject, id, WorkflowState::Completed, &ended).await;
}

async fn a_death_that_was_acted_on_is_revived_only_by_force(subject: &Subject) {
    let mut workflow = Workflow::new("transfer");
    let debit = workflow.add("debit", &job("dead once"));
    workflow.add("refund", &job("refund")).after_dead(&debit);
    let id = workflow.enqueue(&*subject.driver).await.unwrap().id;
    run(subject).await;
    let ended = ["debit: dead", "refund: completed"];
    assert_standing(subject, id, WorkflowState::Failed, &ended).await;
    let answers = async |forced| {
        let retried = subject.store.retry_workflow(id, forced).await.unwrap();
        retried.iter().map(|retried| retried.retried.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(answers(false).await, [Retried::Compensated]);
    assert_standing(subject, id, WorkflowState::Failed, &ended).await;
    assert_eq!(answers(true).await, [Retried::Revived]);
    assert_eq!(run(subject).await.1, ["dead once"]);
    assert_standing(subject, id, WorkflowState::Completed, &["debit: completed", "refund: completed"]).await;
    assert_eq!(answers(true).await, [], "no job is dead");
}

async fn a_cancelled_workflow_runs_only_its_cleanup(subject: &Subject) {
    let mut workflow = Workflow::new("cancelled");
    let first = workflow.add("first", &job("1"));
    let second = workflow.add("second", &job("2")).after(&first);
    workflow.add("undo", &job("undo")).after_dead(&second);
    workflow.add("cleanup", &job("cleanup")).after_any_end([&first, &second]);
    let id = workflow.enqueue(&*subject.driver).await.unwrap().id;
    assert!(subject.store.cancel_workflow(id).await.is_some());
    assert_eq!(subject.store.cancel_workflow(id + 1).await, None);
    let late = Members::new();
    late.add("late", &job("x"));
    let handle = Workflow::batch("w", [job("3")]).open(&*subject.driver).await.unwrap();
    assert!(handle.add(&*subject.driver, late).await.is_ok(), "another workflow goes on");
    subject.apply_ends().await;
    let (_, mut texts) = run(subject).await;
    texts.sort();
    assert_eq!(texts, ["3", "cleanup", "x"]);
    let ended = ["cleanup: completed", "first: cancelled", "second: cancelled", "undo: cancelled"];
    assert_standing(subject, id, WorkflowState::Cancelled, &ended).await;
    assert_eq!(subject.store.cancel_workflow(id).await, Some(WorkflowState::Cancelled));
}

async fn a_workflow_can_be_cancelled_before_its_seal(subject: &Subject) {
    let batch = Workflow::batch("import", [job("1")]).on_complete(&job("sum")).on_success(&job("success"));
    let open = batch.open(&*subject.driver).await.unwrap();
    subject.store.cancel_workflow(open.id()).await.unwrap();
    subject.apply_ends().await;
    assert_eq!(run(subject).await.1, ["sum"], "the callback for any end is cleanup");
    let ended = ["1: cancelled", "on complete: completed", "on success: cancelled"];
    assert_standing(subject, open.id(), WorkflowState::Cancelled, &ended).await;
}

/// A job that adds jobs to its workflow.
#[derive(serde::Serialize, serde::Deserialize)]
struct Find;

impl Job for Find {
    const KIND: &'static str = "find";
}

/// A job that reads the results of others.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sum;

impl Job for Sum {
    const KIND: &'static str = "sum";
}

async fn a_handler_reads_results_and_adds_to_its_workflow(subject: &Subject) {
    async fn find(_: Find, State(driver): State<Arc<dyn Driver>>, context: Context) -> crate::Result<Completed<i64>> {
        let workflow = context.workflow().await?.unwrap();
        let files = Members::new();
        for (name, size) in [("a", "20"), ("b", "300")] {
            files.add(name, &job(size)).before("sum");
        }
        workflow.add(&driver, files).await?;
        Ok(Completed(1))
    }
    async fn load(Note(size): Note) -> Completed<i64> {
        Completed(size.parse().unwrap())
    }
    async fn sum(_: Sum, inputs: Inputs, context: Context) -> crate::Result<Completed<String>> {
        let mut sum = 0;
        for input in inputs.all().await? {
            sum += inputs.get::<i64>(&input.label).await?;
        }
        let unknown = inputs.get::<i64>("c").await.unwrap_err();
        assert!(unknown.to_string().contains(r#"it has not waited for "c""#), "{unknown}");
        let day: Option<String> = context.workflow_input().await?;
        Ok(Completed(format!("{sum} on {}", day.unwrap_or_default())))
    }
    let builder = Worker::builder(subject.driver.clone()).queue(QUEUE, 1).state(subject.driver.clone());
    let worker = builder.handle(find).handle(load).handle(sum).build().unwrap();
    let mut workflow = Workflow::new("etl").input(&"monday");
    let first = workflow.add("find", &NewJob::of(&Find).unwrap());
    workflow.add("sum", &NewJob::of(&Sum).unwrap()).after(&first);
    let id = workflow.enqueue(&*subject.driver).await.unwrap().id;
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 4);
    let ended = ["a: completed", "b: completed", "find: completed", "sum: completed"];
    assert_standing(subject, id, WorkflowState::Completed, &ended).await;
    let result = standing(subject, id).await.result.map(|result: Payload| result.decode::<String>().unwrap());
    assert_eq!(result.as_deref(), Some("321 on monday"), "the result of the job that no other waits for");
}

async fn a_workflow_that_is_enqueued_inline_has_run(subject: &Subject) {
    let (worker, _runs) = acting(subject);
    let inline = worker.inline();
    let id = Workflow::chain("chain", [job("1"), job("2")]).enqueue(&inline).await.unwrap().id;
    assert_eq!(standing(subject, id).await.state, WorkflowState::Completed);
    let later = Workflow::batch("later", [job("3")]).on_complete(&job("sum")).open(&inline).await.unwrap();
    assert_standing(subject, later.id(), WorkflowState::Running, &["1: completed", "on complete: blocked"]).await;
    later.seal(&inline).await.unwrap();
    assert_eq!(standing(subject, later.id()).await.state, WorkflowState::Completed);
}

async fn draining_counts_the_jobs_that_still_wait(subject: &Subject) {
    let mut workflow = Workflow::new("w");
    let elsewhere = workflow.add("elsewhere", &job("x")).with(|job| job.queue("another"));
    workflow.add("here", &job("y")).after(&elsewhere);
    let id = workflow.enqueue(&*subject.driver).await.unwrap().id;
    let (run, texts) = run(subject).await;
    assert_eq!((run.attempts(), run.blocked, texts.len()), (0, 1, 0));
    let states = standing(subject, id).await.jobs;
    assert!(states.contains(&("here".into(), WorkflowJobState::Blocked)));
}
