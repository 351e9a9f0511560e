//! What `Memory` keeps of workflows, and for how long.

use std::time::Duration;

use reveille::driver::{Driver, Memory};
use reveille::enqueue::{Members, Workflow};
use reveille::job::{FiresOn, JobState, LinkedTarget, NewJob, Retried, WorkflowJobState, WorkflowState};
use reveille::{Context, Job, Outcome, Worker, enqueue};

use crate::conformance::job;
use crate::harness::{Note, soon};

const DAY: Duration = Duration::from_secs(86_400);

async fn act(note: Note) -> Outcome {
    match note.text.as_str() {
        "dead" => Outcome::Dead("told to".into()),
        _ => Outcome::Complete,
    }
}

async fn run(memory: &Memory) {
    Worker::builder(memory.clone()).handle(act).build().unwrap().run_until_drained().await.unwrap();
}

fn state(memory: &Memory, id: i64) -> JobState {
    memory.job(id).unwrap().state
}

#[tokio::test]
async fn a_workflow_is_read_with_all_that_is_kept() {
    let memory = Memory::new();
    let mut workflow = Workflow::new("onboard").unique_key("u").input(&7);
    let first = workflow.add("first", &job("dead"));
    workflow.add("second", &job("x")).after(&first).cancel_if_dead();
    let id = workflow.enqueue(&memory).await.unwrap().id;
    run(&memory).await;
    let workflow = memory.workflow(id).unwrap();
    assert_eq!((workflow.id, workflow.name.as_str(), workflow.unique_key.as_deref()), (id, "onboard", Some("u")));
    assert_eq!((workflow.state, workflow.sealed, workflow.parent_id), (WorkflowState::Failed, true, None));
    assert_eq!(workflow.input.decode::<i32>().unwrap(), 7);
    assert!(workflow.finished_at.unwrap() >= workflow.created_at);
    assert_eq!(workflow.count(WorkflowJobState::Dead), 1);
    let second = workflow.job("second").unwrap();
    assert_eq!(second.state, WorkflowJobState::Skipped);
    let skipped = memory.job(second.job).unwrap();
    assert_eq!((skipped.state, skipped.failures), (JobState::Cancelled, 0));
    assert!(skipped.errors[0].error.contains("can no longer come"), "{:?}", skipped.errors);
    assert!(workflow.job("third").is_none());
    assert_eq!(memory.workflows().len(), 1);
}

#[tokio::test]
async fn a_workflow_is_forgotten_30_days_after_its_end_and_its_jobs_after_a_day() {
    let memory = Memory::new();
    let ended = Workflow::chain("ended", [job("x"), job("y")]).enqueue(&memory).await.unwrap().id;
    run(&memory).await;
    let stalled = Workflow::chain("stalled", [job("dead"), job("y")]).enqueue(&memory).await.unwrap().id;
    run(&memory).await;
    memory.advance(DAY * 2);
    memory.prune().await.unwrap();
    assert!(memory.job(1).is_none());
    let kept = memory.workflow(ended).unwrap();
    assert_eq!((kept.state, kept.count(WorkflowJobState::Completed)), (WorkflowState::Completed, 2));
    let follower = enqueue(&memory, &job("z")).after([1]).await.unwrap().id;
    assert_eq!(state(&memory, follower), JobState::Ready, "the end of the forgotten job is still known");
    memory.advance(DAY * 29);
    memory.prune().await.unwrap();
    assert!(memory.workflow(ended).is_none());
    assert!(enqueue(&memory, &job("z")).after([1]).await.is_err());
    assert_eq!(memory.workflow(stalled).unwrap().state, WorkflowState::Stalled, "it has not ended");
}

#[tokio::test]
async fn a_purged_job_counts_as_cancelled() {
    let memory = Memory::new();
    let mut workflow = Workflow::new("w");
    let first = workflow.add("first", &job("dead"));
    workflow.add("second", &job("x")).after(&first);
    let id = workflow.enqueue(&memory).await.unwrap().id;
    run(&memory).await;
    assert!(memory.purge(1) && !memory.purge(1));
    let workflow = memory.workflow(id).unwrap();
    assert_eq!(workflow.state, WorkflowState::Cancelled);
    let states: Vec<_> = workflow.jobs.iter().map(|job| job.state).collect();
    assert_eq!(states, [WorkflowJobState::Cancelled, WorkflowJobState::Skipped]);
}

#[tokio::test]
async fn a_death_stays_acted_on_once_the_compensation_is_forgotten() {
    let memory = Memory::new();
    let dead = enqueue(&memory, &job("dead")).await.unwrap().id;
    enqueue(&memory, &job("undo")).after_outcome(FiresOn::Dead, [dead]).await.unwrap();
    run(&memory).await;
    memory.advance(DAY * 2);
    memory.prune().await.unwrap();
    assert_eq!(memory.jobs().len(), 1);
    assert_eq!(memory.retry(dead).unwrap(), Retried::Compensated);
    assert_eq!(memory.retry_forced(dead).unwrap(), Retried::Revived);
}

#[tokio::test]
async fn a_job_that_is_revived_while_its_workflow_is_cancelled_is_cancelled() {
    let memory = Memory::new();
    let mut workflow = Workflow::new("w");
    let first = workflow.add("first", &job("dead"));
    workflow.add("cleanup", &job("x")).after_any_end(&first).with(|job| job.queue("later"));
    let id = workflow.enqueue(&memory).await.unwrap().id;
    run(&memory).await;
    assert_eq!(memory.cancel_workflow(id), Some(WorkflowState::Cancelling), "the cleanup still waits in its queue");
    assert_eq!(memory.retry(1).unwrap(), Retried::Revived);
    assert_eq!(state(&memory, 1), JobState::Cancelled);
    let late = Members::new();
    late.add("late", &job("x"));
    let handle = Workflow::new("w").open(&memory).await.unwrap();
    assert_eq!(handle.id(), id + 1);
    handle.add(&memory, late).await.unwrap();
}

