//! Who did what: the command records each change, lists what was recorded, and stops a change of many jobs.

use serde_json::{Value, json};

use crate::cli::{command, reveille};
use crate::exec::Worker;
use crate::harness::{TestDatabase, WAITS_FOR_ADVISORY_LOCK, database};

async fn filled(count: u32) -> TestDatabase {
    let database = database().await;
    let rows = format!(
        "insert into reveille.jobs (queue, kind, payload, available_at)
        select 'q', 'k', jsonb_build_object('n', n), now() + interval '1 hour' from generate_series(1, {count}) as n"
    );
    database.run(&rows).await;
    database
}

#[tokio::test]
async fn every_command_that_changes_something_records_it_and_the_others_do_not() {
    let database = filled(10).await;
    let dead = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
        available_at, created_at, reason) values (101, 'q', 'k', '{}', 2, 1, 1, 1, now(), now(), 'failed')";
    database.run(dead).await;
    let mut expected = Vec::new();
    for (action, line) in [
        (Some("retry"), "retry 1"),
        (Some("retry"), "retry --queue q"),
        (Some("cancel"), "cancel 1"),
        (Some("run_again"), "retry --again 1"),
        (Some("edit"), "edit 2 --priority low"),
        (Some("edit"), "edit --queue-is q --priority low"),
        (Some("revive"), "dead revive 101"),
        (Some("purge"), "dead purge --all"),
        (Some("pause"), "pause q"),
        (Some("resume"), "resume q"),
        (Some("set_queue"), "queue set q max_running=5"),
        (Some("remove_queue"), "queue remove q"),
        (Some("stop_worker"), "workers stop 7"),
        (Some("set_slots"), "workers slots q=1"),
        (Some("schedule"), "schedule add nightly k --every 1h"),
        (Some("pause_schedule"), "schedule pause nightly"),
        (Some("resume_schedule"), "schedule resume nightly"),
        (Some("trigger_schedule"), "schedule trigger nightly"),
        (Some("unschedule"), "schedule remove nightly"),
        (Some("prune"), "prune"),
        (None, "enqueue k"),
        (None, "cancel --queue q --dry-run"),
        (None, "status"),
        (None, "actions"),
        (None, "actions stop 99999"),
        (Some("cancel"), "cancel 99999"),
    ] {
        let done = reveille(&database, &line.split(' ').collect::<Vec<_>>());
        assert!(done.code <= 1, "{line}: {}", done.err);
        expected.extend(action);
        let actions = "select coalesce(jsonb_agg(action order by id), '[]') from reveille.actions";
        assert_eq!(database.value(actions).await, json!(expected), "{line}");
    }
    let who = "select count(*) from reveille.actions where source = 'command' and actor ~ '^[^@]+@[^@]+$'";
    assert_eq!(database.value(who).await, expected.len());
}

