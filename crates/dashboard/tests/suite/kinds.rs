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
async fn the_dead_jobs_of_each_kind_are_counted_however_many_others_died_since() {
    let database = database().await;
    database
        .run(
            "insert into reveille.kind_counters
            select 'mail', 'welcome', date_bin('10 minutes', now(), 'epoch'), 900, 100, 1, 1,
                array_fill(0::bigint, array[18]), array_fill(0::bigint, array[18]);
            insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
                available_at, created_at, reason, finished_at)
            select n, case when n <= 2 then 'mail' else 'other' end, case when n <= 2 then 'welcome' else 'k' || n end,
                '{}', 2, 1, 1, 1, now(), now(), 'failed', now() + n * interval '1 s'
            from generate_series(1, 300) as n;
            insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
                available_at, created_at, reason, finished_at)
            select 1000 + n, 'other', 'k' || (2 + n % 298), '{}', 2, 1, 1, 1, now(), now(), 'failed', now()
            from generate_series(1, 3000) as n",
        )
        .await;
    for browser in [Browser::of(&database), Browser::of_queues(&database, &["mail"])] {
        let page = browser.page("kinds").await;
        let row = page.split("data-key=\"mail welcome\"").nth(1).unwrap().split("</tr>").next().unwrap();
        assert!(row.contains("kind=welcome&amp;queue=mail\">2</a>"), "{row}");
    }
    let page = Browser::of(&database).page("kinds").await;
    assert_eq!(page.matches("<tr data-href").count(), 201, "the kinds with the most dead jobs, and one with attempts");
    assert!(page.contains("Of 300 kinds with dead jobs"), "{page}");
}

#[tokio::test]
async fn without_attempts_the_page_says_what_would_stand_there() {
    let database = database().await;
    assert!(Browser::of(&database).page("kinds").await.contains("A kind is listed here"));
}
