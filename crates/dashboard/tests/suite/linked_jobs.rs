//! The page of a job that waits for others, that others wait for, or that has recorded steps.

use crate::browser::Browser;
use crate::harness::database;

#[tokio::test]
async fn a_blocked_job_has_a_page_that_says_what_it_waits_for() {
    let database = database().await;
    database.run("select reveille.enqueue(kind => 'draw'); select reveille.enqueue(kind => 'paint')").await;
    let blocked = "select reveille.enqueue_after(array[1, 2], kind => 'mail', fires_on => 'any', queue => 'out')";
    database.run(blocked).await;
    let browser = Browser::of(&database);
    let mail = browser.page("jobs/3").await;
    assert!(mail.contains(">blocked<") && mail.contains("Blocked: it waits for other jobs"), "{mail}");
    assert!(mail.contains("Waits for") && mail.contains("draw") && mail.contains("paint"), "{mail}");
    assert!(mail.contains("after any end") && mail.contains(">open<") && mail.contains("jobs/2\""), "{mail}");
    assert!(mail.contains("jobs/3/cancel\""), "a blocked job can be cancelled: {mail}");
    let draw = browser.page("jobs/1").await;
    assert!(draw.contains("Jobs that wait for it") && draw.contains("jobs/3\""), "{draw}");
    assert!(browser.page("jobs?state=blocked").await.contains("jobs/3\""));
    assert!(browser.page("queue?name=out").await.contains("Blocked"));
    assert!(browser.page("").await.contains("1 blocked"));
}

#[tokio::test]
async fn a_job_of_a_workflow_has_a_page_once_its_history_is_gone() {
    let database = database().await;
    let gone = r#"select reveille.enqueue_workflow('nightly',
            '[{"name": "load", "kind": "load"}, {"name": "sum", "kind": "sum", "after": ["load"]}]');
        delete from reveille.jobs;
        update reveille.workflow_jobs set outcome = 'completed', ended_at = now() where name = 'load'"#;
    database.run(gone).await;
    let browser = Browser::of(&database);
    let load = browser.page("jobs/1").await;
    assert!(
        load.contains("history is gone") && load.contains("workflows/1\"") && load.contains(">completed<"),
        "{load}"
    );
    assert!(load.contains("Jobs that wait for it") && load.contains("jobs/2\""), "{load}");
    let sum = browser.page("jobs/2").await;
    assert!(sum.contains("sum of") && sum.contains("nightly 1"), "{sum}");
    assert_eq!(Browser::of_queues(&database, &["default"]).get("jobs/1").await.status, 404);
    assert_eq!(browser.get("jobs/99").await.status, 404);
}

#[tokio::test]
async fn a_job_shows_its_steps_and_what_it_sleeps_or_waits_for() {
    let database = database().await;
    let steps = r#"insert into reveille.jobs (kind, available_at) values ('checkout', now() + interval '30 days');
        insert into reveille.steps (job, name, kind, value, until, outcome, attempt, reserved_at, recorded_at)
        values
            (1, 'charge', 'step', '{"charge": "ch_1"}', null, 'done', 1, now(), now() - interval '3 hours'),
            (1, 'cooling off', 'sleep', null, now(), 'done', 1, now(), now() - interval '2 hours'),
            (1, 'signed:7', 'wait', null, now(), 'timed_out', 2, now(), now() - interval '1 hour'),
            (1, 'paid:7', 'wait', null, now() + interval '30 days', null, 3, now(), now())"#;
    database.run(steps).await;
    let page = Browser::of(&database).page("jobs/1").await;
    assert!(page.contains("Waits for the event paid:7; goes on without it "), "{page}");
    for text in ["{&quot;charge&quot;: &quot;ch_1&quot;}", ">slept<", ">event did not come<", ">waits for the event<"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(page.find("cooling off") < page.find("signed:7"), "oldest first: {page}");
    let hidden = Browser::without(&database, reveille_dashboard::Right::SeePayloads).page("jobs/1").await;
    assert!(hidden.contains("charge") && !hidden.contains("ch_1"), "{hidden}");
}
