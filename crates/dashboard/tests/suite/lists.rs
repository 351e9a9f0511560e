//! What lists say when they have nothing to show, and what they point out.

use crate::browser::Browser;
use crate::harness::database;

#[tokio::test]
async fn a_text_that_is_no_id_is_refused_and_lists_no_jobs() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) values ('k')").await;
    let browser = Browser::of(&database);
    for id in ["abc", "12%2C13"] {
        let page = browser.page(&format!("jobs?id={id}")).await;
        assert!(page.contains("is no id of a job") && !page.contains("All that match"), "{page}");
    }
    assert!(browser.get("jobs?id=+7+").await.leads_to.ends_with("jobs/7"));
}

#[tokio::test]
async fn an_empty_list_says_where_else_to_look() {
    let database = database().await;
    let browser = Browser::of(&database);
    assert!(browser.page("jobs?state=failing").await.contains("Failed jobs that ran again are in Completed"));
    assert!(browser.page("jobs?state=stuck").await.contains("No job ignores a request to stop."));
    assert!(browser.page("jobs?kind=none").await.contains("No job passes the filter."));
}

#[tokio::test]
async fn a_queue_with_waiting_jobs_and_no_worker_is_pointed_out() {
    let database = database().await;
    database.run("insert into reveille.jobs (queue, kind) values ('mail', 'k')").await;
    let browser = Browser::of(&database);
    for page in ["", "queue?name=mail"] {
        assert!(browser.page(page).await.contains(">no worker<"), "{page}");
    }
    let worker = "insert into reveille.workers (id, host, pid, version, queues, slots)
        values (1, 'host', 1, '0', array['mail'], 4)";
    database.run(worker).await;
    let browser = Browser::of(&database);
    for page in ["", "queue?name=mail"] {
        assert!(!browser.page(page).await.contains(">no worker<"), "{page}");
    }
}

#[tokio::test]
async fn a_cancel_that_came_too_late_is_recorded_as_no_change() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) values ('k')").await;
    let admin = database.admin().acting_as("ada", "command").unwrap();
    admin.cancel(1).await.unwrap();
    assert!(!Browser::of(&database).page("actions").await.contains("no change"));
    admin.cancel(1).await.unwrap();
    let actions = Browser::of(&database).page("actions").await;
    assert!(actions.contains("no change") && actions.contains("it had finished"), "{actions}");
}

#[tokio::test]
async fn the_page_of_a_queue_lists_errors_and_leads_to_those_of_dead_jobs() {
    let database = database().await;
    let failing = "insert into reveille.jobs (queue, kind, available_at, attempts, failures, errors)
        values ('mail', 'k', now() + interval '1 hour', 1, 1, '[{\"error\": \"451 greylisted\"}]')";
    database.run(failing).await;
    let page = Browser::of(&database).page("queue?name=mail").await;
    assert!(page.contains("Jobs that wait for a retry") && page.contains("451 greylisted"), "{page}");
    assert!(page.contains("dead?queue=mail\""), "{page}");
    assert!(!Browser::of(&database).page("queue?name=other").await.contains("Jobs that wait for a retry"));
}
