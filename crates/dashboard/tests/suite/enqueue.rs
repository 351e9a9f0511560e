//! The form for a new job: what it fills in, what it refuses, and that it loses nothing.

use axum::http::StatusCode;
use reveille_dashboard::{Access, Field, Right, Viewer};
use serde_json::json;

use crate::browser::{Browser, form, with};
use crate::harness::{TestDatabase, database};

const LIKE: &str = r#"insert into reveille.jobs (
        id, queue, kind, payload, priority, max_attempts, key, tags, timeout, metadata
    )
    overriding system value
    values (7, 'mail', 'welcome', '{"user": 12345678901234567890123, "t": "</textarea>"}', 1, 3, 'tenant', '{a,b}',
        '30 seconds', '{"from": "import"}')"#;

/// Returns all fields of the form with what stands in them.
fn fields(page: &str) -> Vec<(String, String)> {
    let areas = page.split("<textarea").skip(1).map(|area| {
        let name = area.split("name=\"").nth(1).unwrap().split('"').next().unwrap();
        let value = area.split_once('>').unwrap().1.split("</textarea>").next().unwrap();
        let value = value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        (name.to_owned(), value.strip_prefix('\n').unwrap_or(&value).replace('\n', "\r\n"))
    });
    let chosen = page.split("<option value=\"").skip(1).find(|option| option.contains(" selected"));
    let priority = chosen.map_or("normal", |option| option.split('"').next().unwrap());
    with(form(page, "enqueue").into_iter().chain(areas).collect(), &[("priority", priority)])
}

async fn only_job(database: &TestDatabase) -> serde_json::Value {
    let columns = "to_jsonb(jobs) - array['id', 'created_at', 'available_at']";
    database.value(&format!("select {columns} from reveille.jobs where id <> 7")).await
}

#[tokio::test]
async fn a_job_is_enqueued_as_the_form_says() {
    let database = database().await;
    let browser = Browser::of(&database);
    let page = browser.page("enqueue").await;
    assert!(page.contains("data-still") && !page.contains("http-equiv"), "{page}");
    let filled = with(
        fields(&page),
        &[
            ("kind", " welcome "),
            ("queue", "mail"),
            ("payload", "{\"a\":\r\n[1]}"),
            ("priority", "urgent"),
            ("delay", "1 hour"),
            ("max_attempts", "4"),
            ("timeout", "1 minute"),
            ("key", "k"),
            ("unique_key", "u"),
            ("tags", "a, b\r\n\r\n c "),
            ("metadata", "{\"m\": 1.10}"),
        ],
    );
    let answer = browser.post("enqueue", &filled).await;
    let id = database.value("select id from reveille.jobs").await;
    assert_eq!(answer.notice(), format!("Job {id} is enqueued."));
    assert_eq!(answer.leads_to.split('?').next().unwrap(), format!("jobs/{id}"));
    let job = only_job(&database).await;
    let expected = json!(["welcome", "mail", {"a": [1]}, 0, 4, "00:01:00", "k", "u", ["a, b", "c"], {"m": 1.10}]);
    let columns =
        ["kind", "queue", "payload", "priority", "max_attempts", "timeout", "key", "unique_key", "tags", "metadata"];
    assert_eq!(json!(columns.map(|column| job[column].clone())), expected);
    let delay = "select extract(epoch from available_at - created_at)::int from reveille.jobs";
    assert_eq!(database.value(delay).await, 3600);
    let again = browser.post("enqueue", &with(filled, &[("once", "another form")])).await;
    assert_eq!(again.notice(), format!("Nothing was enqueued: job {id} has this unique key."));
}

