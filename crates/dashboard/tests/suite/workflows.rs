//! The pages of workflows: the list, the drawing and the table of one, and what cancels and retries it.

use axum::http::StatusCode;
use reveille::{Context, Job, Outcome};
use reveille_dashboard::{Access, Dashboard, Field, Right, Viewer};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::browser::Browser;
use crate::harness::{TestDatabase, database, start, worker};
use crate::web::PAGE_SIZE;

/// A job whose only attempt ends as it is told, with a result.
#[derive(Serialize, Deserialize)]
struct Act(String);

impl Job for Act {
    const KIND: &'static str = "act";
    const MAX_ATTEMPTS: u32 = 1;
}

async fn act(job: Act, _: Context) -> Outcome {
    match job.0.as_str() {
        "dead" => Outcome::Dead("told to".into()),
        text => Outcome::CompleteWith(reveille::job::Payload::encode(&json!({ "told": text })).unwrap()),
    }
}

/// Workflow 1, which is stalled: `debit` is dead and made up for by `refund`; `report` and `notify` wait.
const TRANSFER: &str = r#"select reveille.enqueue_workflow('transfer', '[
        {"name": "check", "kind": "act", "payload": "good"},
        {"name": "debit", "kind": "act", "payload": "dead", "max_attempts": 1, "after": ["check"]},
        {"name": "refund", "kind": "act", "payload": "back", "after": ["debit"], "fires_on": "dead"},
        {"name": "report", "kind": "act", "payload": "", "after": ["debit", "check"]},
        {"name": "notify", "kind": "act", "payload": "", "after": [{"name": "report", "fires_on": "any"}]}
    ]', unique_key => 'customer 42', input => '{"customer": 42}')"#;
/// Workflow 2, which completes.
const NIGHTLY: &str =
    r#"select reveille.enqueue_workflow('nightly', '[{"name": "only", "kind": "act", "payload": "x"}]')"#;

