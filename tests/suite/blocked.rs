//! Blocked jobs in lists and counts.

use std::time::Duration;

use reveille::admin::{BulkAction, Cancelled, Filter, JobRow, RemovedQueue, Retried, Sort, View};
use reveille::enqueue;
use reveille::job::{JobState, NewJob, Payload};
use serde_json::json;

use crate::harness::{TestDatabase, database};

/// Jobs 1 and 2 are ready. Jobs 3 to 5 wait for the first, 3 and 4 in the queue `mail`.
async fn waiting() -> TestDatabase {
    let database = database().await;
    let job = |queue: &str| NewJob::new("k", Payload::encode(&json!({"to": queue})).unwrap()).queue(queue);
    for _ in 0..2 {
        enqueue(&database.database, &job("default")).await.unwrap();
    }
    for (queue, tag) in [("mail", "a"), ("mail", "b"), ("default", "a")] {
        enqueue(&database.database, &job(queue)).tag(tag).after([1]).await.unwrap();
    }
    database
}

fn blocked() -> Filter {
    Filter::new().state(JobState::Blocked)
}

fn ids(jobs: &[JobRow]) -> Vec<i64> {
    jobs.iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn a_blocked_job_is_found_with_what_it_waits_for() {
    let database = waiting().await;
    let admin = database.admin();
    let job = admin.job(3).await.unwrap().unwrap();
    assert_eq!((job.state, &*job.queue, job.tags.as_slice()), (JobState::Blocked, "mail", &["a".to_owned()][..]));
    assert_eq!(job.payload().as_bytes(), br#"{"to": "mail"}"#);
    let waits_for = |job: &JobRow| job.record().decode::<Vec<i64>>("waits_for").unwrap();
    assert_eq!(waits_for(&job), [1]);
    let listed = admin.listed_job(3).await.unwrap().unwrap();
    assert_eq!(
        (listed.state, waits_for(&listed), listed.payload().as_bytes()),
        (JobState::Blocked, vec![1], &b"null"[..])
    );
    assert_eq!(admin.retry(3).await.unwrap(), Retried::Blocked);
    assert_eq!(admin.cancel(3).await.unwrap(), Cancelled::Cancelled);
    assert_eq!(admin.job(3).await.unwrap().unwrap().state, JobState::Cancelled);
}

#[tokio::test]
async fn blocked_jobs_are_listed_by_their_state_alone() {
    let database = waiting().await;
    let admin = database.admin();
    let listed = async |filter: Filter| ids(&admin.jobs(&filter, 10).await.unwrap());
    assert_eq!(listed(Filter::new()).await, [2, 1], "without a state, live jobs are listed");
    assert_eq!(listed(blocked()).await, [5, 4, 3]);
    assert_eq!(listed(blocked().queue("mail")).await, [4, 3]);
    assert_eq!(listed(blocked().tag("a").payload(Payload::parse(r#"{"to": "mail"}"#).unwrap())).await, [3]);
    assert_eq!(listed(blocked().older_than(Duration::from_secs(3600))).await, [0; 0]);
    assert_eq!(listed(blocked().error("refused")).await, [0; 0], "a blocked job has no error");
    for filter in [blocked(), blocked().queue("mail"), blocked().payload(Payload::parse("{}").unwrap())] {
        let (mut paged, mut from) = (Vec::new(), None);
        loop {
            let page = admin.page(&filter, Sort::Id, 1, from.as_ref(), Duration::from_secs(60)).await.unwrap();
            assert!(page.jobs.iter().all(|job| job.state == JobState::Blocked));
            paged.extend(ids(&page.jobs));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(paged, listed(filter).await);
    }
    for sort in [Sort::Due, Sort::Finished] {
        assert!(admin.jobs_sorted(&blocked(), sort, 10).await.unwrap_err().is_invalid());
    }
}

#[tokio::test]
async fn many_blocked_jobs_are_cancelled_by_a_filter() {
    let database = waiting().await;
    let admin = database.admin();
    let bulk = async |action, filter: Filter| admin.bulk(action, &filter)?.run().await;
    let retry = bulk(BulkAction::Retry, blocked()).await.unwrap_err().to_string();
    assert!(retry.contains("blocked jobs cannot be retried"), "{retry}");
    assert_eq!(bulk(BulkAction::Cancel, blocked().queue("mail")).await.unwrap().done, 2);
    assert_eq!(ids(&admin.jobs(&blocked(), 10).await.unwrap()), [5]);
    let cancelled = "select jsonb_agg(id order by id) from reveille.finished_jobs where outcome = 'cancelled'";
    assert_eq!(database.value(cancelled).await, json!([3, 4]));
}

#[tokio::test]
async fn a_follower_sees_blocked_jobs_come_and_go() {
    let database = waiting().await;
    let mut follower = database.admin().follow(&blocked()).await.unwrap();
    assert_eq!(ids(&follower.list(10).await.unwrap()), [3, 4, 5]);
    enqueue(&database.database, &NewJob::new("k", Payload::encode(&()).unwrap())).after([1, 2]).await.unwrap();
    let mut seen = Vec::new();
    while seen.is_empty() {
        seen = follower.next().await.unwrap();
    }
    assert_eq!(ids(&seen), [6]);
}

#[tokio::test]
async fn a_queue_with_nothing_but_blocked_jobs_is_known_and_in_use() {
    let database = waiting().await;
    let admin = database.admin();
    let counts = "select jsonb_agg(jsonb_build_array(queue, ready, blocked) order by queue) from reveille.queue_stats";
    assert_eq!(database.value(counts).await, json!([["default", 2, 1], ["mail", 0, 2]]));
    assert!(admin.is_known("mail").await.unwrap());
    let backlog = admin.backlog("mail").await.unwrap();
    assert_eq!((backlog.blocked, backlog.is_drained()), (2, true), "a drain does not wait for blocked jobs");
    let RemovedQueue::InUse(used) = admin.remove_queue("mail").await.unwrap() else { panic!("the queue is in use") };
    assert_eq!(used.to_string(), "2 blocked jobs");
    let stats = admin.view(View::QueueStats).await.unwrap();
    assert_eq!(stats[1].get("blocked"), Some("2"));
}
