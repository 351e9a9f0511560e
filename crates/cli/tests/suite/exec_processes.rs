//! `reveille work --exec`: the processes that a program has started end with the program's attempt.

use crate::exec::{Folder, Worker, enqueue, idle, work};
use crate::harness::{database, eventually};
use serde_json::json;
use std::process::{Command, Stdio};

/// Returns true if a process is alive and no zombie.
pub fn lives(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

/// Returns a command that writes its process id and its child's process id to a file, and hangs.
fn hanging(folder: &Folder) -> String {
    format!("sleep 1000 & echo $$ $! >{0}.new; mv {0}.new {0}; wait", folder.path("pids"))
}

async fn pids(folder: &Folder) -> Vec<String> {
    eventually("the command runs", async || folder.read("pids").ends_with('\n')).await;
    folder.read("pids").split_whitespace().map(str::to_owned).collect()
}

async fn gone(pids: &[String]) {
    eventually("the command and its children are gone", async || !pids.iter().any(|pid| lives(pid))).await;
}

#[tokio::test]
async fn a_timeout_ends_the_whole_process_group() {
    let (database, folder) = (database().await, Folder::new());
    let _worker = work(&database, &hanging(&folder), &[]);
    enqueue(&database, "kind => 'k', timeout => '500 ms', max_attempts => 1").await;
    let pids = pids(&folder).await;
    idle(&database).await;
    assert_eq!(database.value("select reason from reveille.dead_jobs").await, "timed_out");
    gone(&pids).await;
}

#[tokio::test]
async fn a_cancel_ends_the_command() {
    let (database, folder) = (database().await, Folder::new());
    let _worker = work(&database, &hanging(&folder), &[]);
    enqueue(&database, "kind => 'k'").await;
    let pids = pids(&folder).await;
    assert_eq!(database.value("select reveille.cancel(1)").await, "requested");
    idle(&database).await;
    assert_eq!(database.value("select outcome from reveille.finished_jobs").await, "cancelled");
    gone(&pids).await;
}

#[tokio::test]
async fn children_end_with_a_worker_that_is_killed() {
    let (database, folder) = (database().await, Folder::new());
    let worker = work(&database, &hanging(&folder), &[]);
    enqueue(&database, "kind => 'k'").await;
    let pids = pids(&folder).await;
    assert!(pids.iter().all(|pid| lives(pid)));
    worker.signal("-KILL");
    gone(&pids).await;
}

#[tokio::test]
async fn a_terminated_worker_releases_jobs_that_it_cannot_finish() {
    let (database, folder) = (database().await, Folder::new());
    let mut worker = work(&database, &hanging(&folder), &["--grace", "100ms"]);
    enqueue(&database, "kind => 'k'").await;
    let pids = pids(&folder).await;
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    gone(&pids).await;
    let back = database.value("select jsonb_build_array(reserved_at, failures) from reveille.jobs").await;
    assert_eq!(back, json!([null, 0]));
    assert_eq!(database.value("select count(*) from reveille.workers").await, 0);
}

/// Returns the child processes of `parent`, with their command lines.
fn children(parent: u32) -> Vec<(u32, String)> {
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(1) == Some(&*parent.to_string())
    };
    let with_line = |pid| (pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default());
    pids.filter(of).map(with_line).collect()
}

