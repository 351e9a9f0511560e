//! Unique keys: at most one job of a kind holds a unique key.

use super::subject::{HOUR, Subject, failure, job, text};
use super::{Standing, behaviours};
use crate::driver::{Ending, FailureReason};
use crate::job::{Due, JobState, NewJob, UniqueMode, UniqueUntil};

behaviours![
    a_unique_key_admits_one_live_job needs UniqueKeys,
    a_unique_job_is_replaced_or_debounced_as_asked needs UniqueKeys,
    a_key_that_is_held_until_the_start_is_free_after_the_claim needs UniqueKeys,
    a_dead_job_is_not_revived_beside_its_successor needs UniqueKeys Controls,
    a_store_without_unique_keys_refuses_them lacks UniqueKeys,
];

fn unique(text: &str, mode: UniqueMode) -> NewJob {
    NewJob { unique_key: Some("u".into()), unique_mode: mode, ..job(text) }
}

/// Enqueues one job. Returns whether another job held its unique key.
async fn existed(subject: &Subject, job: NewJob) -> bool {
    subject.driver.enqueue(&[job]).await.unwrap()[0].existed
}

async fn a_unique_key_admits_one_live_job(subject: &Subject) {
    subject.register(1).await;
    let first = subject.driver.enqueue(&[unique("first", UniqueMode::Keep)]).await.unwrap()[0];
    let second = subject.driver.enqueue(&[unique("second", UniqueMode::Keep), job("other")]).await.unwrap();
    assert_eq!((first.existed, second[0].existed, second[1].existed), (false, true, false));
    assert_eq!(second[0].id, first.id);
    let claimed = subject.claim_one(1).await;
    assert_eq!(text(&claimed), "first");
    assert!(existed(subject, unique("while the first runs", UniqueMode::Replace)).await);
    subject.settle(claimed.reservation, Ending::Completed(None)).await;
    assert!(!existed(subject, unique("after the first", UniqueMode::Keep)).await);
}

async fn a_unique_job_is_replaced_or_debounced_as_asked(subject: &Subject) {
    subject.register(1).await;
    subject.enqueue(unique("first", UniqueMode::Keep)).await;
    subject.enqueue(unique("second", UniqueMode::Replace)).await;
    subject.enqueue(NewJob { due: Due::In(HOUR), ..unique("third", UniqueMode::Debounce) }).await;
    assert!(subject.claim(1, 1).await.is_empty(), "delayed by the debounce");
    subject.enqueue(unique("fourth", UniqueMode::Debounce)).await;
    assert_eq!(text(&subject.claim_one(1).await), "fourth");
    assert!(subject.claim(1, 1).await.is_empty());
}

async fn a_key_that_is_held_until_the_start_is_free_after_the_claim(subject: &Subject) {
    subject.register(1).await;
    let until_started = |text| NewJob { unique_until: UniqueUntil::Started, ..unique(text, UniqueMode::Keep) };
    subject.enqueue(until_started("first")).await;
    assert!(existed(subject, until_started("second")).await);
    subject.claim_one(1).await;
    assert!(!existed(subject, until_started("third")).await);
}

async fn a_dead_job_is_not_revived_beside_its_successor(subject: &Subject) {
    subject.register(1).await;
    let id = subject.enqueue(unique("first", UniqueMode::Keep)).await;
    let reservation = subject.claim_one(1).await.reservation;
    subject.settle(reservation, Ending::Dead(failure(FailureReason::Failed))).await;
    subject.enqueue(unique("second", UniqueMode::Keep)).await;
    let error = subject.retry(id).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("unique key"), "{error}");
    let standing = Standing::new(JobState::Dead, 1, 1).reason(Some(FailureReason::Failed));
    assert_eq!(subject.standing(id).await, standing);
}

async fn a_store_without_unique_keys_refuses_them(subject: &Subject) {
    subject.register(1).await;
    let error = subject.driver.enqueue(&[job("beside"), unique("x", UniqueMode::Keep)]).await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
    assert!(subject.claim(1, 10).await.is_empty(), "all or none");
}
