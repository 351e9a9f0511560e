//! Jobs that wait for other jobs.

use std::time::{Duration, SystemTime};

use super::subject::{HOUR, QUEUE, Subject, failed, failure, job, snoozed};
use super::{Standing, behaviours};
use crate::driver::{Ending, FailureReason};
use crate::enqueue::{Enqueue, Workflow, enqueue};
use crate::job::{Cancelled, FiresOn, Input, JobState, Labels, NewJob, Payload, Retried};

behaviours![
    a_job_starts_once_all_that_it_waits_for_are_completed needs Workflows,
    each_outcome_starts_holds_or_skips_a_job needs Workflows,
    the_first_outcome_is_enough_for_a_job_that_asks_for_no_more needs Workflows,
    a_prerequisite_that_has_ended_counts_at_once needs Workflows,
    a_job_that_cannot_wait_is_refused needs Workflows,
    a_delay_counts_from_the_last_end needs Workflows,
    only_an_end_counts needs Workflows,
    a_blocked_job_can_be_cancelled_but_not_retried needs Workflows Controls,
    a_held_job_goes_on_once_the_dead_one_is_revived needs Workflows Controls,
    a_blocked_job_does_not_hold_up_its_key needs Workflows Controls Limits,
    a_job_can_read_what_it_has_waited_for needs Workflows,
    the_result_of_a_linked_job_has_at_most_1_mib needs Workflows,
    a_store_without_workflows_refuses_them lacks Workflows,
];

/// The queue of the jobs that wait, so that no claim of a test takes them.
const LATER: &str = "later";

/// Returns a job that is about to be enqueued, in the queue of jobs that wait.
fn follower(subject: &Subject) -> Enqueue<'_, &dyn crate::driver::Driver> {
    enqueue(&*subject.driver, &job("follower")).queue(LATER)
}

async fn after(subject: &Subject, fires_on: FiresOn, ids: &[i64]) -> i64 {
    follower(subject).after_outcome(fires_on, ids.iter().copied()).await.unwrap().id
}

async fn state(subject: &Subject, id: i64) -> JobState {
    subject.standing(id).await.state
}

/// Claims the only due job, and settles it.
async fn end(subject: &Subject, ending: Ending) {
    let reservation = subject.claim_one(1).await.reservation;
    assert!(subject.settle(reservation, ending).await);
    subject.apply_ends().await;
}

fn dead() -> Ending {
    Ending::Dead(failure(FailureReason::Permanent))
}

async fn a_job_starts_once_all_that_it_waits_for_are_completed(subject: &Subject) {
    subject.register(1).await;
    let (first, second) = (subject.enqueue(job("first")).await, subject.enqueue(job("second")).await);
    let last = enqueue(&*subject.driver, &job("last")).after([first, second]).await.unwrap();
    assert!(!last.existed && last.id > second);
    assert_eq!(subject.standing(last.id).await, Standing::new(JobState::Blocked, 0, 0));
    let claimed = subject.claim(1, 10).await;
    assert_eq!(claimed.iter().map(|job| job.reservation.id).collect::<Vec<_>>(), [first, second]);
    assert!(subject.settle(claimed[1].reservation, Ending::Completed(None)).await);
    subject.apply_ends().await;
    assert_eq!(state(subject, last.id).await, JobState::Blocked);
    assert!(subject.claim(1, 10).await.is_empty());
    assert!(subject.settle(claimed[0].reservation, Ending::Completed(None)).await);
    subject.apply_ends().await;
    assert_eq!(subject.claim_one(1).await.reservation.id, last.id);
}

