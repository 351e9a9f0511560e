//! The dashboard in a real browser, inside an application with its own login.

mod browser;
mod site;

use browser::{Browser, Look};
use site::{HOSTILE, Site};

/// The pages, by the names of their pictures.
const PAGES: [(&str, &str); 30] = [
    ("overview", ""),
    ("queue", "queue?name=mail"),
    ("queue-week", "queue?name=mail&time=week"),
    ("jobs", "jobs"),
    ("jobs-failing", "jobs?state=failing"),
    ("jobs-completed", "jobs?state=completed&sort=finished"),
    ("job-running", "jobs/RUNNING"),
    ("job-dead", "jobs/DEAD"),
    ("job-completed", "jobs/COMPLETED"),
    ("job-blocked", "jobs/BLOCKED"),
    ("job-steps", "jobs/STEPPING"),
    ("job-edit", "jobs/DEAD/edit"),
    ("dead", "dead"),
    ("dead-group", "dead/group?queue=mail&kind=send_welcome&reason=failed"),
    ("dead-purge", "dead/purge?queue=mail&kind=send_welcome&reason=failed"),
    ("all-that-match", "bulk?do=cancel&queue=billing"),
    ("workflows", "workflows"),
    ("workflow-stalled", "workflows/1"),
    ("workflow-running", "workflows/2"),
    ("workflow-large", "workflows/3"),
    ("kinds", "kinds"),
    ("workers", "workers"),
    ("worker", "workers/7001"),
    ("schedules", "schedules"),
    ("schedule", "schedule?name=nightly"),
    ("schedule-remove", "schedule/remove?name=nightly"),
    ("enqueue", "enqueue?kind=send_welcome"),
    ("actions", "actions"),
    ("action", "actions/1"),
    ("nothing", "jobs?queue=empty"),
];

/// The pages that are nothing but a form to change something.
const FORMS: [&str; 5] = ["job-edit", "enqueue", "all-that-match", "dead-purge", "schedule-remove"];

const PHONE: Look = Look { width: 390, is_dark: false };
const LOOKS: [Look; 4] = [
    Look { width: 1280, is_dark: false },
    Look { width: 1280, is_dark: true },
    PHONE,
    Look { width: 390, is_dark: true },
];

