//! `reveille work --pipe`: children that die, and workers that stop.

use std::process::Command;

use serde_json::json;

use crate::exec::{Folder, enqueue, idle};
use crate::exec_processes::lives;
use crate::harness::{database, eventually};
use crate::pipe::{DONE, child, pipe, pipe_with_log};

/// A child whose waits for it are shorter by this factor.
const HASTE: [&str; 2] = ["--haste", "100"];

fn pids(folder: &Folder) -> Vec<String> {
    folder.read("pids").split_whitespace().map(str::to_owned).collect()
}

/// Returns a script that notes the ids of the child and of a grandchild in a session of its own.
fn noting(folder: &Folder) -> String {
    format!("setsid sleep 1000 & echo $$ $! >>{};", folder.path("pids"))
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

#[tokio::test]
async fn jobs_of_a_dead_child_are_lost_with_the_end_of_its_stderr() {
    let database = database().await;
    // The first child dies with two runs, after it has answered another one.
    let on_job = format!(
        r#"case $line in
            *'"failures":0'*'"payload":"last"'*) echo 'it is "over"' >&2; exit 7 ;;
            *'"failures":0'*'"payload":"answered"'*) {DONE} ;;
            *'"failures":0'*) ;;
            *) {DONE} ;;
        esac"#
    );
    let _worker = pipe(&database, &child(&on_job, ""), &["--queue", "default=8", "--haste", "10"]);
    for payload in ["answered", "held", "last"] {
        enqueue(&database, &format!("kind => 'k', payload => '\"{payload}\"'")).await;
        if payload == "answered" {
            database.until("select count(*) = 1 from reveille.finished_jobs").await;
        }
    }
    database.until("select count(*) = 2 from reveille.jobs where failures = 1").await;
    let lost = "select jsonb_agg(jsonb_build_array(errors -> 0 -> 'reason', errors -> 0 -> 'error') order by id) \
        from reveille.jobs";
    let error = "the child of this job and another one ended by itself (exit status: 7); the end of the stderr of \
        all its jobs:\nit is \"over\"";
    assert_eq!(database.value(lost).await, json!([["lost", error], ["lost", error]]));
    database.run("update reveille.jobs set available_at = now()").await;
    idle(&database).await;
}

