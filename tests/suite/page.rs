//! Pages of a listing, and what else a page for a browser reads.

use std::time::Duration;

use reveille::admin::{Filter, PagePlace, Sort};
use reveille::job::JobState;
use serde_json::json;

use crate::harness::{TestDatabase, database};

/// Long enough for any page here.
const LONG: Duration = Duration::from_secs(60);

/// Returns the ids of all pages of a listing, one list for each page.
async fn pages(database: &TestDatabase, filter: &Filter, sort: Sort, limit: u32, within: Duration) -> Vec<Vec<i64>> {
    let (mut pages, mut from) = (Vec::new(), None::<PagePlace>);
    loop {
        let page = database.admin().page(filter, sort, limit, from.as_ref(), within).await.unwrap();
        pages.push(page.jobs.iter().map(|job| job.id).collect());
        // An address of a page has the place as text.
        from = page.next.map(|place| place.to_string().parse().unwrap());
        if from.is_none() {
            return pages;
        }
    }
}

async fn jobs(database: &TestDatabase) {
    let jobs = "insert into reveille.jobs (queue, kind, payload, available_at)
        select 'mail', 'k', jsonb_build_object('n', n), now() - make_interval(mins => n % 7)
        from generate_series(1, 2500) as n";
    database.run(jobs).await;
}

#[tokio::test]
async fn each_job_is_on_one_page() {
    let database = database().await;
    jobs(&database).await;
    for (filter, sort) in [
        (Filter::new(), Sort::Id),
        (Filter::new().queue("mail"), Sort::Id),
        (Filter::new().queue("mail").state(JobState::Ready), Sort::Due),
    ] {
        let all = pages(&database, &filter, sort, 1000, LONG).await;
        assert!(all.len() >= 3 && all.iter().all(|page| page.len() <= 1000), "{sort:?}");
        let mut ids = all.concat();
        if sort == Sort::Id {
            assert!(ids.is_sorted_by(|one, next| one > next));
        }
        ids.sort_unstable();
        assert_eq!(ids, (1..=2500).collect::<Vec<_>>(), "{sort:?}");
    }
}

#[tokio::test]
async fn a_page_ends_early_and_says_how_far_it_has_looked() {
    let database = database().await;
    jobs(&database).await;
    let rare = Filter::new().payload(reveille::job::Payload::parse(r#"{"n": 3}"#).unwrap());
    let page = database.admin().page(&rare, Sort::Id, 50, None, Duration::ZERO).await.unwrap();
    assert!(page.jobs.is_empty() && page.next.is_some() && page.looked_back_to.is_some());
    assert_eq!(pages(&database, &rare, Sort::Id, 50, Duration::ZERO).await.concat(), [3]);
}

#[tokio::test]
async fn a_page_lists_jobs_without_what_only_some_roles_may_read() {
    let database = database().await;
    let dead = "insert into reveille.dead_jobs (
            id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, errors,
            reason
        )
        values (7, 'mail', 'k', '{\"card\": 1}', 2, 2, 2, 2, now(), now(),
            '[{\"error\": \"first\"}, {\"error\": \"last\"}]', 'failed')";
    database.run(dead).await;
    let page = database.admin().page(&Filter::new().state(JobState::Dead), Sort::Id, 50, None, LONG).await.unwrap();
    let job = &page.jobs[0];
    assert_eq!((job.id, job.state, job.record().get("payload")), (7, JobState::Dead, None));
    assert_eq!(job.errors().into_iter().map(|failed| failed.error).collect::<Vec<_>>(), ["last"]);
    let listed = database.admin().listed_job(7).await.unwrap().unwrap();
    assert_eq!((listed.record().get("payload"), listed.errors().len()), (Some("null"), 2));
}

#[tokio::test]
async fn children_keys_and_the_last_hour_are_read() {
    let database = database().await;
    let rows = "insert into reveille.jobs (queue, kind, key, parent_id) values
            ('mail', 'parent', null, null), ('mail', 'child', 'a', 1), ('mail', 'child', 'a', 1), ('mail', 'k', 'b', 2);
        insert into reveille.counters (queue, started_at, worker, completed, failed)
        values ('mail', date_trunc('minute', now()) - interval '30 minutes', 0, 5, 1)";
    database.run(rows).await;
    let admin = database.admin();
    let children = admin.children(1).await.unwrap();
    assert_eq!(children.iter().map(|job| job.id).collect::<Vec<_>>(), [2, 3]);
    let keys = admin.waiting_keys("mail").await.unwrap();
    let read = |row: &reveille::admin::Record| json!([row.get("key"), row.get("waiting"), row.get("running")]);
    assert_eq!(keys.iter().map(read).collect::<Vec<_>>(), [json!(["\"a\"", "2", "0"]), json!(["\"b\"", "1", "0"])]);
    let history = admin.history(Some("mail"), Duration::from_secs(3600), 60).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].get("completed"), history[0].get("failed")), (Some("5"), Some("1")));
    let part: u32 = history[0].decode("part").unwrap();
    assert!((29..=30).contains(&part), "{part}");
    let hour = admin.last_hour(&["mail".to_owned(), "other".to_owned()]).await.unwrap();
    assert_eq!(hour.len(), 1);
    assert!(admin.queue_settings("mail").await.unwrap().is_none());
    assert!(admin.rights().await.unwrap().changes_jobs);
}
