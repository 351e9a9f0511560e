//! The record of what was done: what a visitor sees of it, and may stop.

use axum::http::StatusCode;
use reveille_dashboard::{Access, Right, Viewer};

use crate::browser::{Browser, form};
use crate::harness::database;

const OF_OTHERS: &str = "insert into reveille.actions (actor, source, action, target, ended_at, outcome)
    select 'bob', 'command', 'pause', '{\"queue\": \"other\"}', now(), 'done' from generate_series(1, 120)";
const OWN_RUN: &str = "insert into reveille.actions (actor, source, action, target, done)
    values ('ada', 'dashboard', 'purge', '{\"filter\": {\"queue\": \"mail\"}}', 0)";

#[tokio::test]
async fn a_visitor_of_some_queues_finds_their_own_run_on_the_first_page() {
    let database = database().await;
    database.run(OWN_RUN).await;
    database.run(OF_OTHERS).await;
    let page = Browser::of_queues(&database, &["mail"]).page("actions").await;
    assert!(page.contains("<td>purge<") && page.contains("actions/1\"") && !page.contains("Next"), "{page}");
    database.run("insert into reveille.actions (actor, source, action) values ('ada', 'command', 'prune')").await;
    let page = Browser::of_queues(&database, &["mail"]).page("actions").await;
    assert!(!page.contains("<td>prune<") && !page.contains("bob"), "{page}");
    assert!(Browser::of(&database).page("actions").await.contains("actions?before="));
}

#[tokio::test]
async fn who_has_begun_a_run_may_stop_it_without_the_right_to_begin_another() {
    let database = database().await;
    database.run(OWN_RUN).await;
    let others = Browser::as_viewer(&database, Viewer::new("eve").access(Access::all().without(Right::Purge)));
    assert!(!others.page("actions/1").await.contains("actions/1/stop"));
    let own = Browser::without(&database, Right::Purge);
    let page = own.page("actions/1").await;
    let answer = own.post("actions/1/stop", &form(&page, "actions/1/stop")).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(database.value("select stop_requested_at is not null from reveille.actions").await, true);
}

#[tokio::test]
async fn actions_are_found_by_who_and_what() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) values ('k')").await;
    for (who, job) in [("ada", 1), ("bob", 1), ("bob", 2)] {
        database.admin().acting_as(who, "command").unwrap().cancel(job).await.unwrap();
    }
    database.admin().acting_as("bob", "command").unwrap().pause("mail").await.unwrap();
    let browser = Browser::of(&database);
    for (query, found) in [("", 4), ("who=bob", 3), ("what=cancel", 3), ("who=bob&what=cancel", 2), ("who=eve", 0)] {
        let page = browser.page(&format!("actions?{query}")).await;
        assert_eq!(page.matches("<tr data-href").count(), found, "{query}: {page}");
    }
    assert!(browser.page("actions?who=eve").await.contains("No action passes the filter."));
    let many = "insert into reveille.actions (actor, source, action, ended_at, outcome)
        select 'a b', 'command', 'prune', now(), 'done' from generate_series(1, 60)";
    database.run(many).await;
    let page = Browser::of(&database).page("actions?who=a+b&what=prune").await;
    assert!(page.contains("actions?who=a+b&amp;what=prune&amp;before="), "{page}");
    let own = Browser::of_queues(&database, &["mail"]).page("actions?who=bob").await;
    assert!(!own.contains("<tr data-href") && !own.contains("name=\"who\""), "{own}");
}

#[tokio::test]
async fn the_page_of_a_job_says_who_changed_it() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) values ('k')").await;
    database.admin().acting_as("bob", "command").unwrap().cancel(1).await.unwrap();
    let job = Browser::of(&database).page("jobs/1").await;
    assert!(job.contains("Changes") && job.contains(">cancel</a> by bob (command) "), "{job}");
    let others = Browser::of_queues(&database, &["default"]).page("jobs/1").await;
    assert!(!others.contains("bob"), "{others}");
}
