//! The pages of schedules: what they show, and what they change.

use axum::http::StatusCode;
use reveille_dashboard::Right;

use crate::browser::Browser;
use crate::harness::{TestDatabase, database};

async fn with_schedules() -> TestDatabase {
    let database = database().await;
    database
        .run(
            "select reveille.schedule('nightly & more', kind => 'report', queue => 'reports', cron => '0 3 * * *',
                time_zone => 'Europe/Berlin');
            select reveille.schedule('poll', kind => 'poll', queue => 'imports', every => '90 seconds');
            update reveille.schedules set next_at = now() - interval '2 minutes' where name = 'poll';
            update reveille.schedules set next_at = '2030-07-01 01:00Z', error = 'hour <25>' where name <> 'poll'",
        )
        .await;
    database
}

const NIGHTLY: &str = "schedule?name=nightly+%26+more";

#[tokio::test]
async fn the_list_shows_timings_and_what_is_wrong() {
    let database = with_schedules().await;
    let page = Browser::of(&database).page("schedules").await;
    for text in ["nightly &amp; more", "0 3 * * *", "Europe/Berlin", "every 1 min 30 s", "late", "hour &lt;25&gt;"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let page = Browser::of_queues(&database, &["imports"]).page("schedules").await;
    assert!(page.contains("poll") && !page.contains("nightly"), "{page}");
    let page = Browser::of_queues(&database, &["imports"]).page(NIGHTLY).await;
    assert!(page.contains("There is no such schedule") && !page.contains("Berlin"), "{page}");
}

#[tokio::test]
async fn the_next_ticks_are_in_the_zone_of_the_schedule_and_in_utc() {
    let database = with_schedules().await;
    let browser = Browser::of(&database);
    let page = browser.page(NIGHTLY).await;
    assert!(page.contains("Mon 2030-07-01 03:00:00 CEST") && page.contains("2030-07-01T01:00:00.000Z"), "{page}");
    assert!(page.contains("Wed 2030-07-10 03:00:00 CEST") && !page.contains("2030-07-11"), "ten ticks: {page}");
    let page = browser.page("schedule?name=poll").await;
    assert_eq!(page.matches("<tr data-key").count(), 10, "{page}");
}

#[tokio::test]
async fn a_schedule_is_paused_resumed_triggered_and_removed() {
    let database = with_schedules().await;
    let browser = Browser::of(&database);
    browser.refuses(&Browser::without(&database, Right::Pause), NIGHTLY, "schedule/pause", &[]).await;
    browser.refuses(&Browser::without(&database, Right::Enqueue), NIGHTLY, "schedule/trigger", &[]).await;
    let paused = "select count(*) from reveille.schedules where paused_at is not null and queue = 'reports'";
    assert!(browser.submit(NIGHTLY, "schedule/pause", &[]).await.notice().contains("is paused"));
    assert_eq!(database.value(paused).await, 1);
    let resumed = browser.submit("schedules", "schedule/resume", &[]).await;
    assert_eq!(resumed.leads_to.split('?').next(), Some("../schedules"));
    assert_eq!(database.value(paused).await, 0);
    let triggered = browser.submit(NIGHTLY, "schedule/trigger", &[]).await.notice();
    let id = database.value("select id from reveille.jobs where kind = 'report'").await;
    assert_eq!(triggered, format!("nightly & more has enqueued job {id}."));
    let ask = NIGHTLY.replace("schedule?", "schedule/remove?");
    browser.refuses(&Browser::without(&database, Right::Settings), &ask, "schedule/remove", &[]).await;
    assert!(browser.submit(&ask, "schedule/remove", &[]).await.notice().contains("is removed"));
    assert_eq!(database.value("select count(*) from reveille.schedules").await, 1);
    assert_eq!(browser.get(&ask).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_schedule_of_a_hidden_queue_is_left_alone() {
    let database = with_schedules().await;
    let signed = Browser::of(&database).page(NIGHTLY).await;
    let weak = Browser::of_queues(&database, &["imports"]);
    for action in ["schedule/pause", "schedule/trigger"] {
        let answer = weak.post(action, &crate::browser::form(&signed, action)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{action}");
    }
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
    assert_eq!(database.value("select count(*) from reveille.schedules where paused_at is not null").await, 0);
}
