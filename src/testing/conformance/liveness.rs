//! Liveness: heartbeats, rescues and strays.

use super::subject::{QUEUE, Subject, job};
use super::{Standing, behaviours};
use crate::driver::{Ending, FailureReason, Report, WorkerInfo};
use crate::job::{JobState, NewJob};

behaviours![
    a_dead_workers_jobs_are_put_back_as_failures,
    a_job_that_is_lost_again_and_again_waits_longer_and_dies needs Controls,
    a_worker_learns_how_many_peers_share_its_queues,
    a_worker_seen_since_it_was_watched_is_left_alone,
    strays_go_back_without_a_failure,
];

async fn a_dead_workers_jobs_are_put_back_as_failures(subject: &Subject) {
    subject.register(1).await;
    subject.register(2).await;
    let id = subject.enqueue(job("x")).await;
    let reservation = subject.claim_one(1).await.reservation;
    assert_eq!(subject.lose_worker(1, 2).await, [id]);
    assert_eq!(subject.standing(id).await, Standing::new(JobState::Ready, 1, 1));
    assert!(!subject.driver.beat(1, &Report::default()).await.unwrap().alive);
    assert!(!subject.settle(reservation, Ending::Completed(None)).await, "the worker no longer holds the job");
    assert_eq!(subject.claim_one(2).await.reservation.id, id, "the job is due at once");
}

async fn a_job_that_is_lost_again_and_again_waits_longer_and_dies(subject: &Subject) {
    subject.register(2).await;
    let id = subject.enqueue(NewJob { max_attempts: 4, ..job("x") }).await;
    for losses in 1..=4 {
        if losses == 4 {
            assert!(subject.claim(2, 1).await.is_empty(), "after its third loss in a row the job is delayed");
            subject.retry(id).await.unwrap();
        }
        subject.register(1).await;
        subject.claim_one(1).await;
        assert_eq!(subject.lose_worker(1, 2).await, [id]);
    }
    let standing = Standing::new(JobState::Dead, 4, 4).reason(Some(FailureReason::Lost));
    assert_eq!(subject.standing(id).await, standing);
}

async fn a_worker_learns_how_many_peers_share_its_queues(subject: &Subject) {
    subject.register(1).await;
    subject.register(2).await;
    subject.driver.register(&WorkerInfo::new(3).queues(["other"])).await.unwrap();
    let beat = subject.driver.beat(1, &Report::default()).await.unwrap();
    assert_eq!((beat.peers.len(), beat.sharing), (2, 1));
    assert_eq!(subject.driver.beat(3, &Report::default()).await.unwrap().sharing, 0);
    subject.driver.register(&WorkerInfo::new(4).queues([QUEUE, "other"])).await.unwrap();
    assert_eq!(subject.driver.beat(4, &Report::default()).await.unwrap().sharing, 3);
}

async fn a_worker_seen_since_it_was_watched_is_left_alone(subject: &Subject) {
    subject.register(1).await;
    subject.register(2).await;
    let id = subject.enqueue(job("x")).await;
    subject.claim_one(1).await;
    let watched = subject.driver.beat(2, &Report::default()).await.unwrap().peers;
    subject.driver.beat(1, &Report::default()).await.unwrap();
    let rescue = subject.driver.rescue(2, &watched).await.unwrap();
    assert_eq!((rescue.workers, rescue.jobs), (vec![], vec![]));
    assert_eq!(subject.standing(id).await, Standing::new(JobState::Running, 1, 0));
}

async fn strays_go_back_without_a_failure(subject: &Subject) {
    subject.register(1).await;
    let (held, stray) = (subject.enqueue(job("held")).await, subject.enqueue(job("stray")).await);
    subject.claim(1, 2).await;
    assert_eq!(subject.driver.release_strays(1, &[held]).await.unwrap(), [stray]);
    assert_eq!(subject.standing(stray).await, Standing::new(JobState::Ready, 1, 0));
    assert_eq!(subject.standing(held).await, Standing::new(JobState::Running, 1, 0));
}
