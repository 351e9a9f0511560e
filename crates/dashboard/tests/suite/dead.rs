//! The pages of dead jobs: groups, errors, reviving and purging.

use axum::http::StatusCode;
use std::time::Duration;

use reveille::Database;
use reveille::dev::Network;
use reveille_dashboard::{Access, Dashboard, Field, Right, Viewer};
use serde_json::json;

use crate::browser::{Browser, form, with};
use crate::harness::{TestDatabase, database, proxy};

/// Nine dead jobs of mail: six whose errors begin with `refused`, and three whose errors have that line as their
/// second one. And one of reports.
async fn with_dead_jobs() -> TestDatabase {
    let database = database().await;
    database
        .run(
            "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
                available_at, created_at, reason, errors)
            select n, case when n = 10 then 'reports' else 'mail' end, 'welcome', '{}', 2, 1, 1, 1, now(), now(),
                'failed',
                jsonb_build_array(jsonb_build_object('error', 'first'), jsonb_build_object('error',
                    case when n % 3 = 0 then E'<b>other\\nrefused' else E'refused\\nat ' || n end))
            from generate_series(1, 10) as n",
        )
        .await;
    database
}

const MAIL: &str = "queue=mail&kind=welcome&reason=failed";

/// Returns the query of the mails whose errors begin with `refused`.
async fn refused(browser: &Browser) -> String {
    let page = browser.page("dead?queue=mail").await;
    let links =
        page.split("href=\"dead/group?").skip(1).map(|link| link.split('"').next().unwrap().replace("&amp;", "&"));
    let of_lines: Vec<String> = links.filter(|link| link.contains("line=")).collect();
    assert_eq!(of_lines.len(), 2, "{page}");
    of_lines[0].clone()
}