#[tokio::test]
async fn a_job_whose_child_died_waits_for_a_child_that_holds_nothing() {
    let (database, folder) = (database().await, Folder::new());
    // Each run ends when a file with the name of its payload exists.
    let on_job = format!(
        r#"case $line in *'"failures":0'*'"payload":"poison"'*) exit 1 ;; esac
        name=${{line#*'"payload":"'}}; name=${{name%%\"*}}; echo "$name" >>{0}
        ( until [ -e {1}$name ]; do sleep 0.01; done; {DONE} ) &"#,
        folder.path("begun"),
        folder.path("end-")
    );
    let options = ["--queue", "default=4", "--haste", "100"];
    let _worker = pipe_with_log(&folder, &database, &child(&on_job, ""), &options);
    enqueue(&database, "kind => 'k', payload => '\"poison\"'").await;
    database.until("select failures = 1 from reveille.jobs").await;
    enqueue(&database, "kind => 'k', payload => '\"a\"'").await;
    eventually("another job has begun", async || folder.read("begun") == "a\n").await;
    database.run("update reveille.jobs set available_at = now() where failures = 1").await;
    eventually("the child is reserved", async || folder.read("log").contains("a child gets nothing new")).await;
    // While the job waits for the end of `a`, its worker takes nothing more, and another worker does.
    enqueue(&database, "kind => 'k', payload => '\"b\"'").await;
    let other = crate::exec::work(&database, "true", &[]);
    database.until("select attempts = 1 from reveille.finished_jobs where payload = '\"b\"'").await;
    drop(other);
    assert_eq!(folder.read("begun"), "a\n");
    std::fs::write(folder.path("end-a"), "").unwrap();
    eventually("the job has begun alone", async || folder.read("begun") == "a\npoison\n").await;
    std::fs::write(folder.path("end-poison"), "").unwrap();
    idle(&database).await;
}

#[tokio::test]
async fn a_worker_claims_nothing_while_no_child_is_ready() {
    let (database, folder) = (database().await, Folder::new());
    let starts = folder.path("starts");
    // The first two children end at once, and the third waits to be ready.
    let child = format!(
        "echo x >>{starts}; [ $(wc -l <{starts}) -ge 3 ] || exit 1; until [ -e {} ]; do sleep 0.01; done; {}",
        folder.path("go"),
        child(DONE, "")
    );
    let _worker = pipe(&database, &child, &HASTE);
    enqueue(&database, "kind => 'k'").await;
    eventually("the third child has started", async || folder.read("starts").lines().count() == 3).await;
    assert_eq!(database.value("select attempts from reveille.jobs").await, 0);
    std::fs::write(folder.path("go"), "").unwrap();
    idle(&database).await;
    assert_eq!(database.value("select attempts from reveille.finished_jobs").await, 1);
}

#[tokio::test]
async fn a_worker_whose_children_all_die_lets_the_jobs_wait() {
    let (database, folder) = (database().await, Folder::new());
    // A child that has been ready once does not start again until the file `go` exists.
    let child = format!(
        "[ ! -e {0} ] || until [ -e {1} ]; do sleep 0.01; done; : >{0}; echo $$ >>{2}; {3}",
        folder.path("started"),
        folder.path("go"),
        folder.path("pids"),
        child(DONE, "")
    );
    let _worker = pipe_with_log(&folder, &database, &child, &["--haste", "10"]);
    enqueue(&database, "kind => 'k'").await;
    idle(&database).await;
    kill("-KILL", &pids(&folder)[0]);
    eventually("the worker knows", async || folder.read("log").contains("a child has died")).await;
    // Another worker takes the job, since the first one claims nothing now.
    enqueue(&database, "kind => 'k'").await;
    let _other = crate::exec::work(&database, "true", &[]);
    idle(&database).await;
    assert_eq!(database.value("select max(attempts) from reveille.finished_jobs").await, 1);
    std::fs::write(folder.path("go"), "").unwrap();
    eventually("another child is ready", async || pids(&folder).len() == 2).await;
}

#[tokio::test]
async fn a_worker_without_a_ready_child_after_five_starts_ends() {
    let (database, folder) = (database().await, Folder::new());
    let child = format!("echo x >>{}; echo 'no module named app' >&2; exit 1", folder.path("starts"));
    let mut worker = pipe_with_log(&folder, &database, &child, &HASTE);
    assert_eq!(worker.ended().await.code(), Some(2));
    assert_eq!(folder.read("starts").lines().count(), 5);
    let log = folder.read("log");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("error: no child was ready after 5 starts") && last.contains("no module"), "{log}");
}

#[tokio::test]
async fn a_child_that_is_not_ready_in_time_is_replaced() {
    let (database, folder) = (database().await, Folder::new());
    let child = format!("[ -e {0} ] || {{ : >{0}; exec sleep 1000; }}; {1}", folder.path("slept"), child(DONE, ""));
    let _worker = pipe_with_log(&folder, &database, &child, &["--haste", "1000"]);
    enqueue(&database, "kind => 'k'").await;
    idle(&database).await;
    assert!(folder.read("log").contains("it was not ready within 60ms"), "{}", folder.read("log"));
}

#[tokio::test]
async fn a_stopped_worker_lets_its_runs_end_and_its_children_exit() {
    let (database, folder) = (database().await, Folder::new());
    // The run ends at the worker's `stop`.
    let child = child(&format!("run_of_job=$run; echo $$ >>{}", folder.path("pids")), "")
        .replace("exit 0", &format!("run=$run_of_job; {DONE}; exit 0"));
    let mut worker = pipe(&database, &child, &[]);
    enqueue(&database, "kind => 'k'").await;
    eventually("the run has begun", async || !pids(&folder).is_empty()).await;
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    assert_eq!(database.value("select outcome from reveille.finished_jobs").await, "completed");
    assert_eq!(database.value("select count(*) from reveille.workers").await, 0);
}

#[tokio::test]
async fn runs_that_outlast_the_grace_period_go_back_without_a_failure() {
    let (database, folder) = (database().await, Folder::new());
    let seen = folder.path("seen");
    let on_job = format!("{} echo started >>{seen}", noting(&folder));
    let child = child(&on_job, &format!("say \"$line\" >>{seen}")).replace("exit 0", "echo stop >>/dev/null");
    let mut worker = pipe(&database, &child, &["--grace", "100ms"]);
    enqueue(&database, "kind => 'k', max_attempts => 1").await;
    eventually("the run has begun", async || folder.read("seen").contains("started")).await;
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    let pids = pids(&folder);
    eventually("the child and what it started are gone", async || !pids.iter().any(|pid| lives(pid))).await;
    assert!(folder.read("seen").contains(r#"{"type":"cancel","run":1,"reason":"shutdown"}"#));
    let back = database.value("select jsonb_build_array(reserved_at, failures) from reveille.jobs").await;
    assert_eq!(back, json!([null, 0]));
}

#[tokio::test]
async fn a_child_that_does_not_exit_is_killed() {
    let (database, folder) = (database().await, Folder::new());
    let child = child(&format!("{} {DONE}", noting(&folder)), "").replace("exit 0", "exec sleep 1000");
    let mut worker = pipe(&database, &child, &HASTE);
    enqueue(&database, "kind => 'k'").await;
    idle(&database).await;
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    let pids = pids(&folder);
    eventually("the child and what it started are gone", async || !pids.iter().any(|pid| lives(pid))).await;
}

#[tokio::test]
async fn children_end_at_once_with_a_worker_that_is_killed() {
    let (database, folder) = (database().await, Folder::new());
    let worker = pipe(&database, &child(&noting(&folder), ""), &[]);
    enqueue(&database, "kind => 'k'").await;
    eventually("the run has begun", async || pids(&folder).len() == 2).await;
    worker.signal("-KILL");
    let pids = pids(&folder);
    eventually("the child and what it started are gone", async || !pids.iter().any(|pid| lives(pid))).await;
}

#[tokio::test]
async fn what_a_dead_child_started_ends_with_it() {
    let (database, folder) = (database().await, Folder::new());
    let on_job = format!("{} kill -9 $PPID; exit 1", noting(&folder));
    let _worker = pipe(&database, &child(&on_job, ""), &["--haste", "10"]);
    enqueue(&database, "kind => 'k', max_attempts => 1").await;
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    let pids = pids(&folder);
    eventually("the child and what it started are gone", async || !pids.iter().any(|pid| lives(pid))).await;
}

#[tokio::test]
async fn no_job_is_lost_when_children_are_killed_at_random() {
    const JOBS: usize = 300;
    let (database, folder) = (database().await, Folder::new());
    let child = format!("echo $$ >>{}; {}", folder.path("pids"), child(&format!("echo ran >&2; {DONE}"), ""));
    let options = ["--queue", "default=16", "--children", "4", "--haste", "1000"];
    let _worker = pipe(&database, &child, &options);
    database.run(&format!("select reveille.enqueue('k', max_attempts => 1000) from generate_series(1, {JOBS})")).await;
    let mut killed = 0;
    let done = format!("select count(*) = {JOBS} from reveille.finished_jobs");
    while database.value(&done).await != true {
        let living: Vec<String> = pids(&folder).into_iter().filter(|pid| lives(pid)).collect();
        if let Some(pid) = fastrand::choice(&living).filter(|_| killed < 40) {
            let _ = Command::new("kill").args(["-9", pid]).status();
            killed += 1;
        }
        // Failed jobs wait for their retry.
        database.run("update reveille.jobs set available_at = now() where reserved_at is null").await;
    }
    assert!(killed > 0);
    let others = "select coalesce(jsonb_agg(error), '[]') from reveille.finished_jobs \
        cross join jsonb_array_elements(to_jsonb(errors)) as errors (error) \
        where error ->> 'reason' <> 'lost' or error ->> 'error' not like 'the child of %stderr%'";
    assert_eq!(database.value(others).await, json!([]));
    assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 0);
}
