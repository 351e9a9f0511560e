//! `reveille work --pipe`: children that break the protocol, or that do not answer.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::exec::{Folder, Worker, enqueue, idle, most_memory};
use crate::exec_processes::lives;
use crate::harness::{TestDatabase, database, eventually};
use crate::pipe::{DONE, child, pipe, pipe_with_log};

/// Returns a child that behaves like `first` in its first life, and like `then` in each later one.
fn first_then(folder: &Folder, first: &str, then: &str) -> String {
    format!("if [ ! -e {0} ]; then : >{0}; {first}; else {then}; fi", folder.path("first"))
}

/// Works one job with a child that writes something wrong at its first job. Returns the error that the job then gets.
async fn error_after(database: &TestDatabase, folder: &Folder, on_job: &str) -> String {
    let child = first_then(folder, &child(on_job, ""), &child(DONE, ""));
    let _worker = pipe_with_log(folder, database, &child, &["--haste", "10"]);
    enqueue(database, "kind => 'k'").await;
    database.until("select failures = 1 from reveille.jobs").await;
    let reason = database.value("select errors -> 0 -> 'reason' from reveille.jobs").await;
    assert_eq!(reason, "lost");
    let error = database.value("select errors -> 0 ->> 'error' from reveille.jobs").await;
    database.run("update reveille.jobs set available_at = now()").await;
    idle(database).await;
    assert!(folder.read("log").contains("a child has died"), "{}", folder.read("log"));
    error.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_answer_to_a_run_that_was_never_given_ends_the_child() {
    let (database, folder) = (database().await, Folder::new());
    let error = error_after(&database, &folder, r#"say '{"type":"done","run":99}'"#).await;
    assert!(error.contains("the run 99, which it was never given"), "{error}");
}

#[tokio::test]
async fn a_line_that_is_no_message_ends_the_child_and_is_shown() {
    for (line, why) in [
        ("echo starting the mailer", "a line that is no message"),
        ("say '{\"type\":\"surprise\"}'", "a message of an unknown type"),
        ("printf '\\377\\n'", "a line that is not UTF-8"),
        ("say '{\"type\":\"ready\",\"version\":1}'", "said twice that it is ready"),
    ] {
        let (database, folder) = (database().await, Folder::new());
        let error = error_after(&database, &folder, line).await;
        assert!(error.contains(why) && !error.contains('\u{1b}'), "{error}");
    }
}

#[tokio::test]
async fn a_line_of_100_mb_ends_the_child_and_costs_no_memory() {
    let (database, folder) = (database().await, Folder::new());
    let child = first_then(&folder, &child("head -c 100000000 /dev/zero | tr '\\0' x; echo", ""), &child(DONE, ""));
    let worker = pipe(&database, &child, &["--haste", "10"]);
    enqueue(&database, "kind => 'k'").await;
    database.until("select failures = 1 from reveille.jobs").await;
    let error = database.value("select errors -> 0 ->> 'error' from reveille.jobs").await;
    assert!(error.as_str().unwrap().contains("a line of more than 16777216 bytes"), "{error}");
    assert!(most_memory(&worker) < 150, "{} MB", most_memory(&worker));
    database.run("update reveille.jobs set available_at = now()").await;
    idle(&database).await;
}

#[tokio::test]
async fn a_child_that_floods_its_output_costs_no_memory() {
    let (database, folder) = (database().await, Folder::new());
    let progress = r#"{"type":"progress","run":'"$run"',"value":"'"$(head -c 2000 /dev/zero | tr '\0' x)"'"}"#;
    let on_job = format!(
        "line='{progress}'; yes \"$line\" | head -n 100000; yes flood | head -c 100000000 >&2; {DONE}; echo >{}",
        folder.path("end")
    );
    let worker = pipe(&database, &child(&on_job, ""), &["--queue", "default=1"]);
    enqueue(&database, "kind => 'k'").await;
    // A busy machine takes minutes for 300 MB.
    let written = async {
        while !Path::new(&folder.path("end")).exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), written).await.expect("the child ends");
    idle(&database).await;
    assert!(most_memory(&worker) < 150, "{} MB", most_memory(&worker));
    let length = "select length(progress #>> '{}') from reveille.finished_jobs";
    assert_eq!(database.value(length).await, 2000);
}

#[tokio::test]
async fn a_child_that_takes_nothing_is_replaced() {
    let (database, folder) = (database().await, Folder::new());
    let child = first_then(&folder, "echo '{\"type\":\"ready\",\"version\":1}'; exec sleep 1000", &child(DONE, ""));
    let _worker = pipe_with_log(&folder, &database, &child, &["--queue", "default=8", "--haste", "100"]);
    // These jobs do not fit into the pipe.
    let jobs = "select reveille.enqueue('k', to_jsonb(repeat('x', 100000))) from generate_series(1, 8)";
    database.run(jobs).await;
    database.until("select count(*) > 0 from reveille.jobs where failures = 1").await;
    database.run("update reveille.jobs set available_at = now()").await;
    database.until("select count(*) = 8 from reveille.finished_jobs").await;
    assert!(folder.read("log").contains("it took nothing for 300ms"), "{}", folder.read("log"));
}

#[tokio::test]
async fn full_pipes_in_both_directions_do_not_block_each_other() {
    let (database, folder) = (database().await, Folder::new());
    // The child takes its next line only once its own long answer is taken.
    let on_job = r#"case $line in *'"kind":"k"'*)
        printf '{"type":"done","run":%s,"result":"' "$run"; head -c 300000 /dev/zero | tr '\0' y; say '"}' ;;
    esac"#;
    let _worker = pipe_with_log(&folder, &database, &child(on_job, ""), &["--queue", "default=16"]);
    database.run("select reveille.enqueue('k', to_jsonb(repeat('x', 50000))) from generate_series(1, 64)").await;
    database.until("select count(*) = 64 from reveille.finished_jobs").await;
    assert_eq!(database.value("select min(length(result #>> '{}')) from reveille.finished_jobs").await, 300_000);
    assert!(!folder.read("log").contains("died"), "{}", folder.read("log"));
}

/// Waits until a job has failed for its timeout.
async fn timed_out(database: &TestDatabase) {
    database.until("select errors -> 0 ->> 'reason' = 'timed_out' from reveille.dead_jobs").await;
}

#[tokio::test]
async fn half_a_line_and_then_nothing_times_out_and_the_child_is_replaced() {
    let (database, folder) = (database().await, Folder::new());
    let on_job = format!(
        r#"case $line in
            *'"kind":"half"'*) echo $$ >{}; printf '{{"type":"done","run":%s' "$run" ;;
            *'"kind":"other"'*) ;;
            *) {DONE} ;;
        esac"#,
        folder.path("pid")
    );
    let child = first_then(&folder, &child(&on_job, ""), &child(DONE, ""));
    let options = ["--queue", "default=3", "--grace", "200ms", "--haste", "10"];
    let _worker = pipe(&database, &child, &options);
    enqueue(&database, "kind => 'other', max_attempts => 1").await;
    database.until("select attempts = 1 from reveille.jobs").await;
    enqueue(&database, "kind => 'half', timeout => '50 ms', max_attempts => 1").await;
    timed_out(&database).await;
    // The other run goes back without a failure once the grace period is over.
    idle(&database).await;
    let other = "select jsonb_build_array(kind, failures, attempts) from reveille.finished_jobs";
    assert_eq!(database.value(other).await, json!(["other", 0, 2]));
    assert!(!lives(&folder.read("pid")), "the stuck child is killed");
}

