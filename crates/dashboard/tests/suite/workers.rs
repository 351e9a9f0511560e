//! The pages of workers: who is shown what, stopping one, and its slots.

use axum::http::StatusCode;
use reveille_dashboard::{Right, Viewer};
use serde_json::json;

use crate::browser::Browser;
use crate::harness::{TestDatabase, database};

/// Two live workers, 1 of mail and reports and 2 of reports alone, and a silent one.
async fn with_workers() -> TestDatabase {
    let database = database().await;
    database
        .run(
            "insert into reveille.workers (id, host, pid, version, queues, slots, queue_slots, last_seen_at) values
                (1, 'alpha', 11, '0.1.0', '{mail,reports}', 7, '{4,3}', now() + interval '1 hour'),
                (2, 'beta', 12, '0.2.0', '{reports}', 3, '{3}', now() + interval '1 hour'),
                (3, '<b>gamma', 13, '0.1.0', '{mail}', 1, '{1}', now() - interval '1 hour');
            insert into reveille.jobs (queue, kind, attempts, reserved_at, reserved_by) values
                ('mail', 'welcome', 1, now(), 1), ('mail', 'welcome', 1, now(), 1), ('reports', 'monthly', 1, now(), 1);
            update reveille.workers set stuck_jobs = array(select id from reveille.jobs where kind = 'monthly')
            where id = 1",
        )
        .await;
    database
}

#[tokio::test]
async fn the_list_shows_who_works_what_and_who_needs_somebody() {
    let database = with_workers().await;
    let page = Browser::of(&database).page("workers").await;
    for text in ["alpha:11", "beta:12", "&lt;b&gt;gamma:13", "1 stuck", "silent", "3 / 7", "2 versions"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(page.find("gamma").unwrap() < page.find("beta").unwrap(), "a silent worker comes before a sound one");
    let of_reports = Browser::of(&database).page("workers?queue=reports").await;
    assert!(of_reports.contains("beta:12") && !of_reports.contains("gamma"));
    assert!(Browser::of(&database).page("workers?queue=none").await.contains("No worker works the queue none"));
}

#[tokio::test]
async fn a_visitor_of_one_queue_sees_nothing_of_the_others() {
    let database = with_workers().await;
    let browser = Browser::of_queues(&database, &["reports"]);
    let page = browser.page("workers").await;
    assert!(page.contains("1 / 3") && !page.contains("mail") && !page.contains("gamma"), "{page}");
    let page = browser.page("workers/1").await;
    assert!(page.contains("monthly") && !page.contains("welcome"), "{page}");
    assert!(!page.contains("workers/1/stop"), "the worker also works queues that the visitor does not see");
    let signed = Browser::of(&database).page("workers/1").await;
    let stop = browser.post("workers/1/stop", &crate::browser::form(&signed, "workers/1/stop")).await;
    assert_eq!(stop.status, StatusCode::FORBIDDEN);
    let slots = crate::browser::form(&signed, "workers/1/slots");
    assert_eq!(browser.post("workers/1/slots", &slots).await.status, StatusCode::NOT_FOUND, "the queue mail");
    assert_eq!(database.value("select count(*) from reveille.workers where stop_requested_at is not null").await, 0);
}

#[tokio::test]
async fn a_worker_is_stopped_and_gets_slots() {
    let database = with_workers().await;
    let browser = Browser::of(&database);
    let page = browser.page("workers/1").await;
    assert!(page.contains("Running jobs") && page.contains("monthly") && page.contains("welcome"), "{page}");
    let weak = Browser::without(&database, Right::StopWorkers);
    for action in ["workers/1/stop", "workers/1/slots"] {
        browser.refuses(&weak, "workers/1", action, &[]).await;
    }
    let set = browser.submit("workers/1", "workers/1/slots", &[("queue", "reports"), ("slots", "9")]).await;
    assert_eq!(set.leads_to.split('?').next(), Some("../../workers/1"));
    let slots = "select jsonb_agg(to_jsonb(queue_slots) order by id) from reveille.workers";
    assert_eq!(database.value(slots).await, json!([[4, 9], [3], [1]]));
    let all = [("queue", "reports"), ("slots", "5"), ("of", "all")];
    let set = browser.submit("workers/1", "workers/1/slots", &all).await;
    assert!(set.notice().contains("2 workers"), "{}", set.notice());
    assert_eq!(database.value(slots).await, json!([[4, 5], [5], [1]]));
    for wrong in ["", "-1", "10001", "many"] {
        let refused = browser.submit("workers/1", "workers/1/slots", &[("slots", wrong)]).await;
        assert!(refused.notice().contains("Nothing was changed"), "{wrong}");
    }
    assert_eq!(database.value(slots).await, json!([[4, 5], [5], [1]]));
    let stopped = browser.submit("workers/1", "workers/1/stop", &[]).await;
    assert!(stopped.notice().contains("alpha:11 was asked to stop"), "{}", stopped.notice());
    assert_eq!(database.value("select min(id) from reveille.workers where stop_requested_at is not null").await, 1);
    let page = browser.page("workers/1").await;
    assert!(page.contains("stopping") && !page.contains("workers/1/stop"), "{page}");
}

#[tokio::test]
async fn a_worker_that_has_ended_has_a_page_that_says_so() {
    let database = with_workers().await;
    assert!(Browser::of(&database).page("workers/99").await.contains("This worker has ended"));
    assert_eq!(Browser::of(&database).get("workers/x").await.status, StatusCode::NOT_FOUND);
    let nobody = Browser::as_viewer(&database, Viewer::new("eve").queues(["other"]));
    assert!(nobody.page("workers").await.contains("No worker runs"));
}
