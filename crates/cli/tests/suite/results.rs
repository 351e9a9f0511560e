//! The command waits for a job's result.

use reveille::Outcome;
use reveille::job::Payload;
use serde_json::{Value, json};

use crate::harness::{Note, TestDatabase, database, start, worker};

fn payload(value: Value) -> Payload {
    Payload::encode(&value).unwrap()
}

/// Runs the command without blocking the test.
async fn command(database: &TestDatabase, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = crate::cli::command(arguments);
    command.env("DATABASE_URL", &database.address);
    let ended = tokio::task::spawn_blocking(move || crate::cli::run(command, "")).await.unwrap();
    (Some(ended.code), ended.out, ended.err)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_waits_for_the_result() {
    async fn ends(note: Note) -> Outcome {
        match note.text.as_str() {
            "die" => Outcome::Dead("no\tmore".into()),
            "cancel" => Outcome::Cancel,
            "nothing" => Outcome::Complete,
            text => Outcome::CompleteWith(payload(json!({"text": text}))),
        }
    }
    let database = database().await;
    let running = start(worker(&database).handle(ends));
    let wait = async |text: &str, more: &[&str]| {
        let payload = json!({"text": text}).to_string();
        command(&database, &[&["enqueue", "note", &payload, "--wait"], more].concat()).await
    };
    assert_eq!(wait("hello", &[]).await, (Some(0), "{\"text\":\"hello\"}\n".into(), String::new()));
    assert_eq!(wait("nothing", &["--wait-timeout", "1m"]).await, (Some(0), String::new(), String::new()));
    let (code, out, err) = wait("die", &[]).await;
    assert_eq!((code, &*out, &*err), (Some(1), "", "job 3 is dead: no more\n"));
    let (code, out, _) = wait("cancel", &["--json"]).await;
    let expected = json!({"id": 4, "existed": false, "outcome": "cancelled", "result": null, "error": null});
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (Some(1), expected));
    running.stop().await;
    let (code, _, err) = wait("late", &["--wait-timeout", "50ms"]).await;
    assert_eq!((code, &*err), (Some(1), "job 5 has not ended within 50ms\n"));
    let (_, shown, _) = command(&database, &["job", "1"]).await;
    assert!(shown.contains("result") && shown.contains("{\"text\":\"hello\"}"), "{shown}");
}
