//! Controls: cancelling, retrying, pausing and stopping.

use std::time::Duration;

use super::subject::{HOUR, QUEUE, Subject, failure, job, snoozed};
use super::{Standing, behaviours};
use crate::driver::{Ending, FailureReason, Report, Stuck};
use crate::job::{Cancelled, Due, JobState, NewJob, Retried};

behaviours![
    cancelling_says_what_it_did needs Controls,
    retrying_says_what_it_did needs Controls,
    each_beat_tells_which_queues_are_paused needs Controls,
    each_beat_tells_whether_the_worker_is_to_stop needs Controls,
];

async fn cancelling_says_what_it_did(subject: &Subject) {
    subject.register(1).await;
    let id = subject.enqueue(job("x")).await;
    assert_eq!(subject.cancel(id).await, Cancelled::Cancelled);
    assert_eq!(subject.cancel(id).await, Cancelled::Finished);
    assert_eq!(subject.cancel(id + 1).await, Cancelled::Unknown);
    let id = subject.enqueue(job("y")).await;
    let reservation = subject.claim_one(1).await.reservation;
    assert_eq!(subject.cancel(id).await, Cancelled::Requested);
    let report = Report::holding(vec![id - 1, id]);
    assert_eq!(subject.driver.beat(1, &report).await.unwrap().cancel, [id]);
    subject.register(2).await;
    assert!(subject.driver.beat(2, &report).await.unwrap().cancel.is_empty(), "another worker holds the job");
    subject.settle(reservation, snoozed(HOUR)).await;
    let again = subject.claim_one(1).await;
    assert!(again.cancel_requested, "the job is due at once, so that a worker ends it");
    subject.settle(again.reservation, Ending::Dead(failure(FailureReason::Failed))).await;
    assert_eq!(subject.cancel(id).await, Cancelled::Dead);
}

async fn retrying_says_what_it_did(subject: &Subject) {
    subject.register(1).await;
    let id = subject.enqueue(NewJob { due: Due::In(HOUR), ..job("x") }).await;
    assert_eq!(subject.retry(id).await.unwrap(), Retried::Due);
    let reservation = subject.claim_one(1).await.reservation;
    assert_eq!(subject.retry(id).await.unwrap(), Retried::Running);
    subject.settle(reservation, Ending::Dead(failure(FailureReason::Failed))).await;
    assert_eq!(subject.retry(id).await.unwrap(), Retried::Revived);
    let revived = Standing::new(JobState::Ready, 1, 0);
    assert_eq!(subject.standing(id).await, revived, "attempts stay, failures begin again");
    let reservation = subject.claim_one(1).await.reservation;
    subject.settle(reservation, Ending::Completed(None)).await;
    assert_eq!(subject.retry(id).await.unwrap(), Retried::Finished);
    assert_eq!(subject.retry(id + 1).await.unwrap(), Retried::Unknown);
}

async fn each_beat_tells_which_queues_are_paused(subject: &Subject) {
    subject.register(1).await;
    subject.store.pause(&QUEUE.into()).await;
    subject.store.pause(&"other".into()).await;
    let paused = async || subject.driver.beat(1, &Report::default()).await.unwrap().paused;
    assert_eq!(paused().await, [QUEUE], "of the worker's own queues");
    subject.store.resume(&QUEUE.into()).await;
    assert!(paused().await.is_empty());
}

async fn each_beat_tells_whether_the_worker_is_to_stop(subject: &Subject) {
    subject.register(1).await;
    subject.register(2).await;
    assert!(subject.store.stop_worker(1).await && !subject.store.stop_worker(3).await);
    let stuck = vec![Stuck::new(7, Duration::from_secs(9))];
    let report = Report::default().stopping(true).stuck(stuck);
    let is_to_stop = async |worker| subject.driver.beat(worker, &report).await.unwrap().stop;
    assert!(is_to_stop(1).await && !is_to_stop(2).await);
}
