//! Claiming: the jobs that a worker gets, and the times at which it gets them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::subject::{HOUR, Note, QUEUE, Subject, job, text};
use super::{Standing, behaviours};
use crate::job::{Due, Job, JobState, NewJob, Payload, Priority};
use crate::queue::Pause;

behaviours![
    a_claimed_job_is_as_it_was_enqueued,
    urgent_jobs_come_first_and_equal_ones_in_order,
    a_too_large_job_is_refused_with_all_jobs_beside_it,
    a_delayed_job_is_not_claimed_and_its_time_is_known,
    an_unregistered_worker_claims_nothing,
    two_claims_at_once_never_share_a_job,
    a_paused_queue_gives_nothing_until_it_is_resumed needs Controls,
    a_paused_kind_or_key_gives_nothing_until_it_is_resumed needs Controls,
];

async fn a_claimed_job_is_as_it_was_enqueued(subject: &Subject) {
    subject.register(1).await;
    let metadata = json!({"trace": 7});
    let sent = NewJob {
        priority: Priority::High,
        max_attempts: 3,
        timeout: Some(Duration::from_secs(5)),
        key: Some("k".into()),
        tags: vec!["a".into(), "b".into()],
        metadata: Some(Payload::encode(&metadata).unwrap()),
        ..job("x")
    };
    let id = subject.enqueue(sent).await;
    let got = subject.claim_one(1).await;
    assert_eq!((got.reservation.id, got.reservation.worker, got.reservation.attempt), (id, 1, 1));
    assert_eq!((got.queue.as_str(), got.kind.as_str(), text(&got).as_str()), (QUEUE, "note", "x"));
    assert_eq!((got.priority, got.max_attempts, got.failures), (Priority::High, 3, 0));
    assert_eq!((got.timeout, got.key.as_deref()), (Some(Duration::from_secs(5)), Some("k")));
    assert_eq!((got.tags, got.cancel_requested), (vec!["a".to_owned(), "b".into()], false));
    assert_eq!(got.metadata.unwrap().decode::<Value>().unwrap(), metadata);
}

async fn urgent_jobs_come_first_and_equal_ones_in_order(subject: &Subject) {
    use Priority::{Low, Normal, Urgent};
    subject.register(1).await;
    for (priority, text) in [(Low, "low"), (Normal, "a"), (Urgent, "now"), (Normal, "b")] {
        subject.enqueue(NewJob { priority, ..job(text) }).await;
    }
    let order: Vec<String> = subject.claim(1, 3).await.iter().map(text).collect();
    assert_eq!(order, ["now", "a", "b"]);
    assert_eq!(text(&subject.claim_one(1).await), "low");
    assert!(subject.claim(1, 10).await.is_empty());
}

async fn a_too_large_job_is_refused_with_all_jobs_beside_it(subject: &Subject) {
    let object = |value: Value| Some(Payload::encode(&json!({ "m": value })).unwrap());
    let too_large = [
        NewJob { payload: Payload::encode(&"x".repeat(8 * 1024 * 1024)).unwrap(), ..job("") },
        // The database writes three bytes for each element.
        NewJob { payload: Payload::encode(&vec![1; 2_900_000]).unwrap(), ..job("") },
        NewJob { metadata: object("x".repeat(262_144).into()), ..job("") },
        NewJob { metadata: object(vec![1; 88_000].into()), ..job("") },
        NewJob { tags: vec!["x".repeat(257); 64], ..job("") },
    ];
    for too_large in too_large {
        let error = subject.driver.enqueue(&[job("beside"), too_large]).await.unwrap_err();
        assert!(error.is_invalid(), "{error}");
    }
    let (tags, metadata) = (vec!["x".repeat(256); 64], object("x".repeat(262_000).into()));
    let id = subject.enqueue(NewJob { tags, metadata, ..job("the largest") }).await;
    subject.register(1).await;
    assert_eq!(subject.claim_one(1).await.reservation.id, id);
    assert!(subject.claim(1, 10).await.is_empty());
}

async fn a_delayed_job_is_not_claimed_and_its_time_is_known(subject: &Subject) {
    subject.register(1).await;
    assert_eq!(subject.due_in(1).await, None);
    subject.enqueue(NewJob { due: Due::In(HOUR), ..job("later") }).await;
    let due_in = subject.due_in(1).await.expect("a job waits");
    assert!((3500..=3600).contains(&due_in.as_secs()), "{due_in:?}");
    subject.enqueue(NewJob { due: Due::At(SystemTime::UNIX_EPOCH), ..job("long due") }).await;
    assert_eq!(text(&subject.claim_one(1).await), "long due");
}

async fn an_unregistered_worker_claims_nothing(subject: &Subject) {
    subject.enqueue(job("x")).await;
    assert!(subject.claim(1, 1).await.is_empty());
    subject.register(1).await;
    assert_eq!(subject.claim(1, 1).await.len(), 1);
    subject.enqueue(job("y")).await;
    subject.driver.leave(1).await.unwrap();
    assert!(subject.claim(1, 1).await.is_empty());
}

async fn two_claims_at_once_never_share_a_job(subject: &Subject) {
    subject.register(1).await;
    subject.register(2).await;
    subject.driver.enqueue(&vec![job("x"); 400]).await.unwrap();
    let claims = (0..8).map(|n| subject.claim(1 + n % 2, 60));
    let claimed = futures::future::join_all(claims).await;
    let mut ids: Vec<i64> = claimed.iter().flatten().map(|job| job.reservation.id).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((count, ids.len()), (400, 400));
}

async fn a_paused_queue_gives_nothing_until_it_is_resumed(subject: &Subject) {
    subject.register(1).await;
    subject.enqueue(job("x")).await;
    subject.store.pause(&QUEUE.into()).await;
    assert_eq!(subject.due_in(1).await, None);
    subject.store.resume(&QUEUE.into()).await;
    assert_eq!(subject.claim(1, 1).await.len(), 1);
}

async fn a_paused_kind_or_key_gives_nothing_until_it_is_resumed(subject: &Subject) {
    subject.register(1).await;
    let (kind, key) = (Pause::new().kind(Note::KIND), Pause::new().queue(QUEUE).key("k"));
    subject.store.pause(&kind).await;
    subject.store.pause(&key).await;
    subject.store.pause(&Pause::new().kind(Note::KIND).key("another")).await;
    let id = subject.enqueue(NewJob { key: Some("k".into()), ..job("x") }).await;
    let other = subject.enqueue(NewJob { kind: "other".into(), ..job("y") }).await;
    assert_eq!(subject.claim_one(1).await.reservation.id, other);
    for pause in [&kind, &key] {
        assert_eq!(subject.due_in(1).await, None);
        assert_eq!(subject.standing(id).await, Standing::new(JobState::Parked, 0, 0));
        subject.store.resume(pause).await;
    }
    assert_eq!(subject.claim_one(1).await.reservation.id, id);
}
