//! A form that is sent twice is acted on once.

use axum::http::StatusCode;
use serde_json::json;

use crate::browser::{Browser, form, with};
use crate::harness::{TestDatabase, database, soon};
use crate::web::{SECRET, furnish, signed};

async fn jobs(database: &TestDatabase) -> serde_json::Value {
    database.value("select count(*) from reveille.jobs where id >= 100").await
}

/// Sends a form three times, twice at once and once to another dashboard of the same database. Returns the number of
/// new jobs.
async fn sent_again(database: &TestDatabase, action: &str, fields: &[(String, String)]) -> serde_json::Value {
    let (one, other) = (Browser::of(database), Browser::of(database));
    let both = async { futures::join!(one.post(action, fields), one.post(action, fields)) };
    let (first, second) = soon("both are answered", both).await;
    let third = other.post(action, fields).await;
    let answers = [first, second, third];
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{action}: {}", answer.body);
    }
    let before = answers.iter().filter(|answer| answer.notice().contains("was acted on once")).collect::<Vec<_>>();
    assert_eq!(before.len(), 2, "{action}: {:?}", answers.map(|answer| answer.leads_to));
    let page = one.page(before[0].leads_to.trim_start_matches("../")).await;
    assert!(page.contains("This is what it did") && page.contains("ada"), "{page}");
    jobs(database).await
}

#[tokio::test]
async fn a_form_that_is_sent_twice_enqueues_one_job() {
    for (page, action) in [
        ("enqueue?kind=send", "enqueue"),
        ("jobs/5", "jobs/5/again"),
        ("jobs?state=completed&queue=mail", "jobs/5/again"),
        ("schedule?name=mail-nightly", "schedule/trigger"),
    ] {
        let database = database().await;
        furnish(&database).await;
        let browser = Browser::of(&database);
        let fields = form(&browser.page(page).await, action);
        let fields = if action == "enqueue" { with(fields, &[("priority", "normal")]) } else { fields };
        assert_eq!(sent_again(&database, action, &fields).await, 1, "{page}");
        // The page loaded again has another form.
        let again = form(&browser.page(page).await, action);
        let again = if action == "enqueue" { with(again, &[("priority", "normal")]) } else { again };
        assert!(!browser.post(action, &again).await.notice().contains("acted on once"));
        assert_eq!(jobs(&database).await, 2, "{page}");
        let nameless: Vec<_> = again.into_iter().filter(|(name, _)| name != "once").collect();
        assert!(browser.post(action, &nameless).await.status.is_client_error());
        assert_eq!(jobs(&database).await, 2, "{page}");
    }
}

#[tokio::test]
async fn the_same_name_on_another_form_is_another_form() {
    let database = database().await;
    furnish(&database).await;
    let browser = Browser::of(&database);
    for job in [5, 10] {
        let action = format!("jobs/{job}/again");
        let fields = [("signature", signed(SECRET, "ada", &action, 0)), ("once", "a name".to_owned())];
        let fields = fields.map(|(name, value)| (name.to_owned(), value));
        assert!(browser.post(&action, &fields).await.notice().contains("does what"));
    }
    assert_eq!(jobs(&database).await, 2);
}

#[tokio::test]
async fn a_form_with_a_mistake_is_still_good_once_it_is_mended() {
    let database = database().await;
    let browser = Browser::of(&database);
    let fields = with(form(&browser.page("enqueue").await, "enqueue"), &[("priority", "normal"), ("kind", "")]);
    let answer = browser.post("enqueue", &fields).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let name = |fields: &[(String, String)]| fields.iter().find(|(name, _)| name == "once").cloned().unwrap();
    assert_eq!(name(&form(&answer.body, "enqueue")), name(&fields), "it is shown again as the same form");
    let mended = with(fields, &[("kind", "send")]);
    assert!(browser.post("enqueue", &mended).await.notice().contains("is enqueued"));
    assert!(browser.post("enqueue", &mended).await.notice().contains("acted on once"));
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1);
}

#[tokio::test]
async fn a_run_begins_once_with_each_form() {
    let database = database().await;
    furnish(&database).await;
    let browser = Browser::of(&database);
    let asked = browser.get("bulk?do=again&state=finished&queue=mail").await;
    let fields = form(&browser.page(asked.leads_to.trim_start_matches("../")).await, "bulk");
    sent_again(&database, "bulk", &fields).await;
    database.until("select bool_and(ended_at is not null) from reveille.actions where id >= 100").await;
    assert_eq!(jobs(&database).await, 1);
    let runs = "select jsonb_agg(jsonb_build_array(action, outcome, done)) from reveille.actions where id >= 100";
    assert_eq!(database.value(runs).await, json!([["run_again", "done", 1]]));
}
