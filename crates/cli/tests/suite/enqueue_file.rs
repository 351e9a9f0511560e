//! Enqueuing the jobs of a file.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::cli::{Ended, command, reveille, run};
use crate::exec::{Folder, Worker};
use crate::harness::{TestDatabase, database};

fn enqueue_file(database: &TestDatabase, arguments: &[&str], input: &str) -> Ended {
    let mut enqueue = command(&[&["enqueue", "--from-file"], arguments].concat());
    enqueue.env("DATABASE_URL", &database.address);
    run(enqueue, input)
}

#[tokio::test]
async fn a_file_of_jobs_is_enqueued_with_all_options() {
    let database = database().await;
    let file = concat!(
        "\u{feff}{\"kind\": \"plain\"}\r\n",
        "\n",
        r#"{"kind": "full", "payload": {"n": 12345678901234567890.123}, "queue": "q", "available_at": "tomorrow", "#,
        r#""priority": 1, "max_attempts": 3, "timeout": "1 hour 30 seconds", "key": "k", "tags": ["a", "b"], "#,
        r#""metadata": {"m": 1}, "parent_id": 9, "unique_key": "u", "unique_until": "1 hour"}"#,
        "\n",
        r#"{"kind": "full", "unique_key": "u", "payload": null, "queue": null}"#,
        "\n",
        r#"{"kind": "later", "delay": "5 minutes", "priority": "low", "timeout": 1.5}"#,
    );
    let enqueued = enqueue_file(&database, &["-"], file);
    assert_eq!((enqueued.code, &*enqueued.out), (0, "3 enqueued, 1 existed\n"), "{}", enqueued.err);
    let full = "select jsonb_build_array(queue, payload ->> 'n', priority, max_attempts, timeout, key, tags, metadata, \
        parent_id, unique_key, available_at = 'tomorrow') from reveille.jobs where kind = 'full'";
    let expected = json!(["q", "12345678901234567890.123", 1, 3, "01:00:30", "k", ["a", "b"], {"m": 1}, 9, "u", true]);
    assert_eq!(database.value(full).await, expected);
    let later = "select jsonb_build_array(available_at - created_at, priority, timeout) from reveille.jobs \
        where kind = 'later'";
    assert_eq!(database.value(later).await, json!(["00:05:00", 3, "00:00:01.5"]));
    let again = enqueue_file(&database, &["-", "--json"], "");
    assert_eq!(again.json(), [json!({"enqueued": 0, "existed": 0})]);
}

#[tokio::test]
async fn one_bad_line_is_named_and_nothing_of_the_file_is_enqueued() {
    let database = database().await;
    let good = "{\"kind\": \"k\"}\n".repeat(1500);
    for (line, part) in [
        (r#"{"kind": 5}"#, "expected a string"),
        (r#"{"kind": "k", "dely": 5}"#, "unknown field `dely`"),
        (r#"{"kind": "k""#, "EOF"),
        (r#"["k"]"#, "a JSON object"),
        (r#"{"kind": ""}"#, "1 to 128 characters"),
        (r#"{"payload": 1}"#, "missing field `kind`"),
        (r#"{"kind": "k", "payload": "\u0000"}"#, "NUL"),
        (r#"{"kind": "k", "delay": "soon"}"#, "soon"),
        (r#"{"kind": "k", "delay": -1}"#, "from 0 on"),
        (r#"{"kind": "k", "delay": "-1 s"}"#, "from 0 on"),
        (r#"{"kind": "k", "available_at": "whenever"}"#, "whenever"),
        (r#"{"kind": "k", "available_at": "infinity"}"#, "infinity"),
        (r#"{"kind": "k", "delay": 1, "available_at": "now"}"#, "not both"),
        (r#"{"kind": "k", "priority": 4}"#, "priority"),
        (r#"{"kind": "k", "tags": [null]}"#, "expected a string"),
        (r#"{"kind": "k", "metadata": []}"#, "object"),
        (r#"{"kind": "k", "unique_until": "1 hour"}"#, "unique key"),
        (r#"{"kind": "k", "unique_mode": "odd"}"#, "`debounce`"),
        ("\u{1b}[31m", "expected a JSON object"),
    ] {
        let ended = enqueue_file(&database, &["-"], &format!("{good}{line}\n{good}"));
        ended.refused(&["line 1501: ", part, "nothing was enqueued"]);
        assert_eq!(ended.out, "");
    }
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
    let large =
        enqueue_file(&database, &["-", "--max-payload", "10"], "{\"kind\": \"k\", \"payload\": \"0123456789\"}");
    large.refused(&["line 1: ", "12 bytes"]);
    enqueue_file(&database, &["/no/such/file"], "").refused(&["/no/such/file"]);
    enqueue_file(&database, &["-", "--queue", "q"], "").refused(&["--queue"]);
    reveille(&database, &["enqueue"]).refused(&["KIND"]);
    // A refusal of the server undoes the earlier lines, too.
    database.run("alter table reveille.jobs add constraint no_two check (payload <> '2')").await;
    let file: String = (0..1500).map(|n| format!("{{\"kind\": \"k\", \"payload\": {}}}\n", n / 1400)).collect();
    assert_eq!(enqueue_file(&database, &["-"], &file).code, 0);
    let file = format!("{file}{{\"kind\": \"k\", \"payload\": 2}}");
    enqueue_file(&database, &["-"], &file).refused(&["lines 1001 to 1501", "no_two", "nothing was enqueued"]);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1500);
}

#[tokio::test]
async fn a_file_can_be_committed_in_parts() {
    let database = database().await;
    let folder = Folder::new();
    let path = folder.0.join("jobs.ndjson");
    let lines: String = (0..5200).map(|n| format!("{{\"kind\": \"k\", \"payload\": {n}}}\n")).collect();
    std::fs::write(&path, format!("{lines}oops\n")).unwrap();
    let ended = enqueue_file(&database, &[path.to_str().unwrap(), "--commit-every", "2500"], "");
    ended.refused(&["line 5201", "the first 5000 jobs were enqueued"]);
    let stored = "select jsonb_build_array(count(*), max((payload #>> '{}')::int), count(distinct xmin::text))
        from reveille.jobs";
    assert_eq!(database.value(stored).await, json!([5000, 4999, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_as_it_comes_and_not_as_a_whole() {
    let database = database().await;
    let mut enqueue = command(&["enqueue", "--from-file", "-", "--commit-every", "1000"]);
    let mut process = Worker(enqueue.env("DATABASE_URL", &database.address).stdin(Stdio::piped()).spawn().unwrap());
    let mut input = process.0.stdin.take().unwrap();
    for part in 1..=3 {
        input.write_all("{\"kind\": \"k\"}\n".repeat(1000).as_bytes()).unwrap();
        database.until(&format!("select count(*) >= {} from reveille.jobs", (part - 1) * 1000)).await;
    }
    drop(input);
    assert!(process.ended().await.success());
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 3000);
}