#[tokio::test(flavor = "multi_thread")]
async fn each_page_is_sound_at_each_width_in_light_and_dark() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    let mut faults = Vec::new();
    for look in LOOKS {
        browser.look(look).await;
        for (name, page) in PAGES {
            browser.open(&site.page(page)).await;
            browser.find("main h1").await;
            faults.extend(browser.faults().await);
            browser.picture(name, look).await;
            browser.look(look).await;
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_shows_what_a_person_on_call_needs() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    browser.look(PHONE).await;
    for (page, texts) in [
        ("", &["Ready", "Delayed", "Running", "Oldest ready", "Dead", "Failed", "1 stalled"][..]),
        ("jobs?state=failing", &["call_webhook", "mail", "2 (2 of 5 failed)", "the attempt took longer than 30 s"]),
        ("jobs?key=customer-3", &["charge_card", "key customer-3", "billing"]),
        ("dead", &["451 greylisted", "First died", "Last died"]),
        ("workers", &["web-1", "mail 4/8", "0.1.0"]),
        ("kinds", &["Wait p95", "Run p50", "Run p95", "Pause"]),
        ("workflows", &["onboard", "stalled", "Blocked", "Completed"]),
        ("workflows/1", &["after any end", "Result"]),
        ("schedules", &["build_report", "Last tick", "Next tick"]),
    ] {
        browser.open(&site.page(page)).await;
        browser.find("main h1").await;
        for text in texts {
            browser.wait_for(text).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_stays_up_to_date_and_keeps_what_is_typed() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    browser.open(&site.page("jobs?kind=later")).await;
    browser.fill("input[name=key]", "half a wo").await;
    browser.wait_for("live").await;
    let id = site.enqueue("later", "'{}'").await;
    browser.wait_for(&id.to_string()).await;
    let typed = browser.find("input[name=key]").await.prop("value").await.unwrap();
    assert_eq!(typed.as_deref(), Some("half a wo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stay_where_the_pointer_is() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    let first = site.enqueue("later", "'{}'").await;
    browser.open(&site.page("jobs?kind=later")).await;
    browser.wait_for("live").await;
    browser.point_at("td.acts button").await;
    let second = site.enqueue("later", "'{}'").await;
    browser.wait_for("held while you point at a row").await;
    assert!(!browser.text().await.contains(&second.to_string()));
    browser.point_at("h1").await;
    browser.wait_for(&second.to_string()).await;
    assert!(browser.text().await.contains(&first.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_retried_cancelled_edited_and_run_again_by_clicks() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;

    browser.open(&site.page(&format!("jobs/{}", site.dead))).await;
    browser.click("Edit").await;
    browser.fill("textarea[name=payload]", "{\"user_id\": 77}").await;
    browser.fill("input[name=timeout]", "soon").await;
    browser.click("Save").await;
    browser.wait_for("Nothing was changed").await;
    let kept = browser.find("textarea[name=payload]").await.prop("value").await.unwrap();
    assert_eq!(kept.as_deref(), Some("{\"user_id\": 77}"));
    browser.fill("input[name=timeout]", "5 minutes").await;
    browser.click("Save").await;
    browser.wait_for("It stays dead until it is revived").await;
    browser.wait_for("77").await;
    browser.click("Revive").await;
    browser.wait_for("is revived").await;
    browser.click("Cancel").await;
    browser.wait_for("is cancelled").await;
    browser.click("Run again").await;
    browser.wait_for(&format!("does what job {} did", site.dead)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_paused_set_and_resumed_by_clicks() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    browser.open(&site.page("")).await;
    browser.click("mail").await;
    browser.click("Pause").await;
    browser.wait_for("The queue is paused").await;
    browser.fill("input[name=max_running]", "7").await;
    browser.click("Save").await;
    browser.wait_for("The settings are saved").await;
    assert_eq!(site.text("select max_running::text from reveille.queues where name = 'mail'").await, "7");
    browser.click("Resume").await;
    browser.wait_for("The queue is resumed").await;
    assert_eq!(browser.find("input[name=max_running]").await.prop("value").await.unwrap().as_deref(), Some("7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_followed_repaired_and_cancelled_by_clicks() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    browser.open(&site.page("workflows?state=stalled")).await;
    browser.click("onboard").await;
    browser.find(".graph a.dead").await;
    browser.find("#state.live").await;
    // The drawing follows what happens to a job.
    site.id("update reveille.workflow_jobs set outcome = 'cancelled' where name = 'load' returning job").await;
    browser.find(".graph a.cancelled").await;
    site.id("update reveille.workflow_jobs set outcome = 'dead' where name = 'load' returning job").await;
    browser.find(".graph a.dead").await;
    browser.click("Revive dead jobs").await;
    browser.wait_for("1 dead job revived.").await;
    browser.click("Cancel…").await;
    browser.click("Cancel the workflow").await;
    browser.wait_for("is being cancelled").await;
    assert_eq!(site.text("select state from reveille.workflows where id = 1").await, "cancelling");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_action_works_without_script() {
    let (site, browser) = (Site::start().await, Browser::without_script().await);
    site.log_in(&browser, "ada", "lovelace").await;
    browser.open(&site.page("jobs?state=dead")).await;
    browser.find(&format!("a[href$='jobs/{}']", site.dead)).await.click().await.unwrap();
    browser.click("Revive").await;
    browser.wait_for("is revived").await;
    browser.open(&site.page("workflows/1")).await;
    browser.click("Cancel…").await;
    browser.click("Cancel the workflow").await;
    browser.wait_for("is being cancelled").await;
    browser.open(&site.page("queue?name=mail")).await;
    browser.click("Pause").await;
    browser.wait_for("The queue is paused").await;
    browser.open(&site.page("enqueue")).await;
    browser.fill("input[name=kind]", "by_hand").await;
    browser.click("Enqueue").await;
    browser.wait_for("by_hand").await;
    let enqueued = site.text("select count(*)::text from reveille.jobs where kind = 'by_hand'").await;
    assert_eq!(enqueued, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_change_anything_sees_no_button_for_it() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "guest", "guest").await;
    for (_, page) in PAGES.into_iter().filter(|(name, _)| !FORMS.contains(name)) {
        browser.open(&site.page(page)).await;
        browser.find("main h1").await;
        assert!(!browser.has("main form[method=post]").await, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_filter_rows_and_buttons() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    browser.open(&site.page("jobs?kind=delayed_one")).await;
    browser.find("body").await.send_keys("/").await.unwrap();
    let focused = browser.client.active_element().await.unwrap().attr("name").await.unwrap();
    assert_eq!(focused.as_deref(), Some("queue"));
    browser.client.active_element().await.unwrap().send_keys("\u{e00c}").await.unwrap();
    // No row is chosen, so the key acts on none.
    browser.find("body").await.send_keys("c").await.unwrap();
    browser.find("body").await.send_keys("j").await.unwrap();
    let chosen = browser.find("tr.at").await.attr("data-key").await.unwrap();
    // The chosen row stays the same when another one comes before it.
    let later = "insert into reveille.jobs (kind, available_at) values ('delayed_one', now() + interval '1 day')
        returning id";
    let later = site.id(later).await;
    browser.wait_for(&later.to_string()).await;
    assert_eq!(browser.find("tr.at").await.attr("data-key").await.unwrap(), chosen);
    browser.find("body").await.send_keys("r").await.unwrap();
    browser.wait_for("is due now").await;
    browser.open(&site.page("jobs?kind=delayed_one")).await;
    browser.find("body").await.send_keys("j\u{e007}").await.unwrap();
    browser.wait_for("Life").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tab_key_reaches_each_link_button_and_field() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    let pages = ["", "jobs?kind=delayed_one", "jobs/DEAD", "queue?name=mail", "kinds", "schedule?name=nightly"];
    for page in pages {
        browser.open(&site.page(page)).await;
        browser.find("main h1").await;
        assert_eq!(browser.unreached_by_tab().await, Vec::<String>::new(), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_from_jobs_runs_no_script_and_makes_no_markup() {
    let (site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    let id = site.enqueue_hostile().await;
    let workflow = site.enqueue_hostile_workflow().await;
    let of_ids = [format!("jobs/{id}"), format!("jobs/{id}/edit"), format!("workflows/{workflow}")];
    for page in ["", "jobs", "kinds", "workflows"].map(str::to_owned).into_iter().chain(of_ids) {
        browser.open(&site.page(&page)).await;
        browser.find("main h1").await;
        assert!(!browser.has("main img, main script, main iframe").await, "{page}");
        let title = browser.client.title().await.unwrap();
        assert!(!title.contains("taken over"), "{page}: a script has run");
    }
    browser.open(&site.page(&format!("jobs/{id}"))).await;
    browser.wait_for(HOSTILE).await;
    assert_eq!(browser.faults().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_when_it_is_not_live_and_comes_back() {
    let (mut site, browser) = (Site::start().await, Browser::start().await);
    site.log_in(&browser, "ada", "lovelace").await;
    browser.open(&site.page("jobs")).await;
    browser.find("#state.live").await;
    site.stop_serving().await;
    browser.find("#state.lost").await;
    site.serve_again().await;
    browser.find("#state.live").await;
}
