//! Limits, rates and order.

use std::time::Duration;

use super::behaviours;
use super::subject::{HOUR, Subject, eventually, failed, job, snoozed, text};
use crate::driver::{Ending, FailureReason};
use crate::job::{Due, NewJob, Retried};
use crate::queue::QueueSettings;

behaviours![
    a_limited_queue_gives_more_as_running_jobs_end needs Limits,
    keys_take_turns_within_their_limits needs Limits,
    an_ordered_key_gives_only_its_first_job needs Limits Controls,
    a_rate_lets_a_burst_start_and_tells_when_the_next_may needs Limits,
];

/// Enqueues a job for each text. The first word of the text is the key of the job.
async fn enqueue_keyed(subject: &Subject, texts: &[&str]) {
    for text in texts {
        let key = text.split(' ').next().filter(|key| !key.is_empty()).map(str::to_owned);
        subject.enqueue(NewJob { key, ..job(text) }).await;
    }
}

async fn a_limited_queue_gives_more_as_running_jobs_end(subject: &Subject) {
    subject.register(1).await;
    subject.set(QueueSettings { max_running: Some(Some(2)), ..Default::default() }).await;
    enqueue_keyed(subject, &["a 1", "a 2", "a 3", "a 4"]).await;
    let running = subject.claim(1, 9).await;
    assert_eq!(running.len(), 2);
    assert!(subject.claim(1, 9).await.is_empty());
    assert!(subject.settle(running[0].reservation, snoozed(Duration::ZERO)).await);
    assert!(subject.settle(running[1].reservation, Ending::Completed(None)).await);
    assert_eq!(subject.claim(1, 9).await.len(), 2);
    subject.set(QueueSettings { max_running: Some(None), ..Default::default() }).await;
    assert_eq!(subject.claim(1, 9).await.len(), 1);
}

async fn keys_take_turns_within_their_limits(subject: &Subject) {
    subject.register(1).await;
    subject.set(QueueSettings { max_running_per_key: Some(Some(1)), ..Default::default() }).await;
    enqueue_keyed(subject, &["a 1", "a 2", "b 1", "b 2", "c 1", " 1", " 2"]).await;
    assert_eq!(subject.claim_texts(3).await, [" 1", " 2", "a 1"]);
    assert_eq!(subject.claim_texts(1).await, ["b 1"]);
    enqueue_keyed(subject, &["aa 1"]).await;
    assert_eq!(subject.claim_texts(1).await, ["c 1"], "the turn of this key comes before the turn of a new key");
    assert_eq!(subject.claim_texts(9).await, ["aa 1"]);
}

async fn an_ordered_key_gives_only_its_first_job(subject: &Subject) {
    subject.register(1).await;
    subject.set(QueueSettings { ordered: Some(true), ..Default::default() }).await;
    subject.enqueue(NewJob { key: Some("a".into()), due: Due::In(HOUR), ..job("a 1") }).await;
    enqueue_keyed(subject, &["a 2", "b 1", "b 2"]).await;
    let running = subject.claim(1, 9).await;
    assert_eq!(running.iter().map(text).collect::<Vec<_>>(), ["b 1"], "the first job of the other key is delayed");
    assert!(subject.settle(running[0].reservation, failed(FailureReason::Failed, HOUR)).await);
    assert!(subject.claim(1, 9).await.is_empty());
    assert_eq!(subject.retry(running[0].reservation.id).await.unwrap(), Retried::Due);
    assert_eq!(subject.claim_texts(9).await, ["b 1"]);
}

async fn a_rate_lets_a_burst_start_and_tells_when_the_next_may(subject: &Subject) {
    subject.register(1).await;
    let by_queue = QueueSettings {
        rate_limit: Some(Some(10)),
        rate_period: Some(Some(HOUR)),
        rate_burst: Some(Some(3)),
        ..Default::default()
    };
    subject.set(by_queue).await;
    enqueue_keyed(subject, &["a 1", "a 2", "b 3", "b 4", "b 5"]).await;
    let minutes = |due_in: Option<Duration>| due_in.unwrap().as_secs_f64() / 60.0;
    assert_eq!(subject.claim(1, 2).await.len(), 2);
    assert_eq!(subject.claim(1, 2).await.len(), 1);
    assert!((5.9..6.1).contains(&minutes(subject.due_in(1).await)), "ten an hour");

    let by_key = QueueSettings {
        rate_limit: Some(None),
        rate_per_key: Some(Some(20)),
        rate_burst: Some(None),
        ..Default::default()
    };
    subject.set(by_key).await;
    assert_eq!(subject.claim_texts(9).await, ["b 4"], "each key at its own rate");
    // The store may have to search for jobs without a key first.
    let is_known = async || (2.9..3.1).contains(&minutes(subject.due_in(1).await));
    eventually("the claim returns the time until the next start: twenty an hour", is_known).await;
}
