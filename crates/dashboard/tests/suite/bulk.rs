//! Changing all jobs that match: the question, its number, and the run.

use axum::http::StatusCode;
use reveille::Database;
use reveille::dev::Network;
use reveille_dashboard::{Access, Dashboard, Viewer};
use serde_json::json;

use crate::browser::{Browser, form, with};
use crate::harness::{TestDatabase, WAITS_FOR_ADVISORY_LOCK, database, proxy, soon};

const DEAD: &str = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures,
        max_attempts, available_at, created_at, reason)
    select n, 'mail', 'welcome', '{}', 2, 1, 1, 1, now(), now(), 'failed' from generate_series(1, 1200) as n";
const ROW: &str = "select jsonb_build_array(action, outcome, done, matching) from reveille.actions";
/// Each statement that changes these rows waits for the lock 7.
const WAITS: &str = "create function waits() returns trigger language plpgsql as $$
    begin
        perform pg_advisory_xact_lock_shared(7);
        return null;
    end $$;
    create trigger waits before";

/// Asks what the page asks, and returns the page of the question.
async fn question(browser: &Browser, page: &str) -> (String, String) {
    let there = browser.get(page).await.leads_to.trim_start_matches("../").to_owned();
    (browser.page(&there).await, there)
}

async fn until_ended(database: &TestDatabase) {
    database.until("select coalesce(bool_and(ended_at is not null), false) from reveille.actions").await;
}

#[tokio::test]
async fn a_purge_asks_for_the_number_that_its_page_shows() {
    let database = database().await;
    database.run(DEAD).await;
    let browser = Browser::of(&database);
    let (page, there) = question(&browser, "bulk?do=purge&state=dead&queue=mail").await;
    assert!(
        page.contains("<strong>1,200</strong>") && page.contains("Type <strong>1,200</strong> to purge them"),
        "{page}"
    );
    database.run("delete from reveille.dead_jobs where id <= 100").await;
    let fields = form(&page, "bulk");
    for wrong in ["", "1,100", "all"] {
        let answer = browser.post("bulk", &with(fields.clone(), &[("typed", wrong)])).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        let back = browser.page(&answer.leads_to).await;
        assert!(back.contains("The number is 1,200. Nothing was changed."), "{back}");
        assert!(back.contains("<strong>1,200</strong>"), "the page shows the same number: {back}");
    }
    assert!(browser.page(&there).await.contains("<strong>1,200</strong>"));
    let answer = browser.post("bulk", &with(fields, &[("typed", "1,200")])).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    until_ended(&database).await;
    assert_eq!(database.value(ROW).await, json!(["purge", "done", 1100, 1200]));
}

#[tokio::test]
async fn what_is_wrong_with_new_values_stands_on_the_page_of_the_question() {
    let database = database().await;
    database.run("insert into reveille.jobs (queue, kind) values ('mail', 'welcome')").await;
    let browser = Browser::of(&database);
    let (page, _) = question(&browser, "bulk?do=edit&queue=mail").await;
    let fields = with(form(&page, "bulk"), &[("to_queue", "slow"), ("to_due", "never"), ("to_priority", "low")]);
    let answer = browser.post("bulk", &fields).await;
    let back = browser.page(&answer.leads_to).await;
    assert!(back.contains("never") && back.contains("Nothing was changed."), "{back}");
    assert!(back.contains("value=\"slow\"") && back.contains("value=\"low\" selected"), "what was typed stays: {back}");
    let mended = with(form(&back, "bulk"), &[("to_due", "now"), ("to_priority", "low")]);
    assert_eq!(browser.post("bulk", &mended).await.status, StatusCode::SEE_OTHER);
    until_ended(&database).await;
    assert_eq!(database.value(ROW).await, json!(["edit", "done", 1, 1]));
}

#[tokio::test]
async fn a_run_waits_for_a_database_that_is_away_and_goes_on() {
    let database = database().await;
    database
        .run(&format!("{DEAD}; {WAITS} delete on reveille.dead_jobs for each statement execute function waits()"))
        .await;
    let lock = database.client().await;
    lock.batch_execute("select pg_advisory_lock(7)").await.unwrap();
    let (proxy, address) = proxy(&database.address).await;
    let through = Dashboard::new(Database::connect(address).await.unwrap());
    let browser = Browser::at(through.authorize(|_| Viewer::new("ada").access(Access::all())).router());
    let (page, _) = question(&browser, "bulk?do=purge&state=dead&queue=mail").await;
    let fields = with(form(&page, "bulk"), &[("typed", "1200")]);
    assert_eq!(browser.post("bulk", &fields).await.status, StatusCode::SEE_OTHER);
    database.until(WAITS_FOR_ADVISORY_LOCK).await;
    proxy.set(Network::Refuse);
    lock.batch_execute("select pg_advisory_unlock(7)").await.unwrap();
    // The first slice is undone with its connection.
    let free = "select not exists (
            select from pg_locks join pg_database on pg_database.oid = pg_locks.database
            where datname = current_database() and locktype = 'advisory'
        )";
    database.until(free).await;
    assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 1200);
    proxy.set(Network::Pass);
    until_ended(&database).await;
    assert_eq!(database.value(ROW).await, json!(["purge", "done", 1200, 1200]));
}

#[tokio::test]
async fn a_run_whose_visitor_leaves_while_it_begins_goes_on() {
    let database = database().await;
    database
        .run(&format!("{DEAD}; {WAITS} insert on reveille.actions for each statement execute function waits()"))
        .await;
    let lock = database.client().await;
    lock.batch_execute("select pg_advisory_lock(7)").await.unwrap();
    let browser = Browser::of(&database);
    let (page, _) = question(&browser, "bulk?do=revive&state=dead&queue=mail").await;
    let fields = form(&page, "bulk");
    let posting = tokio::spawn(async move { browser.post("bulk", &fields).await.status });
    database.until(WAITS_FOR_ADVISORY_LOCK).await;
    posting.abort();
    assert!(soon("the visitor has left", posting).await.unwrap_err().is_cancelled());
    lock.batch_execute("select pg_advisory_unlock(7)").await.unwrap();
    until_ended(&database).await;
    assert_eq!(database.value(ROW).await, json!(["revive", "done", 1200, 1200]));
}

#[tokio::test]
async fn the_page_of_an_interrupted_run_says_what_may_have_happened() {
    let database = database().await;
    database
        .run(
            "insert into reveille.actions (actor, source, action, done, seen_at)
            values ('ada', 'dashboard', 'purge', 3, now() - interval '1 minute')",
        )
        .await;
    let page = Browser::of(&database).page("actions/1").await;
    assert!(page.contains("has ended, or cannot reach the database"), "{page}");
}