/// Sends a form that begins a run, waits until the run has ended, and returns its action, its outcome and its count.
async fn run(
    database: &TestDatabase,
    browser: &Browser,
    action: &str,
    fields: &[(String, String)],
) -> serde_json::Value {
    let answer = browser.post(action, fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let id = answer.leads_to.split("actions/").nth(1).unwrap().split('?').next().unwrap().to_owned();
    database.until(&format!("select ended_at is not null from reveille.actions where id = {id}")).await;
    let row = format!("select jsonb_build_array(action, outcome, done) from reveille.actions where id = {id}");
    database.value(&row).await
}

async fn left(database: &TestDatabase) -> serde_json::Value {
    database.value("select coalesce(jsonb_agg(id order by id), '[]') from reveille.dead_jobs").await
}

#[tokio::test]
async fn dead_jobs_are_grouped_by_the_first_lines_of_their_errors() {
    let database = with_dead_jobs().await;
    let browser = Browser::of(&database);
    let page = browser.page("dead").await;
    for text in
        ["welcome", "failed", "&lt;b&gt;other", "<span class=\"count\">6</span>", "<span class=\"count\">3</span>"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains(">first<"), "only first lines of last errors: {page}");
    let page = browser.page(&format!("dead/group?{}", refused(&browser).await)).await;
    assert!(page.contains("<pre>refused\nat ") && page.contains("6<span class=\"soft\"> of 9"), "{page}");
    assert_eq!(page.matches("<tr data-href").count(), 6, "{page}");
    let chosen = browser.page("dead?queue=mail&kind=welcome&reason=lost").await;
    assert!(chosen.contains("No job is dead that fits"), "{chosen}");
}

#[tokio::test]
async fn a_visitor_sees_and_changes_only_their_queues() {
    let database = with_dead_jobs().await;
    let reports = Browser::of_queues(&database, &["reports"]);
    let page = reports.page("dead").await;
    assert!(page.contains("reports") && !page.contains("mail") && !page.contains("other"), "{page}");
    for page in ["dead/group", "dead/revive", "dead/purge"] {
        assert_eq!(reports.get(&format!("{page}?{MAIL}")).await.status, StatusCode::NOT_FOUND, "{page}");
    }
    let signed = Browser::of(&database).page(&format!("dead/revive?{MAIL}")).await;
    let answer = reports.post("dead/revive", &form(&signed, "dead/revive")).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(left(&database).await, json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
    assert!(reports.page("dead?queue=mail").await.contains("No job is dead that fits"));
}

#[tokio::test]
async fn a_group_of_one_error_is_revived_and_no_other_job() {
    let database = with_dead_jobs().await;
    let browser = Browser::of(&database);
    let ask = format!("dead/revive?{}", refused(&browser).await);
    browser.refuses(&Browser::without(&database, Right::Revive), &ask, "dead/revive", &[]).await;
    let page = browser.page(&ask).await;
    assert!(
        page.contains("Revive 6 dead jobs") && page.contains("data-still") && !page.contains("http-equiv"),
        "{page}"
    );
    // Job 1 is revived and dies again after the number was shown.
    database.run("update reveille.dead_jobs set finished_at = now() + interval '1 second' where id = 1").await;
    assert_eq!(
        run(&database, &browser, "dead/revive", &form(&page, "dead/revive")).await,
        json!(["revive", "done", 5])
    );
    assert_eq!(left(&database).await, json!([1, 3, 6, 9, 10]));
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 5);
}

#[tokio::test]
async fn a_purge_asks_for_the_number() {
    let database = with_dead_jobs().await;
    let browser = Browser::of(&database);
    let ask = format!("dead/purge?{MAIL}");
    browser.refuses(&Browser::without(&database, Right::Purge), &ask, "dead/purge", &[("typed", "9")]).await;
    for typed in ["", "8", "90", "nine"] {
        let answer = browser.submit(&ask, "dead/purge", &[("typed", typed)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{typed:?}");
        let back = browser.page(answer.leads_to.trim_start_matches("../")).await;
        assert!(back.contains("The number is 9. Nothing was purged.") && back.contains("Purge 9 dead jobs"), "{back}");
        let again = with(form(&back, "dead/purge"), &[("typed", "7")]);
        assert!(browser.post("dead/purge", &again).await.leads_to.contains("wrong="));
    }
    // What happens after the question changes neither the number nor the jobs.
    let fields = with(form(&browser.page(&ask).await, "dead/purge"), &[("typed", "9")]);
    database
        .run(
            "update reveille.dead_jobs set id = 101 where id = 1;
            delete from reveille.dead_jobs where id = 2",
        )
        .await;
    assert_eq!(run(&database, &browser, "dead/purge", &fields).await, json!(["purge", "done", 7]));
    assert_eq!(left(&database).await, json!([10, 101]));
    database.run("delete from reveille.dead_jobs where id = 101").await;
    assert!(browser.page(&ask).await.contains("No dead job fits this any more."));
}

#[tokio::test]
async fn a_form_whose_number_or_time_is_made_up_is_refused() {
    let database = with_dead_jobs().await;
    let browser = Browser::of(&database);
    let far = r#"[9223372036854775807,{"secs_since_epoch":99999999999,"nanos_since_epoch":0},7]"#;
    for (action, of) in [("dead/purge", MAIL), ("dead/revive", MAIL), ("dead/purge", &refused(&browser).await)] {
        let fields = form(&browser.page(&format!("{action}?{of}")).await, action);
        let seal = fields.iter().find(|(name, _)| name == "seal").unwrap().1.clone();
        let other = fields.iter().find(|(name, _)| name == "signature").unwrap().1.clone();
        for (start, seal) in [(far, &*seal), (far, &*other), (far, ""), ("[]", &*seal)] {
            let made_up = with(fields.clone(), &[("start", start), ("seal", seal), ("typed", "7")]);
            assert_eq!(browser.post(action, &made_up).await.status, StatusCode::FORBIDDEN, "{start} {seal}");
        }
        // The seal is for one deed and one group.
        let elsewhere = with(fields, &[("reason", "lost"), ("typed", "0")]);
        assert!(browser.post(action, &elsewhere).await.status.is_client_error());
    }
    assert_eq!(database.value("select count(*) from reveille.actions").await, 0);
}

#[tokio::test]
async fn jobs_that_cannot_be_counted_are_purged_after_a_word_and_not_a_number() {
    let database = database().await;
    let more = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, reason)
        select n, 'mail', 'welcome', '{}', 2, 1, 1, 1, now(), now(), 'failed' from generate_series(1, 9000) as n";
    database.run(more).await;
    // Each answer of the server takes 350 ms more, so counting ends before all 9,000 jobs are counted.
    let (proxy, address) = proxy(&database.address).await;
    let far = Database::connect(address).await.unwrap();
    proxy.set(Network::Delay(Duration::from_millis(350)));
    let dashboard = Dashboard::new(far).secret("a secret of the tests").statement_timeout(Duration::from_secs(20));
    let slow = Browser::at(dashboard.authorize(|_| Viewer::new("ada").access(Access::all())).router());
    for (page, action) in
        [(format!("dead/purge?{MAIL}"), "dead/purge"), ("bulk?do=purge&state=dead&queue=mail".to_owned(), "bulk")]
    {
        let mut answer = slow.get(&page).await;
        if action == "bulk" {
            answer = slow.get(answer.leads_to.trim_start_matches("../")).await;
        }
        assert!(
            answer.body.contains(" or more") && answer.body.contains("Type <strong>all</strong> to purge"),
            "{}",
            answer.body
        );
        let fields = form(&answer.body, action);
        let shown = answer.body.split(" or more").next().unwrap().rsplit(|c: char| !c.is_ascii_digit() && c != ',');
        let shown = shown.into_iter().next().unwrap().to_owned();
        proxy.set(Network::Pass);
        for typed in ["", &*shown, "8,999"] {
            let answer = slow.post(action, &with(fields.clone(), &[("typed", typed)])).await;
            assert!(answer.leads_to.contains("wrong="), "{typed}: {}", answer.body);
        }
        assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 9000);
        let purged = run(&database, &slow, action, &with(fields, &[("typed", "all")])).await;
        assert_eq!(purged[1], "done", "{purged}");
        database.run(more).await;
        proxy.set(Network::Delay(Duration::from_millis(350)));
    }
}

#[tokio::test]
async fn a_form_acts_on_the_jobs_that_it_has_counted() {
    let database = with_dead_jobs().await;
    let browser = Browser::of(&database);
    let ask = format!("dead/revive?{}", refused(&browser).await);
    let fields = form(&browser.page(&ask).await, "dead/revive");
    database
        .run(
            "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
                available_at, created_at, reason, errors, finished_at)
            select 100 + n, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
                reason, errors, finished_at
            from reveille.dead_jobs, generate_series(1, 2000) as n where id = 1",
        )
        .await;
    assert_eq!(run(&database, &browser, "dead/revive", &fields).await, json!(["revive", "done", 6]));
    let page = browser.page(&ask).await;
    assert!(page.contains("Revive 2,000 dead jobs"), "{page}");
    let all = form(&page, "dead/revive");
    assert_eq!(run(&database, &browser, "dead/revive", &all).await, json!(["revive", "done", 2000]));
}

#[tokio::test]
async fn redacted_errors_are_hidden_in_pages_and_addresses() {
    let database = with_dead_jobs().await;
    let browser = Browser::redacted(&database, Field::Error);
    let group = refused(&browser).await;
    let pages =
        ["dead".to_owned(), format!("dead/group?{MAIL}"), format!("dead/group?{group}"), format!("dead/purge?{group}")];
    for page in pages {
        let body = browser.page(&page).await;
        assert!(body.contains("hidden") && !body.contains("refused") && !body.contains("other"), "{page}: {body}");
    }
}