async fn each_outcome_starts_holds_or_skips_a_job(subject: &Subject) {
    use FiresOn::{Any, Cancelled, Completed, Dead};
    use JobState::{Blocked, Ready};
    const SKIPPED: JobState = JobState::Cancelled;
    subject.register(1).await;
    // For each ending: the states of jobs that wait for each outcome, and of one that waits for a completion and is
    // cancelled by a death.
    let table = [
        (Ending::Completed(None), [Ready, SKIPPED, SKIPPED, Ready, Ready]),
        (dead(), [Blocked, Ready, SKIPPED, Ready, SKIPPED]),
        (Ending::Cancelled, [SKIPPED, SKIPPED, Ready, Ready, SKIPPED]),
    ];
    for (ending, states) in table {
        let id = subject.enqueue(job("x")).await;
        let mut waiting = Vec::new();
        for fires_on in [Completed, Dead, Cancelled, Any] {
            waiting.push(after(subject, fires_on, &[id]).await);
        }
        waiting.push(follower(subject).after([id]).cancel_if_dead().await.unwrap().id);
        let (skipped, waits_for_any) = (waiting[if states[0] == SKIPPED { 0 } else { 2 }], waiting[3]);
        let of_skipped = [after(subject, Completed, &[skipped]).await, after(subject, Cancelled, &[skipped]).await];
        end(subject, ending.clone()).await;
        for (id, expected) in waiting.iter().zip(states) {
            assert_eq!(state(subject, *id).await, expected, "job {id} after {ending:?}");
        }
        assert_eq!(subject.standing(waits_for_any).await, Standing::new(Ready, 0, 0));
        let of_skipped = [state(subject, of_skipped[0]).await, state(subject, of_skipped[1]).await];
        assert_eq!(of_skipped, [SKIPPED, Ready], "a skipped job counts as cancelled");
    }
}

async fn the_first_outcome_is_enough_for_a_job_that_asks_for_no_more(subject: &Subject) {
    subject.register(1).await;
    let ids = [subject.enqueue(job("a")).await, subject.enqueue(job("b")).await, subject.enqueue(job("c")).await];
    let on_first =
        |fires_on| async move { follower(subject).after_outcome(fires_on, ids).on_first().await.unwrap().id };
    let (dead_one, cancelled_one) = (on_first(FiresOn::Dead).await, on_first(FiresOn::Cancelled).await);
    end(subject, Ending::Completed(None)).await;
    let both = [state(subject, dead_one).await, state(subject, cancelled_one).await];
    assert_eq!(both, [JobState::Blocked, JobState::Blocked]);
    end(subject, dead()).await;
    assert_eq!(state(subject, dead_one).await, JobState::Ready);
    end(subject, Ending::Completed(None)).await;
    assert_eq!(state(subject, cancelled_one).await, JobState::Cancelled, "none of them was cancelled");
}

async fn a_prerequisite_that_has_ended_counts_at_once(subject: &Subject) {
    subject.register(1).await;
    let completed = subject.enqueue(job("completed")).await;
    end(subject, Ending::Completed(None)).await;
    let died = subject.enqueue(job("dead")).await;
    end(subject, dead()).await;
    let live = subject.enqueue(job("live")).await;
    let started = after(subject, FiresOn::Completed, &[completed]).await;
    let compensation = after(subject, FiresOn::Dead, &[died]).await;
    let held = after(subject, FiresOn::Completed, &[completed, died]).await;
    let skipped = after(subject, FiresOn::Cancelled, &[completed, live]).await;
    let waits = after(subject, FiresOn::Any, &[completed, died, live]).await;
    subject.apply_ends().await;
    let expected = [
        (started, JobState::Ready),
        (compensation, JobState::Ready),
        (held, JobState::Blocked),
        (skipped, JobState::Cancelled),
        (waits, JobState::Blocked),
    ];
    for (id, expected) in expected {
        assert_eq!(state(subject, id).await, expected, "job {id}");
    }
}

async fn a_job_that_cannot_wait_is_refused(subject: &Subject) {
    let id = subject.enqueue(job("x")).await;
    let unknown = id + 1_000_000;
    let refusals = [
        (follower(subject).after([id, unknown]).await, format!("job {unknown} is not known")),
        (follower(subject).after([]).await, "the ids of one or more jobs".to_owned()),
        (follower(subject).after([id, id]).await, "names a job twice".to_owned()),
        (follower(subject).unique_key("u").after([id]).await, "has a unique key".to_owned()),
    ];
    for (answer, expected) in refusals {
        let error = answer.unwrap_err().to_string();
        assert!(error.contains(&expected), "{error}");
    }
    assert_eq!(subject.driver.count_blocked(&[LATER.into()]).await.unwrap(), 0, "nothing is stored");
}

