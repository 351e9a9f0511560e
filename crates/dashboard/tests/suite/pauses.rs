//! The list of pauses on the overview.

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
    assert!(page.contains("The 100 latest of 1,000 pauses") && page.contains("<strong>tenant 1</strong>"), "{page}");
    assert!(!page.contains("tenant 101<"), "the latest ones");
    let page = Browser::of_queues(&database, &["mail"]).page("").await;
    assert!(page.contains("tenant 1000<") && !page.contains("tenant 1<") && !page.contains("latest of"), "{page}");
    assert!(page.contains("1 parked jobs") && page.contains("are not counted"), "{page}");
}