#[tokio::test]
async fn a_running_job_of_a_cancelled_workflow_is_asked_to_stop() {
    async fn cancels_its_workflow(_: Note, context: Context, memory: reveille::State<Memory>) -> Outcome {
        let workflow = context.workflow().await.unwrap().unwrap();
        assert_eq!(memory.cancel_workflow(workflow.id()), Some(WorkflowState::Cancelling));
        let late = Members::new();
        late.add("late", &job("x"));
        let refused = workflow.add(&*memory, late).await.unwrap_err().to_string();
        assert!(refused.contains("is cancelling (Enqueue another workflow.)"), "{refused}");
        soon("the handler is asked to stop", context.cancellation().cancelled()).await;
        Outcome::Cancel
    }
    let memory = Memory::new();
    let builder = Worker::builder(memory.clone()).state(memory.clone()).handle(cancels_its_workflow);
    let running = crate::harness::start(builder);
    let id = Workflow::chain("w", [job("x"), job("y")]).enqueue(&memory).await.unwrap().id;
    soon("the last job ends", memory.finished(2)).await;
    soon("the first job ends", memory.finished(1)).await;
    running.stop().await;
    assert_eq!(memory.workflow(id).unwrap().state, WorkflowState::Cancelled);
}

#[tokio::test]
async fn the_end_of_a_blocked_job_can_be_awaited() {
    let memory = Memory::new();
    let first = enqueue(&memory, &job("x")).await.unwrap();
    let last = enqueue(&memory, &job("y")).after([first.id]).await.unwrap();
    let end = last.finished(&memory);
    let (_, end) = tokio::join!(run(&memory), end);
    assert_eq!(end.unwrap().unwrap().state, JobState::Completed);
}

#[tokio::test]
async fn a_chain_of_any_length_is_skipped_at_once() {
    const LENGTH: usize = 50_000;
    let memory = Memory::new();
    let id = Workflow::chain("w", (0..LENGTH).map(|_| job("x"))).enqueue(&memory).await.unwrap().id;
    memory.cancel(1);
    let workflow = memory.workflow(id).unwrap();
    assert_eq!((workflow.state, workflow.count(WorkflowJobState::Skipped)), (WorkflowState::Cancelled, LENGTH - 1));
}

#[tokio::test]
async fn a_large_batch_calls_back_in_linear_time() {
    const SIZE: usize = 20_000;
    let memory = Memory::new();
    let batch = Workflow::batch("w", (0..SIZE).map(|_| job("x"))).on_complete(&job("sum")).on_dead(&job("alarm"));
    let id = batch.enqueue(&memory).await.unwrap().id;
    (1..=SIZE as i64 + 2).for_each(|id| _ = memory.cancel(id));
    let workflow = memory.workflow(id).unwrap();
    assert_eq!((workflow.state, workflow.jobs.len()), (WorkflowState::Cancelled, SIZE + 2));
}

#[tokio::test]
async fn a_driver_outside_of_the_crate_gets_the_parts_of_linked_jobs() {
    use std::sync::Mutex;

    use futures::FutureExt;
    use reveille::database::EnqueueOn;
    use reveille::handler::BoxFuture;
    use reveille::job::{Enqueued, LinkedJob, LinkedJobs};

    /// A store that writes down what it is asked to keep.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl EnqueueOn for &Notes {
        fn insert<'a>(self, _: &'a str, _: &'a [NewJob]) -> BoxFuture<'a, reveille::Result<Vec<Enqueued>>>
        where
            Self: 'a,
        {
            async { Ok(Vec::new()) }.boxed()
        }

        fn insert_linked<'a>(self, _: &'a str, linked: &'a LinkedJobs) -> BoxFuture<'a, reveille::Result<Enqueued>>
        where
            Self: 'a,
        {
            async move {
                linked.check(|name| name == "known")?;
                let mut notes = self.0.lock().unwrap();
                match &linked.target {
                    LinkedTarget::New { name, seal, .. } => notes.push(format!("{name} {seal}")),
                    LinkedTarget::Jobs { ids, fires_on, job, .. } => {
                        notes.push(format!("{ids:?} {fires_on:?} {}", job.kind))
                    }
                    _ => {}
                }
                for LinkedJob { name, after, .. } in &linked.jobs {
                    let after: Vec<&str> = after.iter().flatten().map(|other| other.name.as_str()).collect();
                    notes.push(format!("{name} after {after:?}"));
                }
                Ok(Enqueued::new(1, false))
            }
            .boxed()
        }
    }

    let notes = Notes::default();
    let mut workflow = Workflow::new("w");
    workflow.add("a", &job("x")).after("known");
    workflow.enqueue(&notes).await.unwrap();
    enqueue(&notes, &job("x")).after_outcome(FiresOn::Any, [7]).await.unwrap();
    let kind = Note::KIND;
    assert_eq!(*notes.0.lock().unwrap(), ["w true".into(), r#"a after ["known"]"#.into(), format!("[7] Any {kind}")]);
    let mut workflow = Workflow::new("w");
    workflow.add("known", &job("x"));
    assert!(workflow.enqueue(&notes).await.unwrap_err().is_invalid());
}