async fn a_delay_counts_from_the_last_end(subject: &Subject) {
    subject.register(1).await;
    let first = subject.enqueue(job("first")).await;
    let past = SystemTime::now() - HOUR;
    let overdue = follower(subject).at(past).after([first]).await.unwrap().id;
    let later = enqueue(&*subject.driver, &job("later")).delay(HOUR).after([first]).await.unwrap().id;
    end(subject, Ending::Completed(None)).await;
    assert_eq!(state(subject, overdue).await, JobState::Ready);
    assert_eq!(state(subject, later).await, JobState::Delayed);
    let due_in = subject.due_in(1).await.unwrap();
    assert!((3590..=3600).contains(&due_in.as_secs()), "{due_in:?}");
}

async fn only_an_end_counts(subject: &Subject) {
    subject.register(1).await;
    subject.register(2).await;
    let id = subject.enqueue(job("x").max_attempts(2)).await;
    let any = after(subject, FiresOn::Any, &[id]).await;
    let endings = [Ending::Released, snoozed(Duration::ZERO), failed(FailureReason::Failed, Duration::ZERO)];
    for ending in endings {
        end(subject, ending).await;
        assert_eq!(state(subject, any).await, JobState::Blocked);
    }
    subject.claim_one(1).await;
    assert_eq!(subject.lose_worker(1, 2).await, [id]);
    subject.apply_ends().await;
    assert_eq!(state(subject, id).await, JobState::Dead, "the rescue counts as the second failure");
    assert_eq!(state(subject, any).await, JobState::Ready);
}

async fn a_blocked_job_can_be_cancelled_but_not_retried(subject: &Subject) {
    let first = subject.enqueue(job("first")).await;
    let blocked = after(subject, FiresOn::Completed, &[first]).await;
    let next = after(subject, FiresOn::Cancelled, &[blocked]).await;
    assert_eq!(subject.driver.count_blocked(&[LATER.into(), QUEUE.into()]).await.unwrap(), 2);
    assert_eq!(subject.driver.count_blocked(&[QUEUE.into()]).await.unwrap(), 0);
    assert_eq!(subject.retry(blocked).await.unwrap(), Retried::Blocked);
    assert_eq!(subject.cancel(blocked).await, Cancelled::Cancelled);
    assert_eq!(subject.cancel(blocked).await, Cancelled::Finished);
    subject.apply_ends().await;
    assert_eq!(state(subject, next).await, JobState::Ready);
    assert_eq!(subject.cancel(first).await, Cancelled::Cancelled);
    subject.apply_ends().await;
    assert_eq!(subject.standing(blocked).await, Standing::new(JobState::Cancelled, 0, 0));
}

async fn a_held_job_goes_on_once_the_dead_one_is_revived(subject: &Subject) {
    subject.register(1).await;
    let first = subject.enqueue(job("first")).await;
    let held = after(subject, FiresOn::Completed, &[first]).await;
    end(subject, dead()).await;
    assert_eq!(subject.retry(first).await.unwrap(), Retried::Revived);
    subject.apply_ends().await;
    assert_eq!(state(subject, held).await, JobState::Blocked);
    end(subject, Ending::Completed(None)).await;
    assert_eq!(state(subject, held).await, JobState::Ready);

    let second = subject.enqueue(job("second")).await;
    let compensation = after(subject, FiresOn::Dead, &[second]).await;
    end(subject, dead()).await;
    assert_eq!(state(subject, compensation).await, JobState::Ready);
    assert_eq!(subject.retry(second).await.unwrap(), Retried::Compensated);
    assert_eq!(state(subject, second).await, JobState::Dead, "the refusal changes nothing");
}

