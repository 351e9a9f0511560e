//! The command shows and changes workflows, and enqueues jobs that wait for others.

use serde_json::{Value, json};

use crate::cli::{command, reveille, run};
use crate::exec::work;
use crate::harness::{TestDatabase, database};

/// Workflow 1: `extract` is completed, `load` runs, `report` waits for both.
async fn filled() -> TestDatabase {
    let database = database().await;
    let rows = r#"select reveille.enqueue_workflow('onboard', '[
            {"name": "extract", "kind": "extract"},
            {"name": "load", "kind": "load", "after": ["extract"]},
            {"name": "undo", "kind": "undo", "after": ["load"], "fires_on": "dead"},
            {"name": "report", "kind": "report", "after": ["extract", {"name": "load"}], "fires_on": "any"}
        ]');
        with ended as (delete from reveille.jobs where id = 1 returning id)
        select reveille.note_end(id, 'completed') from ended;
        select reveille.apply_linked_ends();
        update reveille.jobs set reserved_at = now(), reserved_by = 7, attempts = 1 where id = 2"#;
    database.run(rows).await;
    database
}

fn shown(database: &TestDatabase, locale: &str, arguments: &[&str]) -> String {
    let mut command = command(arguments);
    command.env("DATABASE_URL", &database.address).env_remove("LC_CTYPE").env_remove("LANG").env("LC_ALL", locale);
    let done = run(command, "");
    assert_eq!((done.code, &*done.err), (0, ""), "{arguments:?}");
    done.out
}

#[tokio::test]
async fn a_workflow_is_shown_as_a_graph_in_layers() {
    let database = filled().await;
    let expected = "workflow 1 onboard: running, 4 jobs: 1 live, 2 blocked, 1 completed\n\
        ✓ extract\n\
        ▶ load    after extract\n\
        · undo    after load (dead)\n\
        · report  after extract, load (any end)\n";
    assert_eq!(shown(&database, "C.UTF-8", &["workflow", "show", "1"]), expected);
    let ascii = shown(&database, "C", &["workflow", "show", "1", "--limit", "2"]);
    assert_eq!(ascii.split_once('\n').unwrap().1, "+ extract\n> load  after extract\nand 2 more\n");
}

#[tokio::test]
async fn a_workflow_is_shown_as_json_with_its_jobs() {
    let database = filled().await;
    let done = reveille(&database, &["workflow", "show", "1", "--json"]);
    let workflow = &done.json()[0];
    assert_eq!((&workflow["state"], &workflow["jobs"]), (&json!("running"), &json!(4)));
    let names: Vec<&Value> = workflow["job_list"].as_array().unwrap().iter().map(|job| &job["name"]).collect();
    assert_eq!(names, ["extract", "load", "undo", "report"]);
    assert_eq!(workflow["job_list"][3]["prerequisites"], json!(["extract", "load"]));
}

#[tokio::test]
async fn a_large_workflow_is_shown_in_part() {
    let database = database().await;
    let rows = "select reveille.enqueue_workflow('large', (
            select jsonb_agg(jsonb_build_object('name', lpad(n::text, 5, '0'), 'kind', 'k'))
                || jsonb_build_array(jsonb_build_object(
                    'name', '00000', 'kind', 'k', 'fires_on', 'any',
                    'after', (select jsonb_agg(lpad(n::text, 5, '0')) from generate_series(1, 1999) as n)))
            from generate_series(1, 1999) as n
        ))";
    database.run(rows).await;
    let shown = shown(&database, "C", &["workflow", "show", "1"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "workflow 1 large: running, 2,000 jobs: 1,999 live, 1 blocked");
    assert_eq!((lines.len(), lines[1], lines[201]), (202, "o 00001", "and 1,800 more"));
    let callback = "select name from reveille.workflow_job_status where cardinality(prerequisites) = 100";
    assert_eq!(database.value(callback).await, "00000");
}