async fn ended() -> TestDatabase {
    let database = database().await;
    database.run(TRANSFER).await;
    database.run(NIGHTLY).await;
    let running = start(worker(&database).handle(act));
    database.until("select array_agg(state order by id) = '{stalled,completed}' from reveille.workflow_status").await;
    running.stop().await;
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_are_listed_by_state_and_name() {
    let database = ended().await;
    let browser = Browser::of(&database);
    let all = browser.page("workflows").await;
    assert!(all.contains("workflows/1\"") && all.contains("workflows/2\""), "{all}");
    assert!(all.contains("key customer 42") && all.contains(">stalled<"), "{all}");
    assert!(all.find("nightly") < all.find("transfer"), "newest first: {all}");
    for (query, shows, lacks) in [
        ("state=stalled", "workflows/1\"", "workflows/2\""),
        ("name=nightly", "workflows/2\"", "workflows/1\""),
        ("before=2", "workflows/1\"", "workflows/2\""),
    ] {
        let page = browser.page(&format!("workflows?{query}")).await;
        assert!(page.contains(shows) && !page.contains(lacks), "{query}: {page}");
    }
    assert!(browser.page("workflows?name=nightly&state=stalled").await.contains("No workflow passes the filter."));
    assert!(browser.page("workflows?state=odd").await.contains("No workflow has the state &quot;odd&quot;."));
    assert!(browser.page("workflows?before=x").await.contains("is no id of a workflow"));
}

#[tokio::test]
async fn a_list_of_many_workflows_has_pages_of_50() {
    let database = database().await;
    let many = "insert into reveille.workflows (name) select 'flow ' || n % 2 from generate_series(1, 120) as n";
    database.run(many).await;
    let browser = Browser::of(&database);
    let first = browser.page("workflows?name=flow+1").await;
    assert_eq!(first.matches("<tr data-href").count(), 50, "{first}");
    assert!(first.contains("workflows?name=flow+1&amp;before=21"), "{first}");
    let second = browser.page("workflows?name=flow+1&before=21").await;
    assert!(second.contains("The list ends here.") && second.matches("<tr data-href").count() == 10, "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_drawn_in_layers_with_states_and_edges() {
    let database = ended().await;
    let page = Browser::of(&database).page("workflows/1").await;
    let drawing = page.split("<svg aria-hidden=\"true\" width").last().unwrap().split("</figure>").next().unwrap();
    for (name, state) in [("check", "completed"), ("debit", "dead"), ("refund", "completed"), ("notify", "blocked")] {
        assert!(drawing.contains(&format!("<title>{name}: {state}</title>")), "{name}: {drawing}");
    }
    let x = |name: &str| {
        let before = drawing.split(&format!("<title>{name}: ")).next().unwrap();
        before.rsplit("translate(").next().unwrap().split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(x("check") < x("debit") && x("debit") < x("refund") && x("refund") == x("report"), "{drawing}");
    assert!(x("report") < x("notify"), "{drawing}");
    for class in ["edge on-completed", "edge on-dead", "edge on-any"] {
        assert!(drawing.contains(class), "{class}: {drawing}");
    }
    assert!(!page.contains("edge on-cancelled"), "the legend has what the drawing has: {page}");
    for text in ["once dead", "after any end", "The workflow is stalled", "{&quot;told&quot;: &quot;good&quot;}"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(page.contains("&quot;customer&quot;: 42"), "the input: {page}");
    let ended = Browser::of(&database).page("workflows/2").await;
    assert!(ended.contains("&quot;told&quot;: &quot;x&quot;"), "the result: {ended}");
    assert_eq!(Browser::of(&database).get("workflows/9").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_edge_that_passes_a_layer_has_a_lane_beside_its_jobs() {
    let database = database().await;
    database.run(TRANSFER).await;
    let page = Browser::of(&database).page("workflows/1").await;
    // From `check` to `report`, past `debit`.
    let edges = page.split("edge on-completed\" d=\"").last().unwrap().split('"').next().unwrap();
    assert_eq!(edges.matches("h156").count(), 1, "{edges}");
    let lane = edges.split("h156").next().unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    let boxes = page.split("transform=\"translate(216 ").skip(1);
    let debit: f64 = boxes.last().unwrap().split(')').next().unwrap().parse().unwrap();
    assert!(lane < debit || lane > debit + 42.0, "the lane at {lane} crosses the box at {debit}");
}

#[tokio::test]
async fn a_large_workflow_has_a_table_with_pages_and_no_drawing() {
    let database = database().await;
    let large = "insert into reveille.workflows (name, jobs, sealed) values ('batch', 201, true);
        insert into reveille.workflow_jobs (job, workflow, name)
        select n, 1, lpad(n::text, 3, '0') from generate_series(1, 201) as n";
    database.run(large).await;
    let browser = Browser::of(&database);
    let first = browser.page("workflows/1").await;
    assert!(!first.contains("figure class=\"graph\"") && first.matches("<tr data-href").count() == 50, "{first}");
    assert!(first.contains("workflows/1?after=050"), "{first}");
    let last = browser.page("workflows/1?after=200").await;
    assert!(last.contains("jobs/201\"") && last.contains("The list ends here."), "{last}");
    database.run("update reveille.workflows set jobs = 60; delete from reveille.workflow_jobs where job > 60").await;
    let browser = Browser::of(&database);
    let drawn = browser.page("workflows/1?page=2").await;
    assert!(drawn.contains("Page 2 of 2") && drawn.matches("<tr data-href").count() == 10, "{drawn}");
    assert_eq!(drawn.matches("<title>").count(), 61, "all jobs are drawn: {drawn}");
    assert!(drawn.len() < PAGE_SIZE, "{} bytes", drawn.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_jobs_of_a_workflow_are_revived_but_not_if_made_up_for() {
    let database = ended().await;
    let browser = Browser::of(&database);
    let weak = Browser::without(&database, Right::Revive);
    browser.refuses(&weak, "workflows/1", "workflows/1/retry", &[]).await;
    let answer = browser.submit("workflows/1", "workflows/1/retry", &[]).await;
    assert!(answer.leads_to.contains("workflows/1?notice="), "{}", answer.leads_to);
    let notice = answer.notice();
    assert!(notice.starts_with("0 dead jobs revived. 1 dead job stayed dead (debit): a job was started"), "{notice}");
    assert_eq!(database.value("select state from reveille.workflow_status where id = 1").await, "stalled");
    let actions = browser.page("actions").await;
    assert!(actions.contains("retry workflow") && actions.contains("workflows/1\""), "{actions}");
    assert!(browser.page("workflows/1").await.contains(">retry workflow</a> by ada (dashboard) "));
    database.run("delete from reveille.dependencies where fires_on = 'dead'").await;
    let notice = browser.submit("workflows/1", "workflows/1/retry", &[]).await.notice();
    assert_eq!(notice, "1 dead job revived.");
    assert!(!browser.page("workflows/2").await.contains("/retry\""), "there is no dead job");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_cancelled_after_a_question_and_once() {
    let database = ended().await;
    let browser = Browser::of(&database);
    let weak = Browser::without(&database, Right::Cancel);
    browser.refuses(&weak, "workflows/1", "workflows/1/cancel", &[]).await;
    let form = crate::browser::form(&browser.page("workflows/1").await, "workflows/1/cancel");
    assert_eq!(browser.post("workflows/1/cancel", &form).await.notice(), "Workflow 1 is being cancelled.");
    let page = browser.page("workflows/1").await;
    assert!(page.contains("Workers are cancelling its jobs.") && !page.contains("/cancel\""), "{page}");
    assert!(!browser.page("actions").await.contains("no change"));
    database.run("update reveille.workflows set state = 'cancelled', finished_at = now() where id = 1").await;
    let notice = browser.post("workflows/1/cancel", &form).await.notice();
    assert_eq!(notice, "Workflow 1 was not cancelled: it has ended, and is cancelled.");
    let actions = browser.page("actions").await;
    assert!(actions.contains("no change") && actions.contains("it had ended"), "{actions}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_of_some_queues_sees_no_workflow() {
    let database = ended().await;
    let browser = Browser::of_queues(&database, &["default"]);
    for page in ["workflows", "workflows/1"] {
        assert_eq!(browser.get(page).await.status, StatusCode::NOT_FOUND, "{page}");
    }
    let job = browser.page("jobs/4").await;
    assert!(!job.contains("workflows") && job.contains("Waits for"), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_workflow_are_shown_with_the_right_and_as_the_application_redacts_them() {
    let database = ended().await;
    let page = Browser::without(&database, Right::SeePayloads).page("workflows/1").await;
    assert!(page.contains("You may not see payloads.") && !page.contains("customer&quot;"), "{page}");
    assert!(!page.contains("told"), "{page}");
    let redacted = Dashboard::new(database.database.clone())
        .redact(|_, _, _| {})
        .redact_workflow(|workflow, field, value| {
            if workflow.name == "transfer" && matches!(field, Field::Input | Field::Result) {
                *value = json!("hidden");
            }
        })
        .authorize(|_| Viewer::new("ada").access(Access::all()));
    let browser = Browser::at(redacted.router());
    let page = browser.page("workflows/1").await;
    assert!(page.contains(">redacted<") && page.contains("&quot;hidden&quot;") && !page.contains("told"), "{page}");
    assert!(browser.page("workflows/2").await.contains("told"));
}
