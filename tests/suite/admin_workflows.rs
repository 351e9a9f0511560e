//! Workflows as an administrator sees and changes them.

use reveille::admin::{Admin, DependencyState, Retried, WorkflowFilter, WorkflowJobState, WorkflowRow, WorkflowState};
use reveille::job::FiresOn;
use reveille::{Context, Job, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::harness::{TestDatabase, database, start, worker};

/// A job whose only attempt ends as it is told.
#[derive(Serialize, Deserialize)]
struct Act(String);

impl Job for Act {
    const KIND: &'static str = "act";
    const MAX_ATTEMPTS: u32 = 1;
}

async fn act(job: Act, _: Context) -> Outcome {
    if job.0 == "dead" { Outcome::Dead("told to".into()) } else { Outcome::Complete }
}

/// Workflow 1: `debit` is dead and has been made up for by `refund`; `report` waits for `debit`.
/// Workflow 2: all jobs are completed.
async fn ended() -> TestDatabase {
    let database = database().await;
    let workflows = r#"select reveille.enqueue_workflow('transfer', '[
            {"name": "debit", "kind": "act", "payload": "dead", "max_attempts": 1},
            {"name": "refund", "kind": "act", "payload": "", "after": ["debit"], "fires_on": "dead"},
            {"name": "report", "kind": "act", "payload": "", "after": ["debit"]}
        ]');
        select reveille.enqueue_workflow('nightly', '[{"name": "only", "kind": "act", "payload": ""}]');"#;
    database.run(workflows).await;
    let running = start(worker(&database).handle(act));
    database.until("select array_agg(state order by id) = '{stalled,completed}' from reveille.workflow_status").await;
    running.stop().await;
    database
}