#[tokio::test]
async fn actions_are_listed_for_people_and_for_programs() {
    let database = filled(3).await;
    reveille(&database, &["queue", "set", "mail", "max_running=5"]);
    reveille(&database, &["edit", "1", "--payload", r#"{"n": 17}"#, "--queue", "slow"]);
    reveille(&database, &["cancel", "--kind", "k", "--error", "a\u{1b}[31mb"]);
    reveille(&database, &["cancel", "--payload", r#"{"n": 17}"#]);
    let listed = reveille(&database, &["actions"]);
    let lines: Vec<&str> = listed.out.lines().collect();
    assert!(lines[0].trim_start().starts_with("id ") && lines.len() == 5, "{}", listed.out);
    for (line, parts) in [
        (lines[1], &["cancel", "jobs with payload=(9 bytes, sha256 ", "done: 1 of 1"][..]),
        (lines[2], &["cancel", "jobs with error=a\\u001b[31mb kind=k", "done: 0 of 0"]),
        (lines[3], &["edit", "job 1", "edited payload=(9 bytes, sha256 ", "queue=slow"]),
        (lines[4], &["set_queue", "queue mail", "max_running=5", "@"]),
    ] {
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} in {line}");
    }
    let json = reveille(&database, &["actions", "list", "--limit", "1", "--before", "3", "--json"]).json();
    assert_eq!((json.len(), &json[0]["id"], &json[0]["target"]), (1, &json!(2), &json!({"job": 1})));
    assert_eq!((&json[0]["state"], &json[0]["done"]), (&json!("done"), &Value::Null));
    let unknown = reveille(&database, &["actions", "stop", "99", "--json"]);
    assert_eq!((unknown.code, unknown.json()), (1, vec![json!({"id": 99, "answer": "unknown"})]));
}

#[tokio::test]
async fn waiting_jobs_of_a_filter_are_edited() {
    let database = filled(150).await;
    let edit = |more: &[&str]| reveille(&database, &[&["edit", "--kind", "k", "--queue", "slow"], more].concat());
    assert_eq!(edit(&["--dry-run"]).out, "150 jobs to edit\n");
    edit(&[]).refused(&["150 jobs", "no terminal", "--yes"]);
    let some = edit(&["--queue-is", "q", "--payload-has", r#"{"n": 7}"#, "--json"]);
    let expected = json!({"edited": 1, "passed_over": 0, "left_over": 0, "refused": 0});
    assert_eq!(some.json(), [expected]);
    assert_eq!(edit(&["--yes"]).out, "150 edited\n");
    assert_eq!(database.value("select count(*) from reveille.jobs where queue = 'slow'").await, 150);
    reveille(&database, &["edit", "--queue", "slow"]).refused(&["no jobs are chosen"]);
    reveille(&database, &["edit", "1", "--queue-is", "q", "--queue", "slow"]).refused(&["not both"]);
    reveille(&database, &["edit", "--all"]).refused(&["no change is given"]);
    reveille(&database, &["edit", "--state", "dead", "--priority", "low"]).refused(&["cannot be edited by a filter"]);
}

/// Starts a cancel of many jobs, and holds its second slice in its transaction. Returns the process, and the session
/// that holds the slice.
async fn held_cancel(database: &TestDatabase) -> (Worker, tokio_postgres::Client) {
    let waits = "create function waits() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock_shared(42); return null; end $$;
        create trigger waits after delete on reveille.jobs for each row when (old.id = 1500) execute function waits()";
    database.run(waits).await;
    let holder = database.client().await;
    holder.batch_execute("select pg_advisory_lock(42)").await.unwrap();
    let mut cancel = command(&["cancel", "--queue", "q", "--yes"]);
    let process = Worker(cancel.env("DATABASE_URL", &database.address).spawn().unwrap());
    database.until(WAITS_FOR_ADVISORY_LOCK).await;
    (process, holder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_many_jobs_is_stopped_by_another_process() {
    let database = filled(60_000).await;
    let (mut process, holder) = held_cancel(&database).await;
    let stop = reveille(&database, &["actions", "stop", "1"]);
    assert_eq!((stop.code, &*stop.out), (0, "1 stopping\n"), "{}", stop.err);
    holder.batch_execute("select pg_advisory_unlock(42)").await.unwrap();
    assert_eq!(process.ended().await.code(), Some(2));
    let mut err = String::new();
    std::io::Read::read_to_string(&mut process.0.stderr.take().unwrap(), &mut err).unwrap();
    assert!(err.contains("stopped by `reveille actions stop`, up to job 2000"), "{err}");
    let action =
        "select jsonb_build_array(state, done, detail -> 'stopped_by' ->> 'source') from reveille.action_status";
    assert_eq!(database.value(action).await, json!(["stopped", 2000, "command"]));
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 58_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_change_of_many_jobs_is_interrupted_and_its_number_is_exact() {
    let database = filled(60_000).await;
    let (mut process, holder) = held_cancel(&database).await;
    process.signal("-KILL");
    process.ended().await;
    holder.batch_execute("select pg_advisory_unlock(42)").await.unwrap();
    // The server rolls the second slice back once it finds that the process is gone.
    let over = "select count(*) = 0 from pg_stat_activity where datname = current_database() and state <> 'idle'
        and pid <> pg_backend_pid()";
    database.until(over).await;
    let numbers = "select jsonb_build_array(done, (select count(*) from reveille.finished_jobs),
        (select count(*) from reveille.jobs), ended_at) from reveille.actions";
    assert_eq!(database.value(numbers).await, json!([1000, 1000, 59_000, null]));
    database.run("update reveille.actions set seen_at = seen_at - interval '31 seconds'").await;
    assert!(reveille(&database, &["actions"]).out.contains("interrupted: "), "as it is listed");
}
