//! Forms of pages that have been open for a while: others have changed the same thing meanwhile.

use axum::http::StatusCode;
use reveille_dashboard::{Access, Right, Viewer};

use crate::harness::database;
use crate::web::{SECRET, get, of, post, signed, site};

/// Returns the fields of the form that posts to `action`, as a browser would send them.
fn shown(page: &str, action: &str) -> Vec<(String, String)> {
    let form = page.split("<form ").skip(1).find(|form| form.contains(&format!("action=\"{action}\""))).unwrap();
    let form = form.split("</form>").next().unwrap();
    let attribute = |tag: &str, name: &str| {
        let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
        Some(unescaped(value))
    };
    let mut fields = Vec::new();
    for tag in form.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').unwrap();
        let tag = format!(" {}", tag.split_once(' ').map_or(tag, |(_, attributes)| attributes)) + " ";
        let is_off = tag.contains("type=\"checkbox\"") && !tag.contains(" checked");
        match (attribute(&tag, "name"), attribute(&tag, "value")) {
            (Some(name), Some(value)) if !is_off => fields.push((name, value)),
            (Some(name), None) => fields.push((name, unescaped(text).replace('\n', "\r\n"))),
            (None, Some(value)) if tag.contains(" selected") => fields.last_mut().unwrap().1 = value,
            _ => {}
        }
    }
    fields
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

fn with<'a>(fields: &'a [(String, String)], changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let kept = kept.filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
    kept.chain(changed.iter().copied()).collect()
}

#[tokio::test]
async fn settings_that_somebody_else_has_changed_stay() {
    let database = database().await;
    database.run("insert into reveille.queues (name) values ('mail')").await;
    let site = site(&database);
    let form = shown(&get(&site, "/queue?name=mail").await.body, "queue/settings");
    assert!(form.contains(&("bell".into(), "yes".into())) && !form.iter().any(|(name, _)| name == "ordered"));
    let unchanged = post(&site, "/queue/settings", &with(&form, &[])).await;
    assert!(unchanged.header("location").contains("No+setting+was+changed"), "{:?}", unchanged.headers);
    database.run("update reveille.queues set max_running = 1").await;
    let saved = post(&site, "/queue/settings", &with(&form, &[("retention", "2days")])).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let set = "select max_running = 1 and retention = '2 days' and bell and not ordered from reveille.queues";
    assert_eq!(database.value(set).await, true);

    let refused = post(&site, "/queue/settings", &with(&form, &[("max_running", "5")])).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("somebody has changed this to &quot;1&quot; meanwhile"), "{}", refused.body);
    assert_eq!(database.value(set).await, true);
    let again = shown(&refused.body, "../queue/settings");
    let saved = post(&site, "/queue/settings", &with(&again, &[])).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    assert_eq!(database.value("select max_running = 5 and retention = '2 days' from reveille.queues").await, true);
}

#[tokio::test]
async fn a_wrong_setting_is_shown_again_with_what_is_wrong_and_what_was_typed() {
    let database = database().await;
    database.run("insert into reveille.queues (name, max_running) values ('mail', 3)").await;
    let site = site(&database);
    let form = shown(&get(&site, "/queue?name=mail").await.body, "queue/settings");
    let wrong = [("max_running", "seven"), ("retention", "2days"), ("ordered", "yes")];
    let refused = post(&site, "/queue/settings", &with(&form, &wrong)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("is no whole number. Nothing was changed."), "{}", refused.body);
    assert!(refused.body.contains("<nav") && refused.body.contains("../queue?name=mail\""), "{}", refused.body);
    let again = shown(&refused.body, "../queue/settings");
    for (name, value) in wrong {
        assert!(again.contains(&(name.to_owned(), value.to_owned())), "{name}: {again:?}");
    }
    let saved = post(&site, "/queue/settings", &with(&again, &[("max_running", "7")])).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let set = "select max_running = 7 and retention = '2 days' and ordered from reveille.queues";
    assert_eq!(database.value(set).await, true);
}

#[tokio::test]
async fn how_long_dead_jobs_are_kept_takes_the_right_to_purge() {
    let database = database().await;
    database.run("insert into reveille.queues (name) values ('mail')").await;
    let careful = of(&database, Viewer::new("ada").access(Access::all().without(Right::Purge)));
    let form = shown(&get(&careful, "/queue?name=mail").await.body, "queue/settings");
    let saved = post(&careful, "/queue/settings", &with(&form, &[("max_running", "5")])).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let form = shown(&get(&careful, "/queue?name=mail").await.body, "queue/settings");
    let refused = post(&careful, "/queue/settings", &with(&form, &[("dead_retention", "1s")])).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let saved = post(&site(&database), "/queue/settings", &with(&form, &[("dead_retention", "1day")])).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let set = "select max_running = 5 and dead_retention = '1 day' from reveille.queues";
    assert_eq!(database.value(set).await, true);
}