fn workflow_ids(workflows: &[WorkflowRow]) -> Vec<i64> {
    workflows.iter().map(|workflow| workflow.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_are_listed_by_name_and_state_newest_first() {
    let database = ended().await;
    let admin = database.admin();
    let listed = async |filter: WorkflowFilter| workflow_ids(&admin.workflows(&filter, 10).await.unwrap());
    let all = WorkflowFilter::new;
    assert_eq!(listed(all()).await, [2, 1]);
    assert_eq!(listed(all().before(2)).await, [1]);
    assert_eq!(listed(all().name("transfer")).await, [1]);
    assert_eq!(listed(all().state(WorkflowState::Completed)).await, [2]);
    assert_eq!(listed(all().name("transfer").state(WorkflowState::Completed)).await, [0; 0]);
    assert_eq!(workflow_ids(&admin.workflows(&all(), 1).await.unwrap()), [2]);
    let workflow = admin.workflow(1).await.unwrap().unwrap();
    let counts = (workflow.jobs, workflow.blocked, workflow.completed, workflow.dead, workflow.live);
    assert_eq!((workflow.state, counts), (WorkflowState::Stalled, (3, 1, 1, 1, 0)));
    let values = admin.workflow_values(2).await.unwrap().unwrap();
    assert_eq!((values.input.as_bytes(), values.result), (&b"{}"[..], None));
    assert!(admin.workflow_values(3).await.unwrap().is_none());
    assert!(admin.workflow(3).await.unwrap().is_none());
}

#[tokio::test]
async fn workflows_are_counted_by_state_up_to_a_maximum() {
    let database = database().await;
    let workflows = "insert into reveille.workflows (name, state)
        select 'w', (array['running', 'stalled', 'completed'])[1 + n % 3] from generate_series(1, 20) as n";
    database.run(workflows).await;
    let (running, stalled, failed) = (WorkflowState::Running, WorkflowState::Stalled, WorkflowState::Failed);
    let counted = database.admin().count_workflows(&[running, stalled, failed], 100).await.unwrap();
    assert_eq!(counted, [(running, 6), (stalled, 7), (failed, 0)].into());
    let bounded = database.admin().count_workflows(&[running, stalled], 6).await.unwrap();
    assert_eq!(bounded, [(running, 6), (stalled, 6)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_workflow_are_listed_with_what_they_wait_for() {
    let database = ended().await;
    let admin = database.admin();
    let jobs = admin.workflow_jobs(1, "", 10).await.unwrap();
    let listed: Vec<_> = jobs
        .iter()
        .map(|job| {
            let waits: Vec<_> = job.prerequisites.iter().map(|other| (&*other.name, other.fires_on)).collect();
            (&*job.name, job.state, waits)
        })
        .collect();
    let expected = [
        ("debit", WorkflowJobState::Dead, vec![]),
        ("refund", WorkflowJobState::Completed, vec![("debit", FiresOn::Dead)]),
        ("report", WorkflowJobState::Blocked, vec![("debit", FiresOn::Completed)]),
    ];
    assert_eq!(listed, expected);
    let page = admin.workflow_jobs(1, "debit", 1).await.unwrap();
    assert_eq!(page.iter().map(|job| &*job.name).collect::<Vec<_>>(), ["refund"]);
    assert!(admin.workflow_jobs(3, "", 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_read_with_its_workflow_and_the_jobs_at_both_sides() {
    let database = ended().await;
    let admin = database.admin();
    let links = admin.job_links(1, 10).await.unwrap();
    let of = links.workflow.unwrap();
    assert_eq!((of.id, &*of.name, &*of.job_name, of.job_state), (1, "transfer", "debit", WorkflowJobState::Dead));
    assert!(of.ended_at.is_some() && links.prerequisites.is_empty());
    let listed: Vec<_> = links
        .waiters
        .iter()
        .map(|link| (link.name.as_deref().unwrap(), link.fires_on, link.state, link.job_state.unwrap()))
        .collect();
    let expected = [
        ("refund", FiresOn::Dead, DependencyState::Met, WorkflowJobState::Completed),
        ("report", FiresOn::Completed, DependencyState::Held, WorkflowJobState::Blocked),
    ];
    assert_eq!(listed, expected);
    assert_eq!(admin.job_links(1, 1).await.unwrap().waiters.len(), 1);
    let report = admin.job_links(links.waiters[1].job, 10).await.unwrap().prerequisites;
    assert_eq!((&*report[0].label, report[0].kind.as_deref(), report[0].job), ("debit", Some("act"), 1));

    // The workflow still knows a job whose history is gone.
    let refund = links.waiters[0].job;
    database.run("delete from reveille.finished_jobs").await;
    let gone = admin.job_links(refund, 10).await.unwrap();
    assert_eq!(gone.workflow.unwrap().job_state, WorkflowJobState::Completed);
    let link = &admin.job_links(1, 1).await.unwrap().waiters[0];
    assert_eq!((link.queue.as_deref(), link.job_state), (None, Some(WorkflowJobState::Completed)));
    let none = admin.job_links(999, 10).await.unwrap();
    assert!(none.workflow.is_none() && none.prerequisites.is_empty() && none.waiters.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_jobs_are_read_up_to_a_size() {
    let database = ended().await;
    let results = r#"update reveille.workflow_jobs set result = case name
        when 'debit' then '{"cents": 990}'::jsonb when 'only' then to_jsonb(repeat('x', 100000)) end"#;
    database.run(results).await;
    let jobs: Vec<i64> = (1..=9).collect();
    let results = database.admin().workflow_results(&jobs, 2000).await.unwrap();
    let texts: Vec<_> = results.values().map(|result| result.as_ref().map(|result| result.as_bytes())).collect();
    assert_eq!(texts, [Some(&br#"{"cents": 990}"#[..]), None]);
}

async fn actions(database: &TestDatabase) -> Value {
    let actions = "select jsonb_agg(jsonb_build_array(action, target, detail) order by id) from reveille.actions";
    database.value(actions).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_workflow_is_recorded_and_tells_which_jobs_it_refused() {
    let database = ended().await;
    let alice: Admin = database.admin().acting_as("alice", "test").unwrap();
    let retried = alice.retry_workflow(1, false).await.unwrap().unwrap();
    assert_eq!((&*retried[0].name, retried[0].job, retried[0].retried), ("debit", 1, Some(Retried::Compensated)));
    assert_eq!(alice.retry(1).await.unwrap(), Retried::Compensated);
    assert_eq!(alice.retry_workflow(1, true).await.unwrap().unwrap()[0].retried, Some(Retried::Revived));
    assert_eq!(alice.retry_workflow(2, false).await.unwrap(), Some(vec![]));
    assert_eq!(alice.retry_workflow(3, false).await.unwrap(), None);
    let expected = json!([
        ["retry_workflow", {"workflow": 1}, {"answer": "retried", "forced": false, "revived": 0, "dead": 1}],
        ["retry", {"job": 1}, {"answer": "compensated"}],
        ["retry_workflow", {"workflow": 1}, {"answer": "retried", "forced": true, "revived": 1, "dead": 0}],
        ["retry_workflow", {"workflow": 2}, {"answer": "retried", "forced": false, "revived": 0, "dead": 0}],
        ["retry_workflow", {"workflow": 3}, {"answer": "unknown"}],
    ]);
    assert_eq!(actions(&database).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_job_is_revived_by_force_although_its_death_was_acted_on() {
    let database = ended().await;
    assert_eq!(database.admin().retry_forced(1).await.unwrap(), Retried::Revived);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_a_workflow_is_recorded() {
    let database = ended().await;
    let alice: Admin = database.admin().acting_as("alice", "test").unwrap();
    assert_eq!(alice.cancel_workflow(1).await.unwrap(), Some(WorkflowState::Cancelling));
    assert_eq!(alice.cancel_workflow(2).await.unwrap(), Some(WorkflowState::Completed));
    assert_eq!(alice.cancel_workflow(3).await.unwrap(), None);
    let expected = json!([
        ["cancel_workflow", {"workflow": 1}, {"answer": "cancelling"}],
        ["cancel_workflow", {"workflow": 2}, {"answer": "completed"}],
        ["cancel_workflow", {"workflow": 3}, {"answer": "unknown"}],
    ]);
    assert_eq!(actions(&database).await, expected);
}
