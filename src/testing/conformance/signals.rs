//! Notifications to listening workers.

use std::sync::Arc;
use std::time::Duration;

use super::behaviours;
use super::subject::{QUEUE, Subject, job, snoozed};
use crate::driver::{Hints, OpenTransaction, Signal};

behaviours![
    an_enqueue_rings_the_bell needs Notifications,
    every_change_that_makes_a_job_due_rings_the_bell needs Notifications Controls,
    a_pause_and_a_stop_are_signalled needs Notifications Controls,
    only_true_hints_are_confirmed needs Notifications Controls,
    a_store_without_notifications_says_so lacks Notifications,
];

fn bell() -> Signal {
    Signal::Bell(QUEUE.into())
}

async fn an_enqueue_rings_the_bell(subject: &Subject) {
    subject.register(1).await;
    let mut signal = subject.listen().await;
    assert_eq!(subject.driver.arm(1, QUEUE).await.unwrap(), [] as [OpenTransaction; 0]);
    subject.enqueue(job("x")).await;
    assert_eq!(signal("the bell").await, bell());
    subject.driver.disarm(1, QUEUE).await.unwrap();
}

async fn every_change_that_makes_a_job_due_rings_the_bell(subject: &Subject) {
    subject.register(1).await;
    let mut signal = subject.listen().await;
    subject.driver.arm(1, QUEUE).await.unwrap();
    let id = subject.enqueue(job("x")).await;
    assert_eq!(signal("the bell").await, bell(), "enqueued");
    let reservation = subject.claim_one(1).await.reservation;
    subject.cancel(id).await;
    assert_eq!(signal("the cancel").await, Signal::Cancel(id));
    subject.settle(reservation, snoozed(Duration::ZERO)).await;
    assert_eq!(signal("the bell").await, bell(), "put back");
    subject.retry(id).await.unwrap();
    assert_eq!(signal("the bell").await, bell(), "retried");
    subject.store.pause(&QUEUE.into()).await;
    assert_eq!(signal("the pause").await, Signal::Pause(QUEUE.into()));
    subject.store.resume(&QUEUE.into()).await;
    assert_eq!(signal("the bell").await, bell(), "resumed");
}

async fn a_pause_and_a_stop_are_signalled(subject: &Subject) {
    subject.register(1).await;
    let mut signal = subject.listen().await;
    subject.store.pause(&QUEUE.into()).await;
    assert_eq!(signal("the pause").await, Signal::Pause(QUEUE.into()));
    assert!(subject.store.stop_worker(1).await);
    assert_eq!(signal("the stop").await, Signal::Stop(1));
}

async fn only_true_hints_are_confirmed(subject: &Subject) {
    subject.register(1).await;
    subject.register(2).await;
    let (first, second) = (subject.enqueue(job("a")).await, subject.enqueue(job("b")).await);
    subject.claim(1, 2).await;
    let all = Hints { cancel: [first, second].into(), paused: [QUEUE.to_owned(), "other".into()].into(), stop: true };
    assert_eq!(subject.driver.confirm(1, &all).await.unwrap(), Hints::default(), "nothing was asked for");
    subject.cancel(second).await;
    subject.store.pause(&"other".into()).await;
    subject.store.stop_worker(1).await;
    let asked = Hints { cancel: [second].into(), paused: ["other".to_owned()].into(), stop: true };
    assert_eq!(subject.driver.confirm(1, &all).await.unwrap(), asked);
    let of_other = Hints { cancel: [].into(), stop: false, ..asked };
    assert_eq!(subject.driver.confirm(2, &all).await.unwrap(), of_other, "of its own jobs and itself");
    assert_eq!(subject.driver.confirm(1, &Hints::default()).await.unwrap(), Hints::default(), "only the given hints");
}

async fn a_store_without_notifications_says_so(subject: &Subject) {
    let error = subject.driver.listen(1, Arc::new(|_| {})).await.err().expect("listening is refused");
    assert!(error.is_listen_unsupported(), "{error}");
    subject.register(1).await;
    assert_eq!(subject.driver.arm(1, QUEUE).await.unwrap(), [] as [OpenTransaction; 0]);
    subject.driver.disarm(1, QUEUE).await.unwrap();
}