fn watchdog(worker: &Worker) -> Option<u32> {
    children(worker.0.id()).into_iter().find(|(_, line)| line.ends_with("\0watchdog\0")).map(|(pid, _)| pid)
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_killed_watchdog_is_restarted_and_the_log_says_so() {
    let (database, folder) = (database().await, Folder::new());
    // The program stops its keeper, so that only the watchdog can end the program.
    let program =
        format!("setsid sleep 1000 & echo $$ $! >{0}.new; mv {0}.new {0}; kill -STOP $PPID; wait", folder.path("pids"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    let log = std::fs::File::create(folder.path("log")).unwrap();
    command.args(["work", "--exec", &program]).env("DATABASE_URL", &database.address).stderr(log);
    let worker = Worker(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    enqueue(&database, "kind => 'k'").await;
    let pids = pids(&folder).await;
    let first = watchdog(&worker).unwrap();
    kill("-KILL", first);
    eventually("another watchdog starts", async || watchdog(&worker).is_some_and(|second| second != first)).await;
    assert!(folder.read("log").contains("the watchdog has ended; starting it again"), "{}", folder.read("log"));
    assert!(pids.iter().all(|pid| lives(pid)));
    worker.signal("-KILL");
    gone(&pids).await;
}

/// Returns a command that leaves two processes: a child in a separate session, and a grandchild without a parent. Their
/// process ids are in a file.
fn leaving(folder: &Folder, then: &str) -> String {
    let deeper = "setsid sh -c 'sleep 1000 & echo $! >>$0' ";
    format!("setsid sleep 1000 & echo $! >{0}.new; ({deeper} {0}.new) ; mv {0}.new {0}; {then}", folder.path("pids"))
}

#[tokio::test]
async fn a_child_that_leaves_its_session_ends_with_its_attempt() {
    let database = database().await;
    for (then, call) in [
        ("exit 0", "kind => 'k'"),
        ("exit 1", "kind => 'k', max_attempts => 1"),
        ("kill -9 $$", "kind => 'k', max_attempts => 1"),
        // This program kills its keeper.
        ("kill -9 $PPID", "kind => 'k', max_attempts => 1"),
        ("wait", "kind => 'k', max_attempts => 1, timeout => '500 ms'"),
        ("kill -STOP $PPID; wait", "kind => 'k', max_attempts => 1, timeout => '500 ms'"),
    ] {
        let folder = Folder::new();
        let worker = work(&database, &leaving(&folder, then), &[]);
        enqueue(&database, call).await;
        let pids = pids(&folder).await;
        assert_eq!(pids.len(), 2);
        idle(&database).await;
        gone(&pids).await;
        drop(worker);
    }
    // A program that is ended at its timeout may add text to the error.
    let errors =
        "select jsonb_agg(split_part(errors -> 0 ->> 'error', '500ms', 1) order by id) from reveille.dead_jobs";
    let late = "took longer than its timeout of ";
    assert_eq!(
        database.value(errors).await,
        json!(["exit status: 1", "signal: 9 (SIGKILL)", "signal: 9 (SIGKILL)", late, late])
    );
}

#[tokio::test]
async fn a_child_that_leaves_its_session_ends_with_its_worker() {
    let (database, folder) = (database().await, Folder::new());
    let worker = work(&database, &leaving(&folder, "wait"), &[]);
    enqueue(&database, "kind => 'k'").await;
    let pids = pids(&folder).await;
    worker.signal("-KILL");
    gone(&pids).await;
}

#[tokio::test]
async fn leftovers_of_an_attempt_end_and_other_attempts_go_on() {
    let (database, folder) = (database().await, Folder::new());
    let beside = Folder::new();
    let program = format!(
        "case $REVEILLE_JOB_KIND in beside) {};; *) {};; esac",
        leaving(&beside, "wait"),
        leaving(&folder, "kill -9 $PPID; wait")
    );
    let _worker = work(&database, &program, &[]);
    enqueue(&database, "kind => 'beside'").await;
    let stay = pids(&beside).await;
    enqueue(&database, "kind => 'k', max_attempts => 1").await;
    gone(&pids(&folder).await).await;
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    assert!(stay.iter().all(|pid| lives(pid)));
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1);
}

#[tokio::test]
async fn a_second_signal_ends_the_grace_period() {
    let database = database().await;
    for signal in ["-TERM", "-INT"] {
        let folder = Folder::new();
        let mut worker = work(&database, &hanging(&folder), &["--grace", "1h"]);
        enqueue(&database, "kind => 'k'").await;
        let pids = pids(&folder).await;
        worker.signal(signal);
        database.until("select stopping from reveille.workers").await;
        assert!(pids.iter().all(|pid| lives(pid)));
        worker.signal(signal);
        assert!(worker.ended().await.success());
        gone(&pids).await;
        let back = database.value("select jsonb_build_array(reserved_at, failures) from reveille.jobs").await;
        assert_eq!(back, json!([null, 0]));
        database.run("delete from reveille.jobs").await;
    }
}

#[tokio::test]
async fn process_1_reaps_orphans_and_loses_no_exit_status() {
    let (database, folder) = (database().await, Folder::new());
    let program = env!("CARGO_BIN_EXE_reveille");
    // The test may lack the right to make a process 1. Then `--init always` makes the worker behave like one.
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc"];
    let may = Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
    let (before, init) =
        if may.is_ok_and(|ended| ended.success()) { (&unshare[..], "auto") } else { (&[][..], "always") };
    // The child of the shell becomes an orphan of the worker, because `exec` keeps the shell's process id.
    let start = format!(
        "sleep 0.2 & exec {program} work --init {init} --queue default=8 --keep-output \
         --exec 'read code; echo $code; exit $code'"
    );
    let line: Vec<&str> = before.iter().copied().chain(["sh", "-c", &start]).collect();
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).env("DATABASE_URL", &database.address);
    let log = std::fs::File::create(folder.path("log")).unwrap();
    let mut worker = Worker(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    database.until("select count(*) = 1 from reveille.workers").await;
    let first = if before.is_empty() { worker.0.id() } else { children(worker.0.id())[0].0 };
    for code in [0, 3].repeat(20) {
        enqueue(&database, &format!("kind => 'k', payload => '{code}', max_attempts => 1")).await;
    }
    idle(&database).await;
    let counts = "select jsonb_build_array((select count(*) from reveille.finished_jobs where result = '0'),
        (select count(*) from reveille.dead_jobs where errors -> 0 ->> 'error' = 'exit status: 3'))";
    assert_eq!(database.value(counts).await, json!([20, 20]));
    eventually("only the worker is left", async || children(first).len() == 1).await;
    kill("-TERM", first);
    assert!(worker.ended().await.success(), "{}", folder.read("log"));
    assert_eq!(database.value("select count(*) from reveille.workers").await, 0);
}