async fn a_blocked_job_does_not_hold_up_its_key(subject: &Subject) {
    subject.register(1).await;
    subject.set(crate::queue::QueueSettings::new().ordered(true)).await;
    let other = subject.enqueue(NewJob { queue: LATER.into(), ..job("other") }).await;
    enqueue(&*subject.driver, &job("blocked").key("k")).after([other]).await.unwrap();
    let next = subject.enqueue(job("next").key("k")).await;
    assert_eq!(subject.claim_one(1).await.reservation.id, next);
}

async fn a_job_can_read_what_it_has_waited_for(subject: &Subject) {
    subject.register(1).await;
    let (first, second) = (subject.enqueue(job("first")).await, subject.enqueue(job("second")).await);
    let id = after(subject, FiresOn::Any, &[first, second]).await;
    let all = Labels::After { label: "", most: 10 };
    let read = async |labels| subject.driver.inputs(id, labels).await.unwrap();
    let outcomes = |inputs: &[Input]| {
        let mut outcomes: Vec<_> = inputs.iter().map(|input| (input.job, input.outcome.clone())).collect();
        outcomes.sort();
        outcomes
    };
    assert_eq!(outcomes(&read(all).await), [(first, None), (second, None)]);
    let result = Payload::encode(&[1, 2]).unwrap();
    end(subject, Ending::Completed(Some(result.clone()))).await;
    end(subject, dead()).await;
    let inputs = read(all).await;
    assert_eq!(outcomes(&inputs), [(first, Some("completed".into())), (second, Some("dead".into()))]);
    let label = inputs.iter().find(|input| input.job == first).map(|input| input.label.clone()).unwrap();
    let only = read(Labels::One(&label)).await;
    let results: Vec<_> =
        only.iter().map(|input| input.result.as_ref().unwrap().decode::<[i32; 2]>().unwrap()).collect();
    assert_eq!(results, [[1, 2]]);
    assert!(read(Labels::One("unknown")).await.is_empty());
    let (begin, next) = (&inputs[0].label, &inputs[1].label);
    assert!(begin < next, "in the order of the labels");
    let page = read(Labels::After { label: begin, most: 10 }).await;
    assert_eq!(page.iter().map(|input| &input.label).collect::<Vec<_>>(), [next]);
    assert_eq!(read(Labels::After { label: "", most: 1 }).await.len(), 1);
    assert!(subject.driver.inputs(first, all).await.unwrap().is_empty(), "it has waited for nothing");
    assert!(subject.driver.workflow_of(id).await.unwrap().is_none());
}

async fn the_result_of_a_linked_job_has_at_most_1_mib(subject: &Subject) {
    subject.register(1).await;
    let id = subject.enqueue(job("x")).await;
    let waits = after(subject, FiresOn::Completed, &[id]).await;
    let reservation = subject.claim_one(1).await.reservation;
    let result = |length| Ending::Completed(Some(Payload::encode(&"x".repeat(length)).unwrap()));
    let settlement = crate::driver::Settlement::new(reservation, result(1_048_600));
    let error = subject.driver.settle(&[settlement]).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("larger than 1 MiB"), "{error}");
    assert_eq!(state(subject, id).await, JobState::Running, "the refused ending changes nothing");
    assert!(subject.settle(reservation, result(1_048_000)).await);
    subject.apply_ends().await;
    assert_eq!(state(subject, waits).await, JobState::Ready);
}

async fn a_store_without_workflows_refuses_them(subject: &Subject) {
    let id = subject.enqueue(job("x")).await;
    assert!(follower(subject).after([id]).await.unwrap_err().is_invalid());
    assert!(Workflow::batch("w", [job("y")]).enqueue(&*subject.driver).await.unwrap_err().is_invalid());
    assert!(subject.driver.workflow_of(id).await.unwrap_err().is_invalid());
    assert!(subject.driver.inputs(id, Labels::One("x")).await.unwrap_err().is_invalid());
}
