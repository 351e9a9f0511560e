//! Changing many jobs that a filter chooses, editing one, and removing a queue.

use std::io::Read;

use serde_json::{Value, json};

use crate::cli::{Ended, command, finish, reveille, run};
use crate::exec::Worker;
use crate::harness::{TestDatabase, WAITS_FOR_ADVISORY_LOCK, database};
use crate::terminal::Terminal;

async fn filled(count: u32) -> TestDatabase {
    let database = database().await;
    let rows = format!(
        "insert into reveille.jobs (queue, kind, tags, key, payload, attempts, failures, errors, available_at)
        select 'q', 'k', array['t'], 'key', jsonb_build_object('n', n), 1, 1,
            '[{{\"error\": \"connection refused\"}}]', now() + interval '1 hour'
        from generate_series(1, {count}) as n"
    );
    database.run(&rows).await;
    database
}

#[tokio::test]
async fn one_filter_serves_jobs_retry_cancel_revive_and_purge() {
    let database = filled(20).await;
    let dead = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
        available_at, created_at, reason, tags, key, errors)
        select n, 'q', 'k', jsonb_build_object('n', n), 2, 1, 1, 1, now(), now(), 'failed', '{t}', 'key',
            '[{\"error\": \"connection refused\"}]' from generate_series(101, 106) as n;
        select setval('reveille.jobs_id_seq', 1000)";
    database.run(dead).await;
    let filter = [
        "--queue",
        "q",
        "--kind",
        "k",
        "--key",
        "key",
        "--tag",
        "t",
        "--newer-than",
        "1h",
        "--error",
        "refused",
        "--payload",
        r#"{"n": 7}"#,
    ];
    let with = |start: &[&str]| reveille(&database, &[start, &filter].concat());
    assert_eq!(with(&["jobs", "--json"]).json()[0]["id"], 7);
    assert_eq!(with(&["jobs", "--older-than", "30m"]).out.lines().count(), 1, "no job is that old");
    assert_eq!(with(&["retry"]).out, "1 retried\n");
    assert_eq!(with(&["retry"]).out, "0 retried\n", "it is due already");
    assert_eq!(with(&["cancel", "--dry-run"]).out, "1 job to cancel\n");
    assert_eq!(with(&["cancel", "--dry-run", "--json"]).json(), [json!({"matching": 1})]);
    assert_eq!(with(&["cancel"]).out, "1 cancelled\n");
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 19);
    let again = reveille(&database, &["retry", "--again", "--payload", r#"{"n": 7}"#, "--json"]);
    assert_eq!(again.json()[0]["again"], 1);
    let dead = |start: &[&str], n: &str| reveille(&database, &[start, &["--queue", "q", "--payload", n]].concat());
    assert_eq!(dead(&["dead", "revive", "--reason", "lost"], r#"{"n": 101}"#).out, "0 revived\n");
    assert_eq!(dead(&["dead", "revive", "--reason", "failed"], r#"{"n": 101}"#).out, "1 revived\n");
    assert_eq!(dead(&["retry", "--state", "dead"], r#"{"n": 102}"#).out, "1 retried\n");
    assert_eq!(dead(&["dead", "purge", "--json"], r#"{"n": 103}"#).json()[0]["purged"], 1);
    assert_eq!(dead(&["dead", "list", "--json"], r#"{"n": 104}"#).json()[0]["id"], 104);
    assert_eq!(database.value("select jsonb_agg(id) from reveille.dead_jobs").await, json!([104, 105, 106]));
    assert_eq!(
        database.value("select jsonb_agg(id order by id) from reveille.jobs where id > 100 and id < 1000").await,
        json!([101, 102])
    );
}

#[tokio::test]
async fn jobs_are_chosen_by_ids_or_by_a_filter_and_never_by_neither() {
    let database = filled(3).await;
    for command in [&["cancel"][..], &["retry"], &["retry", "--again"], &["dead", "revive"], &["dead", "purge"]] {
        reveille(&database, command).refused(&["no jobs are chosen", "--all"]);
        reveille(&database, &[command, &["1", "--queue", "q"]].concat()).refused(&["not both"]);
        reveille(&database, &[command, &["1", "--all"]].concat()).refused(&["not both"]);
        reveille(&database, &[command, &["1", "--dry-run"]].concat()).refused(&["--dry-run"]);
        reveille(&database, &[command, &["--all", "--queue", "q"]].concat()).refused(&["--all"]);
        reveille(&database, &[command, &["--payload", "{"]].concat()).refused(&["--payload", "JSON"]);
        reveille(&database, &[command, &["--state", "odd"]].concat())
            .refused(&["odd", "possible values: blocked, ready"]);
    }
    reveille(&database, &["cancel", "--state", "dead"]).refused(&["only live and blocked jobs"]);
    reveille(&database, &["dead", "purge", "--state", "ready"]).refused(&["only dead jobs"]);
    reveille(&database, &["dead", "list", "--state", "ready"]).refused(&["ready jobs are not dead"]);
    assert_eq!(reveille(&database, &["cancel", "1", "2"]).out, "1 cancelled\n2 cancelled\n", "ids work as before");
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1);
}

/// Runs the command on a terminal, and answers its question.
async fn on_a_terminal(database: &TestDatabase, arguments: &[&str], answer: &str) -> (Option<i32>, String) {
    let mut terminal = Terminal::open(80);
    let mut command = command(arguments);
    command.env("DATABASE_URL", &database.address).stdin(terminal.end()).stderr(terminal.end());
    let child = command.spawn().unwrap();
    terminal.until("? [y/N] ").await;
    terminal.press(answer);
    let output = tokio::task::spawn_blocking(|| finish(child)).await.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_hundred_jobs_are_changed_only_after_a_question() {
    let database = filled(101).await;
    let count = async || database.value("select count(*) from reveille.jobs").await;
    reveille(&database, &["cancel", "--queue", "q"]).refused(&["101 jobs", "no terminal", "--yes"]);
    assert_eq!(on_a_terminal(&database, &["cancel", "--queue", "q"], "n\n").await, (Some(2), String::new()));
    assert_eq!(on_a_terminal(&database, &["cancel", "--queue", "q"], "\n").await.0, Some(2));
    assert_eq!(count().await, 101);
    assert_eq!(reveille(&database, &["cancel", "1"]).code, 0);
    assert_eq!(reveille(&database, &["cancel", "--payload", "{}"]).out, "100 cancelled\n", "no question for 100");
    database.run("insert into reveille.jobs (queue, kind) select 'q', 'k' from generate_series(1, 150)").await;
    let asked = on_a_terminal(&database, &["cancel", "--queue", "q"], "y\n").await;
    assert_eq!(asked, (Some(0), "150 cancelled\n".into()));
    database.run("insert into reveille.jobs (queue, kind) select 'q', 'k' from generate_series(1, 150)").await;
    assert_eq!(reveille(&database, &["cancel", "--all", "--yes"]).out, "150 cancelled\n");
    assert_eq!(count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_change_ends_between_two_slices_and_says_how_far_it_came() {
    let database = filled(60_000).await;
    // The first slice waits until the test has sent the signal.
    let waits = "create function waits() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock_shared(42); return null; end $$;
        create trigger waits after delete on reveille.jobs for each statement execute function waits()";
    database.run(waits).await;
    let holder = database.client().await;
    holder.batch_execute("select pg_advisory_lock(42)").await.unwrap();
    let mut cancel = command(&["cancel", "--queue", "q", "--yes", "--json"]);
    let mut process = Worker(cancel.env("DATABASE_URL", &database.address).spawn().unwrap());
    database.until(WAITS_FOR_ADVISORY_LOCK).await;
    process.signal("-INT");
    holder.batch_execute("select pg_advisory_unlock(42)").await.unwrap();
    let status = process.ended().await;
    let (mut out, mut err) = (String::new(), String::new());
    process.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    process.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let ended = Ended { code: status.code().unwrap(), out, err };
    ended.refused(&["interrupted", "up to job"]);
    let done = ended.json()[0]["cancelled"].as_u64().unwrap();
    assert!((1..60_000).contains(&done), "{done}");
    assert_eq!(database.value("select count(*) from reveille.jobs").await, json!(60_000 - done));
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, json!(done));
}

#[tokio::test]
async fn jobs_that_cannot_be_changed_are_counted_and_the_status_is_1() {
    let database = filled(5).await;
    let refuse =
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; \
        end $$;
        create trigger refuse before delete on reveille.jobs for each row when (old.id = 3) execute function refuse()";
    database.run(refuse).await;
    let mut holder = database.client().await;
    let holding = holder.transaction().await.unwrap();
    holding.batch_execute("select from reveille.jobs where id = 4 for update").await.unwrap();
    let cancel = reveille(&database, &["cancel", "--queue", "q", "--json"]);
    assert_eq!(
        (cancel.code, cancel.json()),
        (1, vec![json!({"cancelled": 3, "requested": 0, "passed_over": 1, "left_over": 0, "refused": 1})])
    );
    assert!(cancel.err.contains("job 3 is not cancelled") && cancel.err.contains("1 passed over"), "{}", cancel.err);
    drop(holding);
}

#[tokio::test]
async fn a_waiting_job_is_edited_and_a_running_one_is_refused() {
    let database = filled(2).await;
    database.run("update reveille.jobs set reserved_at = now(), reserved_by = 1 where id = 2").await;
    let edit = [
        "--queue",
        "other",
        "--priority",
        "urgent",
        "--at",
        "2096-12-24 18:00+01",
        "--max-attempts",
        "3",
        "--key",
        "new",
        "--timeout",
        "30s",
        "--payload",
        "-",
        "--json",
    ];
    let mut from_stdin = command(&[&["edit", "1", "2", "99"], &edit[..]].concat());
    from_stdin.env("DATABASE_URL", &database.address);
    let edited = run(from_stdin, "[1, 2]");
    let answers: Vec<Value> = edited.json().iter().map(|answer| answer["answer"].clone()).collect();
    assert_eq!(
        (edited.code, answers),
        (1, vec![json!("edited"), json!("running"), json!("unknown")]),
        "{}",
        edited.err
    );
    let row = "select jsonb_build_array(
            queue, priority, available_at = '2096-12-24 17:00+00', max_attempts, key, timeout, payload
        ) from reveille.jobs where id = 1";
    assert_eq!(database.value(row).await, json!(["other", 0, true, 3, "new", "00:00:30", [1, 2]]));
    let done = reveille(&database, &["edit", "1", "--no-key", "--no-timeout", "--delay", "0"]);
    assert_eq!((done.code, &*done.out), (0, "1 edited\n"));
    let row = "select jsonb_build_array(key, timeout, available_at <= now()) from reveille.jobs where id = 1";
    assert_eq!(database.value(row).await, json!([null, null, true]));
    reveille(&database, &["edit", "1"]).refused(&["no change is given"]);
    reveille(&database, &["edit", "1", "--queue", ""]).refused(&["queue must have"]);
    reveille(&database, &["edit", "1", "--payload", "{"]).refused(&["payload is not JSON"]);
    reveille(&database, &["edit", "1", "--at", "now", "--delay", "5s"]).refused(&["--delay"]);
}

#[tokio::test]
async fn an_unused_queue_is_removed_and_no_longer_shown() {
    let database = filled(1).await;
    database.run("insert into reveille.queues (name, max_running) values ('q', 1), ('unused', 1)").await;
    let remove = |queue: &str| reveille(&database, &["queue", "remove", queue]);
    let used = remove("q");
    assert_eq!((used.code, &*used.out), (1, ""));
    assert!(used.err.contains("1 waiting job") && used.err.lines().count() == 1, "{}", used.err);
    assert_eq!(remove("unused").out, "removed unused\n");
    assert!(!reveille(&database, &["status"]).out.contains("unused"));
    let unknown = remove("unused");
    assert!(unknown.code == 1 && unknown.err.contains("no queue unused"), "{}", unknown.err);
    let json = reveille(&database, &["queue", "remove", "q", "--json"]);
    assert_eq!(json.json(), [json!({"queue": "q", "answer": "in_use", "used_by": "1 waiting job"})]);
    assert_eq!(database.value("select jsonb_agg(name) from reveille.queues").await, json!(["q"]));
}