#[tokio::test]
async fn workflows_are_listed_cancelled_and_retried() {
    let database = filled().await;
    let listed = reveille(&database, &["workflow", "list", "--state", "running", "--json"]).json();
    assert_eq!((listed.len(), &listed[0]["name"], &listed[0]["blocked"]), (1, &json!("onboard"), &json!(2)));
    assert_eq!(reveille(&database, &["workflow", "list", "--name", "other"]).out.lines().count(), 1);
    let retried = reveille(&database, &["workflow", "retry", "1"]);
    assert_eq!((retried.code, &*retried.err), (1, "workflow 1 has no dead job\n"));
    let dead = "with ended as (delete from reveille.jobs where id = 2 returning *)
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, reason, linked)
        select id, queue, kind, payload, priority, 1, 1, 1, now(), created_at, 'failed', true from ended;
        select reveille.note_end(2, 'dead'), reveille.apply_linked_ends()";
    database.run(dead).await;
    let refused = reveille(&database, &["workflow", "retry", "1", "--json"]);
    assert_eq!(refused.code, 1);
    assert_eq!(refused.json(), [json!({"workflow": 1, "name": "load", "job": 2, "answer": "compensated"})]);
    assert!(refused.err.contains("--force"), "{}", refused.err);
    assert_eq!(reveille(&database, &["retry", "2"]).out, "2 compensated\n");
    let revived = reveille(&database, &["workflow", "retry", "1", "--force"]);
    assert_eq!((revived.code, &*revived.out), (0, "2 load revived\n"));
    let cancelled = reveille(&database, &["workflow", "cancel", "1", "9"]);
    assert_eq!((cancelled.code, &*cancelled.out), (1, "1 cancelling\n9 unknown\n"));
}

#[tokio::test]
async fn an_unknown_workflow_is_not_found() {
    let database = database().await;
    for arguments in [&["workflow", "show", "9"][..], &["workflow", "retry", "9"]] {
        let done = reveille(&database, arguments);
        assert_eq!((done.code, &*done.out), (1, ""));
        assert!(done.err.starts_with("no workflow 9: "), "{}", done.err);
    }
}

#[tokio::test]
async fn a_job_is_enqueued_after_others_and_shown_as_blocked() {
    let database = database().await;
    for _ in 0..2 {
        assert_eq!(reveille(&database, &["enqueue", "k"]).code, 0);
    }
    let enqueued = reveille(&database, &["enqueue", "k", "--after", "1,2", "--on", "any", "--queue", "mail"]);
    assert_eq!((enqueued.code, &*enqueued.out), (0, "3\n"));
    let fires_on = "select array_agg(distinct fires_on)::text || count(*) from reveille.dependencies where waiter = 3";
    assert_eq!(database.value(fires_on).await, "{any}2");
    let job = &reveille(&database, &["job", "3", "--json"]).json()[0];
    assert_eq!((&job["state"], &job["waits_for"]), (&json!("blocked"), &json!([1, 2])));
    let listed = reveille(&database, &["jobs", "--state", "blocked", "--json"]).json();
    assert_eq!((listed.len(), &listed[0]["id"], &listed[0]["waits_for"]), (1, &json!(3), &json!([1, 2])));
    assert_eq!(reveille(&database, &["retry", "3"]).out, "3 blocked\n");
    let drained = reveille(&database, &["drain", "mail"]);
    assert_eq!((drained.code, &*drained.err), (0, "not waited for: 1 blocked\n"));
    let status = reveille(&database, &["status", "--json"]).json();
    assert_eq!(status.iter().map(|queue| &queue["blocked"]).collect::<Vec<_>>(), [&json!(0), &json!(1)]);
    let has_column = || reveille(&database, &["status"]).out.contains("blocked");
    assert!(has_column());
    assert_eq!(reveille(&database, &["cancel", "3"]).out, "3 cancelled\n");
    assert!(!has_column(), "no queue has blocked jobs");
    reveille(&database, &["enqueue", "k", "--on", "dead"]).refused(&["--after"]);
}

#[tokio::test]
async fn a_worker_of_programs_starts_the_workflow_of_a_schedule() {
    let database = database().await;
    let payload = r#"{"name": "w", "jobs": [{"name": "a", "kind": "k"}, {"name": "b", "kind": "k", "after": ["a"]}]}"#;
    let add = ["schedule", "add", "nightly", "reveille.workflow", payload, "--cron", "0 2 * * *"];
    for arguments in [&add[..], &["schedule", "trigger", "nightly"]] {
        assert_eq!(reveille(&database, arguments).code, 0);
    }
    // The program fails for any other kind.
    let _worker = work(&database, "test \"$REVEILLE_JOB_KIND\" = k", &[]);
    database.until("select bool_and(state = 'completed') from reveille.workflow_status").await;
    let ended = "select jsonb_agg(kind || ' ' || outcome order by id) from reveille.finished_jobs";
    assert_eq!(database.value(ended).await, json!(["reveille.workflow completed", "k completed", "k completed"]));
}
