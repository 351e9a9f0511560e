//! The page of kinds.

use crate::browser::Browser;
use crate::harness::database;

#[tokio::test]
async fn a_kind_has_its_attempts_its_times_and_its_dead_jobs() {
    let database = database().await;
    database
        .run(
            "insert into reveille.kind_counters
            select queue, kind, date_bin('10 minutes', now(), 'epoch'), 900, 100, 1, 1,
                array[0,0,0,0,0,0,0,0,0,1000,0,0,0,0,0,0,0,0], array[0,0,0,0,0,0,0,0,0,0,0,0,1000,0,0,0,0,0]
            from (values ('mail', 'welcome'), ('reports', '<i>monthly')) as known (queue, kind);
            insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
                available_at, created_at, reason)
            select n, 'mail', 'only dead', '{}', 2, 1, 1, 1, now(), now(), 'failed' from generate_series(1, 3) as n",
        )
        .await;
    let page = Browser::of(&database).page("kinds").await;
    for text in [
        "welcome",
        "&lt;i&gt;monthly",
        "1,000",
        "10 %",
        "750 ms",
        "7.5 s",
        "jobs?kind=welcome&amp;queue=mail",
        "dead?kind=only+dead&amp;queue=mail",
        "enqueue?kind=welcome&amp;queue=mail",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let sorted = Browser::of(&database).page("kinds?sort=dead").await;
    assert!(sorted.find("only dead").unwrap() < sorted.find("welcome").unwrap(), "{sorted}");
    let page = Browser::of_queues(&database, &["mail"]).page("kinds").await;
    assert!(page.contains("welcome") && !page.contains("monthly"), "{page}");
    assert!(!Browser::read_only(&database).page("kinds").await.contains("enqueue?"));
}

#[tokio::test]
async fn without_attempts_the_page_says_what_would_stand_there() {
    let database = database().await;
    assert!(Browser::of(&database).page("kinds").await.contains("A kind is listed here"));
}
