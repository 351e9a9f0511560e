//! Each change answers in JSON, too.

use serde_json::{Value, json};

use crate::cli::{reveille, run};
use crate::harness::{TestDatabase, database, empty_database, migrations};

/// Runs a command with `--json`, and returns the one object that it printed, and its exit status.
#[track_caller]
fn answer(database: &TestDatabase, arguments: &[&str]) -> (i32, Value) {
    let ended = reveille(database, &[arguments, &["--json"]].concat());
    let [object] = &ended.json()[..] else { panic!("{arguments:?}: {}{}", ended.out, ended.err) };
    (ended.code, object.clone())
}

#[tokio::test]
async fn migrate_answers_with_what_it_has_applied() {
    let database = empty_database().await;
    let (code, check) = answer(&database, &["migrate", "--check"]);
    assert_eq!((code, &check["current"], &check["applied"]), (1, &json!(false), &json!([])));
    assert!(check["problem"].as_str().unwrap().contains("reveille migrate"), "{check}");
    let done = json!({"current": true, "applied": migrations(), "problem": null});
    assert_eq!(answer(&database, &["migrate"]), (0, done));
    let none = json!({"current": true, "applied": [], "problem": null});
    assert_eq!(answer(&database, &["migrate"]), (0, none.clone()));
    assert_eq!(answer(&database, &["migrate", "--check"]), (0, none));
    run(crate::cli::command(&["migrate", "--print", "--json"]), "").refused(&["cannot be used with"]);
}

#[tokio::test]
async fn changes_of_queues_and_schedules_answer_with_their_names() {
    let database = database().await;
    for (arguments, expected) in [
        (&["pause", "q", "--create"][..], json!({"queue": "q", "answer": "paused"})),
        (&["resume", "q"], json!({"queue": "q", "answer": "resumed"})),
        (&["queue", "set", "q", "max_running=5"], json!({"queue": "q", "answer": "set"})),
        (&["schedule", "add", "s", "k", "--every", "1h"], json!({"schedule": "s", "answer": "scheduled"})),
        (&["schedule", "pause", "s"], json!({"schedule": "s", "answer": "paused"})),
        (&["schedule", "resume", "s"], json!({"schedule": "s", "answer": "resumed"})),
        (&["schedule", "trigger", "s"], json!({"schedule": "s", "answer": "triggered", "job": 1})),
        (&["schedule", "remove", "s"], json!({"schedule": "s", "answer": "removed"})),
        (&["prune"], json!({"answer": "pruned", "emptied_days": 0})),
    ] {
        assert_eq!(answer(&database, arguments), (0, expected), "{arguments:?}");
    }
    for arguments in
        [&["pause", "typo"][..], &["resume", "typo"], &["schedule", "remove", "s"], &["schedule", "trigger", "s"]]
    {
        let unknown = reveille(&database, &[arguments, &["--json"]].concat());
        assert_eq!((unknown.code, &*unknown.out), (1, ""), "{arguments:?}");
    }
}