#[tokio::test]
async fn what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost() {
    let database = database().await;
    let browser = Browser::of(&database);
    let typed = [
        ("kind", ""),
        ("payload", "{\"a\": <oops>}\r\n"),
        ("delay", "soon"),
        ("max_attempts", "0"),
        ("timeout", "-1 s"),
        ("key", "tenant \"7\""),
        ("metadata", "[1]"),
        ("tags", "one\r\ntwo"),
    ];
    let answer = browser.post("enqueue", &with(fields(&browser.page("enqueue").await), &typed)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("6 fields need another look"), "{}", answer.body);
    for (name, is_wrong) in [("kind", true), ("payload", true), ("delay", true), ("key", false), ("queue", false)] {
        let about = answer.body.split(&format!("id=\"about-{name}\"")).nth(1).unwrap().split("</div>").next().unwrap();
        assert_eq!(about.contains("field-error"), is_wrong, "{name}: {about}");
    }
    let kept = fields(&answer.body);
    for (name, value) in typed {
        let value = if name == "payload" { value } else { value.trim() };
        assert!(kept.contains(&(name.to_owned(), value.to_owned())), "{name}: {kept:?}");
    }
    let both = with(
        kept,
        &[
            ("kind", "k"),
            ("payload", ""),
            ("delay", "1 s"),
            ("at", "tomorrow"),
            ("max_attempts", "1"),
            ("timeout", ""),
            ("metadata", ""),
        ],
    );
    let answer = browser.post("enqueue", &both).await;
    assert!(answer.body.contains("Give either a delay or a due time."), "{}", answer.body);
    let sound = with(fields(&answer.body), &[("delay", "")]);
    assert!(browser.post("enqueue", &sound).await.notice().contains("is enqueued"));
    assert_eq!(only_job(&database).await["payload"], json!({}));
}

#[tokio::test]
async fn a_form_that_is_too_old_is_shown_again() {
    let database = database().await;
    let browser = Browser::of(&database);
    let typed =
        with(fields(&browser.page("enqueue").await), &[("kind", "welcome"), ("payload", "[1]"), ("signature", "00")]);
    let answer = browser.post("enqueue", &typed).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("this form was too old"), "{}", answer.body);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
    assert!(browser.post("enqueue", &fields(&answer.body)).await.notice().contains("is enqueued"));
    assert_eq!(only_job(&database).await["payload"], json!([1]));
}

#[tokio::test]
async fn the_form_is_filled_in_like_a_job_with_all_its_digits() {
    let database = database().await;
    database.run(LIKE).await;
    let browser = Browser::of(&database);
    for page in ["enqueue?like=7", "enqueue?kind=welcome", "enqueue?kind=welcome&queue=mail"] {
        assert!(browser.post("enqueue", &fields(&browser.page(page).await)).await.notice().contains("is enqueued"));
        let same = "select count(distinct to_jsonb(jobs) - array['id', 'created_at', 'available_at']) = 1
            from reveille.jobs";
        assert_eq!(database.value(same).await, true, "{page}");
    }
    let other = browser.page("enqueue?kind=other&queue=reports").await;
    assert!(other.contains("No job of this kind") && other.contains("value=\"other\""), "{other}");
    assert_eq!(browser.get("enqueue?like=99").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_the_visitor_may_not_see_is_not_filled_in() {
    let database = database().await;
    database.run(LIKE).await;
    let blind = Browser::without(&database, Right::SeePayloads);
    for browser in [blind, Browser::redacted(&database, Field::Payload), Browser::redacted(&database, Field::Metadata)]
    {
        let page = browser.page("enqueue?like=7").await;
        assert!(!page.contains("12345678901234567890123") && !page.contains("import"), "{page}");
        assert!(
            page.contains("value=\"welcome\"") && page.contains("not filled in") | page.contains("neither is"),
            "{page}"
        );
    }
    let reports = Browser::of_queues(&database, &["reports"]);
    assert_eq!(reports.get("enqueue?like=7").await.status, StatusCode::NOT_FOUND);
    assert!(reports.page("enqueue?kind=welcome&queue=mail").await.contains("No job of this kind"));
    let answer = reports
        .post("enqueue", &with(fields(&reports.page("enqueue").await), &[("kind", "k"), ("queue", "mail")]))
        .await;
    assert!(answer.body.contains("You may not enqueue into this queue."), "{}", answer.body);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1);
}

#[tokio::test]
async fn only_who_may_enqueue_gets_the_form() {
    let database = database().await;
    let browser = Browser::of(&database);
    let weak = Browser::as_viewer(&database, Viewer::new("ada").access(Access::operator()));
    assert_eq!(weak.get("enqueue").await.status, StatusCode::FORBIDDEN);
    assert!(!weak.page("workers").await.contains("href=\"enqueue\""));
    let filled = with(fields(&browser.page("enqueue").await), &[("kind", "k")]);
    browser.refuses(&weak, "enqueue", "enqueue", &[("kind", "k")]).await;
    assert_eq!(weak.post("enqueue", &filled).await.status, StatusCode::FORBIDDEN);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}
