//! Pauses of kinds and keys, on each page that shows jobs which they hold back.

use crate::browser::Browser;
use crate::harness::database;
use crate::web::PAGE_SIZE;

#[tokio::test]
async fn a_thousand_pauses_leave_the_overview_small() {
    let database = database().await;
    database
        .run(
            "insert into reveille.pauses (queue, kind, key, paused_at)
            select case when n % 10 = 0 then 'mail' end, 'k', 'tenant ' || n, now() - n * interval '1 s'
            from generate_series(1, 1000) as n;
            insert into reveille.queues (name, paused_at) select 'q' || n, now() from generate_series(1, 100) as n;
            insert into reveille.jobs (queue, kind, key, paused_by)
            select 'mail', 'k', key, id from reveille.pauses where key in ('tenant 1', 'tenant 10')",
        )
        .await;
    let page = Browser::of(&database).page("").await;
    assert!(page.len() < PAGE_SIZE, "{} bytes", page.len());
    assert_eq!(page.matches("action=\"resume\"").count(), 100, "{page}");
    assert!(page.contains("The 100 latest of 1,000 pauses") && page.contains("key tenant 1 in all queues<"), "{page}");
    assert!(!page.contains("tenant 101 "), "the latest ones");
    let page = Browser::of_queues(&database, &["mail"]).page("").await;
    assert!(page.contains("tenant 1000 ") && !page.contains("tenant 1 ") && !page.contains("latest of"), "{page}");
    assert!(page.contains("1 parked job ") && page.contains("are not counted"), "{page}");
}

/// The page of kinds lists a kind for its dead job.
const DEAD: &str = "
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, reason
    ) values (-1, 'billing', 'charge', '{}', 2, 1, 1, 1, now(), now(), 'failed')";
const PARKED: &str =
    "insert into reveille.jobs (queue, kind, paused_by) select 'billing', 'charge', id from reveille.pauses";

#[tokio::test]
async fn a_paused_kind_is_seen_and_resumed_where_its_jobs_are() {
    let database = database().await;
    database.run(DEAD).await;
    let browser = Browser::of(&database);
    let paused = browser.submit("kinds", "pause", &[]).await;
    assert!(paused.leads_to.contains("kinds?"), "{}", paused.leads_to);
    assert!(paused.notice().starts_with("Paused: kind charge in queue billing."), "{}", paused.notice());
    database.run(PARKED).await;

    let parked = database.value("select id from reveille.jobs").await;
    let pages = ["", "queue?name=billing", "jobs?state=parked", "jobs?state=parked&queue=billing"];
    for page in pages.map(str::to_owned).into_iter().chain([format!("jobs/{parked}")]) {
        let shown = browser.page(&page).await;
        assert!(shown.contains("<strong>kind charge in queue billing</strong>"), "{page}: {shown}");
        assert!(shown.contains("resume\""), "{page}: {shown}");
    }
    assert!(!browser.page("queue?name=other").await.contains("kind charge"));
    let kinds = browser.page("kinds").await;
    assert!(kinds.contains(">paused<") && !kinds.contains(">Pause<"), "{kinds}");
    assert!(browser.page("actions").await.contains("kind charge in queue "));

    let resumed = browser.submit("kinds", "resume", &[]).await;
    assert!(resumed.leads_to.contains("kinds?"), "{}", resumed.leads_to);
    assert!(browser.page("kinds").await.contains(">Pause<"));
    assert_eq!(database.value("select count(*) from reveille.jobs where paused_by is not null").await, 0);
}

#[tokio::test]
async fn the_jobs_of_a_key_are_paused_from_the_list_of_keys() {
    let database = database().await;
    database.run("insert into reveille.jobs (queue, kind, key) values ('mail', 'k', 'tenant 42')").await;
    let browser = Browser::of(&database);
    let paused = browser.submit("queue?name=mail", "pause", &[]).await;
    assert!(paused.leads_to.contains("queue?name=mail&"), "{}", paused.leads_to);
    assert!(browser.page("queue?name=mail").await.contains("<strong>key tenant 42 in queue mail</strong>"));
    assert!(!Browser::read_only(&database).page("queue?name=mail").await.contains("Pause<"));
}