#[tokio::test]
async fn fields_of_a_job_that_somebody_else_has_changed_stay() {
    let database = database().await;
    let job = r#"insert into reveille.jobs (kind, key, payload) values ('k', E' two\nlines ', '{"a": 1, "b": [2]}')"#;
    database.run(job).await;
    let site = site(&database);
    let form = shown(&get(&site, "/jobs/1/edit").await.body, "../../jobs/1/edit");
    assert!(form.iter().any(|(name, value)| name == "payload" && value.contains("\r\n")), "{form:?}");
    let one_line = [("key", " twolines ")];
    let unchanged = post(&site, "/jobs/1/edit", &with(&form, &one_line)).await;
    assert!(unchanged.header("location").contains("Nothing+was+changed"), "{}", unchanged.body);

    database.run(r#"update reveille.jobs set payload = '{"a": 7}', queue = 'mended'"#).await;
    let changed = [("priority", "urgent"), one_line[0]];
    let saved = post(&site, "/jobs/1/edit", &with(&form, &changed)).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let state = r#"select payload = '{"a": 7}' and queue = 'mended' and priority = 0 and key = E' two\nlines '
        from reveille.jobs"#;
    assert_eq!(database.value(state).await, true);

    let refused = post(&site, "/jobs/1/edit", &with(&form, &[("payload", "{\"a\": 9}"), one_line[0]])).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("Somebody else has changed the payload meanwhile"), "{}", refused.body);
    assert!(refused.body.contains("{&quot;a&quot;: 9}"), "what was typed is kept: {}", refused.body);
    assert_eq!(database.value(state).await, true);
    let again = shown(&refused.body, "../../jobs/1/edit");
    let saved = post(&site, "/jobs/1/edit", &with(&again, &[("payload", "{\"a\": 9}"), one_line[0]])).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    assert_eq!(database.value("select payload from reveille.jobs").await, serde_json::json!({"a": 9}));
}

#[tokio::test]
async fn a_job_that_has_died_since_it_was_shown_is_not_retried_without_the_right_to_revive() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind, available_at) values ('k', now() + interval '1 day')").await;
    let careful = of(&database, Viewer::new("ada").access(Access::all().without(Right::Revive)));
    assert!(get(&careful, "/jobs/1").await.body.contains("delayed"));
    let die = "with gone as (delete from reveille.jobs returning *)
        insert into reveille.dead_jobs (
            id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, reason
        )
        select id, queue, kind, payload, priority, 1, 1, 1, available_at, created_at, 'failed' from gone";
    database.run(die).await;
    let signature = signed(SECRET, "ada", "jobs/1/retry", 0);
    let refused = post(&careful, "/jobs/1/retry", &[("signature", &signature)]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 1);
}

#[tokio::test]
async fn a_paused_queue_among_very_many_can_be_resumed() {
    let database = database().await;
    let many = "insert into reveille.jobs (kind, queue) select 'k', 'busy ' || n from generate_series(1, 250) as n;
        select reveille.pause('idle')";
    database.run(many).await;
    let site = site(&database);
    let queue = get(&site, "/queue?name=idle").await.body;
    assert!(queue.contains("paused") && queue.contains("action=\"queue/resume\""), "{queue}");
    let overview = get(&site, "/").await.body;
    assert!(overview.contains("<strong>queue idle</strong>"), "{overview}");
    let form = shown(&overview, "resume");
    let resumed = post(&site, "/resume", &with(&form, &[])).await;
    assert_eq!(resumed.status, StatusCode::SEE_OTHER, "{}", resumed.body);
    assert!(!get(&site, "/queue?name=idle").await.body.contains("queue/resume"));
}

#[tokio::test]
async fn a_form_has_a_bounded_size_and_a_bounded_number_of_fields() {
    let database = database().await;
    let site = site(&database);
    let many: Vec<(String, String)> = (0..65).map(|n| (format!("f{n}"), String::new())).collect();
    let refused = post(&site, "/queue/pause", &with(&many, &[])).await;
    assert!(refused.status.is_client_error() && refused.body.contains("at most 64 fields"), "{}", refused.body);
    let large = "x".repeat(100_000);
    let status = post(&site, "/queue/pause", &[("name", &large)]).await.status;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let payload = format!("\"{large}\"");
    let signature = signed(SECRET, "ada", "enqueue", 0);
    let fields = [("signature", signature.as_str()), ("kind", "k"), ("queue", "q"), ("payload", &payload)];
    let fields = [&fields[..], &[("priority", "normal"), ("max_attempts", "5"), ("once", "0123456789abcdef")]].concat();
    let added = post(&site, "/enqueue", &fields).await;
    assert_eq!(added.status, StatusCode::SEE_OTHER, "{}", added.body);
}

#[tokio::test]
async fn only_a_form_keeps_a_page_without_script_from_loading_again() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind, queue) values ('k', 'a data-still> data-keep>')").await;
    let site = site(&database);
    assert!(get(&site, "/").await.body.contains("http-equiv=\"refresh\""));
    for page in ["/jobs", "/jobs/1/edit", "/queue?name=q"] {
        let body = get(&site, page).await.body;
        assert!(!body.contains("http-equiv"), "{page}: {body}");
    }
}