#[tokio::test]
async fn an_unanswered_run_keeps_its_slot() {
    let (database, folder) = (database().await, Folder::new());
    // The first run ends when the file `go` exists.
    let on_job = format!(
        "case $line in *'\"run\":1,'*) ( until [ -e {} ]; do sleep 0.01; done; {DONE} ) & ;; *) {DONE} ;; esac",
        folder.path("go")
    );
    let _worker = pipe(&database, &child(&on_job, ""), &["--queue", "default=1"]);
    enqueue(&database, "kind => 'k', timeout => '50 ms', max_attempts => 1").await;
    timed_out(&database).await;
    enqueue(&database, "kind => 'k'").await;
    // Another worker gets the job, since the slot of this one is occupied.
    let other = crate::exec::work(&database, "true", &[]);
    idle(&database).await;
    drop(other);
    std::fs::write(folder.path("go"), "").unwrap();
    enqueue(&database, "kind => 'k'").await;
    idle(&database).await;
    let workers = "select jsonb_build_array(count(distinct worker), max(attempts)) from reveille.finished_jobs";
    assert_eq!(database.value(workers).await, json!([2, 1]));
}

#[tokio::test]
async fn a_stopped_child_gets_a_signal_to_go_on_and_die() {
    let (database, folder) = (database().await, Folder::new());
    let on_job =
        format!("echo $$ $PPID >{0}.new; mv {0}.new {0}; kill -STOP $PPID; kill -STOP $$", folder.path("pids"));
    let child = first_then(&folder, &child(&on_job, ""), &child(DONE, ""));
    let options = ["--queue", "default=1", "--grace", "100ms", "--haste", "100"];
    let _worker: Worker = pipe(&database, &child, &options);
    enqueue(&database, "kind => 'k', timeout => '50 ms', max_attempts => 1").await;
    timed_out(&database).await;
    enqueue(&database, "kind => 'k'").await;
    idle(&database).await;
    let pids: Vec<String> = folder.read("pids").split_whitespace().map(str::to_owned).collect();
    eventually("the child and its keeper are gone", async || !pids.iter().any(|pid| lives(pid))).await;
}
