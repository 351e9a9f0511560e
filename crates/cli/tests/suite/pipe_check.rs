//! `reveille pipe-check`, and the child in `examples/`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::exec::enqueue;
use crate::harness::database;
use crate::pipe::{DONE, child, pipe};

/// Checks a child. Returns whether it passed, and the checks by name.
fn check(child: &str, more: &[&str]) -> (bool, Vec<(String, bool, String)>) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_reveille")).args(["pipe-check", "--json", child]).args(more).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let checks = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).map(|found| {
        let text = |name: &str| found[name].as_str().unwrap().to_owned();
        (text("check"), found["ok"] == true, text("detail"))
    });
    (output.status.success(), checks.collect())
}

/// Makes some of the checks. Returns the names of those that fail.
fn failed(child: &str, only: &[&str]) -> Vec<String> {
    let only = only.iter().flat_map(|name| ["--only", name]);
    let (passed, checks) =
        check(child, &["--within", "2s", "--slots", "3"].into_iter().chain(only).collect::<Vec<_>>());
    let failed: Vec<String> = checks.into_iter().filter(|(_, ok, _)| !ok).map(|(name, _, _)| name).collect();
    assert_eq!(passed, failed.is_empty());
    failed
}

fn good_child() -> String {
    format!("exec {} pipe-child", env!("CARGO_BIN_EXE_reveille"))
}

#[test]
fn a_child_that_keeps_the_protocol_passes_every_check() {
    let (passed, checks) = check(&good_child(), &[]);
    assert!(passed && checks.len() == 11, "{checks:?}");
    assert_eq!(checks[0], ("ready".into(), true, "version 1, all kinds".into()));
}

#[test]
fn a_child_that_breaks_a_rule_fails_the_check_of_that_rule() {
    assert_eq!(failed("exit 3", &[]), ["ready"]);
    assert_eq!(failed("echo hello; exec sleep 1000", &[]), ["ready"]);
    assert_eq!(failed(&child(&format!("{DONE}; {DONE}"), ""), &["one-by-one"]), ["one-by-one"]);
    assert_eq!(failed(&child("", DONE), &["one-by-one", "cancel"]), ["one-by-one"]);
    assert_eq!(failed(&child(DONE, DONE), &["all-slots", "late-cancel"]), ["late-cancel"]);
    let never_exits = child(DONE, "").replace("exit 0", ":");
    assert_eq!(failed(&never_exits, &["stop", "end-of-input", "unknown-message"]), ["stop", "unknown-message"]);
}

fn node() -> bool {
    let found = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("node is missing: examples/pipe_worker.mjs is not run");
    }
    found
}

fn example() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/pipe_worker.mjs").canonicalize().unwrap();
    format!("exec node '{}'", script.display())
}

#[test]
fn the_example_in_node_keeps_the_protocol() {
    if node() {
        let (passed, checks) = check(&example(), &["--payload", "{\"to\": \"ada@example.org\"}"]);
        assert!(passed, "{checks:?}");
    }
}

#[tokio::test]
async fn the_example_in_node_sends_refuses_and_stops_when_cancelled() {
    if !node() {
        return;
    }
    let database = database().await;
    let _worker = pipe(&database, &example(), &["--children", "2"]);
    enqueue(&database, "'send_mail', '{\"to\": \"ada@example.org\"}'").await;
    enqueue(&database, "'send_mail', '{\"to\": \"nobody\"}'").await;
    enqueue(&database, "'wait', '{\"seconds\": 1000}'").await;
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    let sent = "select jsonb_build_array(result, progress) from reveille.finished_jobs";
    assert_eq!(database.value(sent).await, json!([{"sent_to": "ada@example.org"}, {"step": "sent"}]));
    assert_eq!(database.value("select reason from reveille.dead_jobs").await, "permanent");
    database.until("select reserved_at is not null from reveille.jobs where kind = 'wait'").await;
    assert_eq!(database.value("select reveille.cancel(3)").await, "requested");
    database.until("select outcome = 'cancelled' from reveille.finished_jobs where kind = 'wait'").await;
    assert_eq!(database.value("select kinds from reveille.workers").await, json!(["send_mail", "wait"]));
}
