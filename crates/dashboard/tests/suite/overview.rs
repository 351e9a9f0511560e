//! The overview of more queues than fit on a page.

use reveille_dashboard::Viewer;

use crate::browser::Browser;
use crate::harness::{TestDatabase, database};
use crate::web::{get, of};

/// 250 queues with a ready job each. `q249` has dead jobs, and attempts fail in `q248`.
async fn with_many_queues() -> TestDatabase {
    let database = database().await;
    let rows = "insert into reveille.jobs (queue, kind)
            select 'q' || to_char(n, 'fm000'), 'k' from generate_series(0, 249) as n;
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, reason)
        select 1000 + n, 'q249', 'k', '{}', 2, 1, 1, 1, now(), now(), 'failed' from generate_series(1, 7) as n;
        insert into reveille.counters (queue, started_at, worker, completed, failed)
        values ('q248', now() - interval '5 seconds', 1, 0, 3)";
    database.run(rows).await;
    database
}

/// Returns the names of the listed queues.
fn listed(page: &str) -> Vec<&str> {
    page.split("data-key=\"q").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn of_many_queues_those_in_trouble_come_first_and_all_have_a_page() {
    let database = with_many_queues().await;
    let browser = Browser::of(&database);
    let first = browser.page("").await;
    let names = listed(&first);
    assert_eq!((names.len(), &names[..4]), (100, &["248", "249", "000", "001"][..]), "{first}");
    assert!(first.contains("Queues 1 to 100 of 250"), "{first}");
    // The sums are of all queues.
    assert!(first.contains(">250</a>") && first.contains(">7</a>"), "{first}");
    assert!(first.contains("?queue=&amp;page=2\">Next<") && !first.contains(">Previous<"), "{first}");
    let second = browser.page("?queue=&page=2").await;
    let last = browser.page("?queue=&page=3").await;
    assert_eq!((listed(&second).len(), listed(&last).len()), (100, 50));
    assert!(last.contains(">Previous<") && !last.contains(">Next<"), "{last}");
    let mut all: Vec<_> = [&first, &second, &last].into_iter().flat_map(|page| listed(page)).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 250);
    assert_eq!(listed(&browser.page("?page=99").await), listed(&last));
}

#[tokio::test]
async fn an_estimate_is_marked_however_small_it_is() {
    let database = with_many_queues().await;
    let browser = Browser::of(&database);
    assert!(!browser.page("").await.contains(">~"));
    // Of 250 queues, each is counted up to 400 jobs.
    database.run("insert into reveille.jobs (queue, kind) select 'q000', 'k' from generate_series(1, 600)").await;
    let browser = Browser::of(&database);
    let overview = browser.page("").await;
    let row = overview.split("data-key=\"q000\"").nth(1).unwrap().split("</tr>").next().unwrap();
    assert!(row.contains(">~"), "{row}");
    assert!(browser.page("queue?name=q000").await.contains(">~"));
    assert!(!browser.page("queue?name=q001").await.contains(">~"));
}

#[tokio::test]
async fn a_queue_among_many_is_found_by_a_part_of_its_name() {
    let database = with_many_queues().await;
    let browser = Browser::of(&database);
    let found = browser.page("?queue=Q24").await;
    assert_eq!(listed(&found), ["240", "241", "242", "243", "244", "245", "246", "247", "248", "249"]);
    assert!(found.contains("value=\"Q24\"") && found.contains(">250</a>"), "{found}");
    assert!(browser.page("?queue=none").await.contains("No queue has this in its name."));
}

#[tokio::test]
async fn a_visitor_of_some_queues_sees_all_of_them_and_the_sums_of_the_page() {
    let database = with_many_queues().await;
    let queues = (100..220).map(|n| format!("q{n}")).collect::<Vec<_>>();
    let router = of(&database, Viewer::new("ada").queues(queues));
    let page = get(&router, "/").await.body;
    assert_eq!(listed(&page).len(), 100);
    assert!(page.contains("of 120") && page.contains("the sums over the queues of this page"), "{page}");
    assert!(page.contains(">100</a>") && !page.contains(">250<") && !page.contains("q248"), "{page}");
    assert_eq!(listed(&get(&router, "/?page=2").await.body).len(), 20);
}

#[tokio::test]
async fn running_and_stalled_workflows_are_counted_with_a_link_to_them() {
    let database = database().await;
    assert!(!Browser::of(&database).page("").await.contains(">Workflows</dt>"));
    let many = "insert into reveille.workflows (name, state)
        select 'w', case when n > 10003 then 'completed' when n > 3 then 'running' else 'stalled' end
        from generate_series(1, 10009) as n";
    database.run(many).await;
    let page = Browser::of(&database).page("").await;
    assert!(page.contains("workflows?state=running\">10,000 running</a>"), "{page}");
    assert!(page.contains("workflows?state=stalled\">3 stalled</a>"), "{page}");
    let some = Browser::of_queues(&database, &["default"]).page("").await;
    assert!(!some.contains("stalled") && !some.contains("role=\"alert\""), "{some}");

    let changes = "update reveille.workflows set state = 'running' where state = 'stalled'";
    database.run(changes).await;
    let page = Browser::of(&database).page("").await;
    assert!(page.contains(">over 10,000 running</a>") && !page.contains("stalled"), "{page}");
}

#[tokio::test]
async fn a_visitor_of_some_queues_gets_no_sums_over_others_if_a_reading_fails() {
    let database = with_many_queues().await;
    database.run("alter view reveille.blocked_jobs_overview rename column queue to renamed").await;
    let all = get(&of(&database, Viewer::new("ada")), "/").await.body;
    assert!(all.contains("role=\"alert\"") && all.contains(">250</a>"), "{all}");
    let some = get(&of(&database, Viewer::new("ada").queues(["q001"])), "/").await.body;
    assert!(some.contains("role=\"alert\"") && !some.contains(">250</a>"), "{some}");
}
