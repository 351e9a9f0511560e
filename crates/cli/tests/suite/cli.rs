//! The command's answers, exit statuses and one-line errors.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::exec::Worker;
use crate::harness::{DEADLINE, TestDatabase, database, empty_database, soon};

/// The result of a command: exit status, standard output and standard error.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Returns the JSON objects that the command printed, one per line.
    pub fn json(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}: {}", self.err)))
            .collect()
    }

    /// Checks that the command failed with exit status 2, and printed one line that contains each of `parts`.
    #[track_caller]
    pub fn refused(&self, parts: &[&str]) {
        assert_eq!(self.code, 2, "{}{}", self.out, self.err);
        assert!(self.err.starts_with("error: ") && self.err.trim_end().lines().count() == 1, "{}", self.err);
        assert!(parts.iter().all(|part| self.err.contains(part)), "{parts:?} in {}", self.err);
        assert!(!self.err.contains("panicked") && !self.err.contains("secret"), "{}", self.err);
    }
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command
        .args(arguments)
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits for the end of a process, and returns its output. Kills a process that does not end.
pub fn finish(child: Child) -> Output {
    let (sender, ended) = std::sync::mpsc::channel();
    let pid = child.id().to_string();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = ended.recv_timeout(DEADLINE * 5).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-KILL", &pid]).status();
        panic!("too late: the process ends")
    });
    output.unwrap()
}

pub fn run(mut command: Command, input: &str) -> Ended {
    command.stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeding = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = finish(child);
    feeding.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs the command on a test's database.
pub fn reveille(database: &TestDatabase, arguments: &[&str]) -> Ended {
    let mut command = command(arguments);
    command.env("DATABASE_URL", &database.address);
    run(command, "")
}

#[tokio::test]
async fn enqueue_prints_the_id_and_stores_every_option() {
    let database = database().await;
    let arguments =
        ["enqueue", "mail", r#"{"to": "a"}"#, "--queue", "q=x;\"", "--delay", "5m", "--priority", "high", "--key", "k"];
    let more = [
        "--max-attempts",
        "3",
        "--timeout",
        "30s",
        "--tag",
        "a",
        "--tag",
        "b",
        "--metadata",
        r#"{"m": 1}"#,
        "--unique-key",
        "u",
    ];
    let all = [&arguments[..], &more[..]].concat();
    let done = reveille(&database, &all);
    assert_eq!((done.code, &*done.out), (0, "1\n"), "{}", done.err);
    assert_eq!(reveille(&database, &all).out, "1 (existed)\n");
    assert_eq!(reveille(&database, &[&all[..], &["--json"]].concat()).json(), [json!({"id": 1, "existed": true})]);
    let row = "select jsonb_build_array(kind, payload, queue, priority, key, max_attempts, timeout, tags, metadata, \
        unique_key,
        available_at - created_at) from reveille.jobs";
    let expected = json!(["mail", {"to": "a"}, "q=x;\"", 1, "k", 3, "00:00:30", ["a", "b"], {"m": 1}, "u", "00:05:00"]);
    assert_eq!(database.value(row).await, expected);
}

#[tokio::test]
async fn enqueue_reads_times_as_postgres_does_and_payloads_from_stdin() {
    let database = database().await;
    let mut from_stdin = command(&["enqueue", "mail", "-", "--at", "2096-12-24 18:00+01"]);
    from_stdin.env("DATABASE_URL", &database.address);
    assert_eq!(run(from_stdin, "[1, 2]").code, 0);
    let row = "select jsonb_build_array(payload, available_at = '2096-12-24 17:00+00') from reveille.jobs";
    assert_eq!(database.value(row).await, json!([[1, 2], true]));
    reveille(&database, &["enqueue", "mail", "--at", "whenever"]).refused(&["whenever"]);
    reveille(&database, &["enqueue", "mail", "--at", "infinity"]).refused(&["infinity"]);
}

#[tokio::test]
async fn bad_jobs_are_refused_in_one_line() {
    let database = database().await;
    let refused =
        |arguments: &[&str], parts: &[&str]| reveille(&database, &[&["enqueue"], arguments].concat()).refused(parts);
    refused(&["k", "{oops"], &["payload is not JSON", "line 1"]);
    refused(&["k", r#""\u0000""#], &["NUL"]);
    refused(&["", "{}"], &["kind must have 1 to 128 characters"]);
    refused(&["k", "{}", "--queue", ""], &["queue must have"]);
    refused(&["k", "{}", "--priority", "extreme"], &["urgent, high, normal, low"]);
    refused(&["k", "{}", "--delay", "soon"], &["--delay", "500ms"]);
    refused(&["k", "{}", "--max-attempts", "0"], &["--max-attempts"]);
    refused(&["k", "{}", "--metadata", "[]"], &["--metadata must be a JSON object"]);
    refused(&["k", "{}", "--delay", "5m", "--at", "now"], &["cannot be used with"]);
    refused(&["k", "{}", "--no-such-flag"], &["--no-such-flag", "usage"]);
    refused(&[], &["required", "usage"]);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

#[tokio::test]
async fn a_payload_above_the_limit_is_refused_until_the_limit_is_raised() {
    let database = database().await;
    let enqueue = |arguments: &[&str], size: usize| {
        let mut command = command(&[&["enqueue", "k", "-"], arguments].concat());
        command.env("DATABASE_URL", &database.address);
        run(command, &format!("\"{}\"", "x".repeat(size)))
    };
    enqueue(&[], 10_000_000).refused(&["1048576", "--max-payload"]);
    assert_eq!(enqueue(&["--max-payload", "3000000"], 2_000_000).code, 0);
    enqueue(&["--max-payload", "30000000"], 10_000_000).refused(&["payload_is_at_most_8_mib"]);
}

#[tokio::test]
async fn a_queue_with_any_name_is_listed_and_paused() {
    let database = database().await;
    let name = "o'clock; drop schema reveille cascade; -- 🐘\"";
    assert_eq!(reveille(&database, &["enqueue", "k", "--queue", name]).code, 0);
    assert_eq!(reveille(&database, &["pause", name]).code, 0);
    let status = reveille(&database, &["status", "--json"]).json();
    assert_eq!(
        (&status[0]["queue"], &status[0]["paused"], &status[0]["ready"]),
        (&json!(name), &json!(true), &json!(1))
    );
    assert!(reveille(&database, &["status"]).out.contains(name));
    assert_eq!(reveille(&database, &["resume", name]).code, 0);
    assert_eq!(reveille(&database, &["status", "--json"]).json()[0]["paused"], false);
}

#[tokio::test]
async fn jobs_are_listed_by_state() {
    let database = database().await;
    let rows = "insert into reveille.jobs (kind) values ('ready');
        insert into reveille.jobs (kind, available_at) values ('delayed', now() + '1 hour'::interval);
        insert into reveille.jobs (kind, reserved_at, reserved_by, attempts, failures)
        values ('running', now(), 7, 2, 1);
        insert into reveille.jobs (kind) values ('gone'); select reveille.cancel(4)";
    database.run(rows).await;
    let kinds = |arguments: &[&str]| -> Vec<String> {
        let listed = reveille(&database, &[&["jobs", "--json"], arguments].concat());
        assert_eq!(listed.code, 0, "{}", listed.err);
        listed
            .json()
            .iter()
            .map(|job| format!("{} {}", job["kind"].as_str().unwrap(), job["state"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(kinds(&[]), ["running running", "delayed delayed", "ready ready"]);
    assert_eq!(kinds(&["--state", "delayed"]), ["delayed delayed"]);
    assert_eq!(kinds(&["--state", "failing"]), ["running running"]);
    assert_eq!(kinds(&["--state", "cancelled"]), ["gone cancelled"]);
    assert_eq!(kinds(&["--state", "dead"]), Vec::<String>::new());
    assert_eq!(kinds(&["--kind", "ready", "--limit", "1"]), ["ready ready"]);
    reveille(&database, &["jobs", "--state", "odd"]).refused(&["odd", "ready, delayed"]);
    assert!(reveille(&database, &["jobs"]).out.contains("delayed"));
}

#[tokio::test]
async fn a_job_is_shown_wherever_it_is() {
    let database = database().await;
    assert_eq!(reveille(&database, &["enqueue", "k", "[1]"]).code, 0);
    let live = &reveille(&database, &["job", "1", "--json"]).json()[0];
    assert_eq!((&live["state"], &live["payload"], &live["attempts"]), (&json!("ready"), &json!([1]), &json!(0)));
    assert_eq!(reveille(&database, &["cancel", "1"]).out, "1 cancelled\n");
    assert!(reveille(&database, &["job", "1"]).out.contains("cancelled"));
    let unknown = reveille(&database, &["job", "99"]);
    assert_eq!((unknown.code, unknown.err.contains("no job 99")), (1, true));
    reveille(&database, &["job", "x"]).refused(&["'x'"]);
}

#[tokio::test]
async fn retry_and_cancel_answer_for_each_id() {
    let database = database().await;
    database
        .run("insert into reveille.jobs (kind, available_at) values ('a', now() + '1 hour'::interval), ('b', now())")
        .await;
    let retried = reveille(&database, &["retry", "1", "99"]);
    assert_eq!((retried.code, &*retried.out), (1, "1 due\n99 unknown\n"), "one of the two jobs was not found");
    let cancelled = reveille(&database, &["cancel", "1", "2", "--json"]);
    assert_eq!(cancelled.json(), [json!({"id": 1, "answer": "cancelled"}), json!({"id": 2, "answer": "cancelled"})]);
    assert_eq!(cancelled.code, 0);
}

#[tokio::test]
async fn dead_jobs_are_listed_revived_and_purged() {
    let database = database().await;
    let dead = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
        available_at,
            created_at, reason, errors)
        select n, 'q' || n % 2, 'k', '{}', 2, 1, 1, 1, now(), now(), case when n < 3 then 'lost' else 'failed' end,
            '[{\"error\": \"out of luck\"}]' from generate_series(1, 2500) as n;
        select setval('reveille.jobs_id_seq', 2500)";
    database.run(dead).await;
    assert!(reveille(&database, &["dead", "--limit", "3"]).out.contains("out of luck"));
    assert_eq!(reveille(&database, &["dead", "list", "--reason", "lost", "--json"]).json().len(), 2);
    reveille(&database, &["dead", "revive"]).refused(&["--all"]);
    assert_eq!(reveille(&database, &["dead", "revive", "1"]).out, "1 revived\n");
    assert_eq!(reveille(&database, &["dead", "purge", "1"]).code, 1, "the job is not dead any more");
    assert_eq!(reveille(&database, &["dead", "purge", "--reason", "lost"]).out, "1 purged\n");
    assert_eq!(reveille(&database, &["dead", "revive", "--queue", "q1", "--yes"]).out, "1249 revived\n");
    assert_eq!(
        reveille(&database, &["dead", "revive", "--all", "--yes", "--json"]).json(),
        [json!({"revived": 1249, "passed_over": 0, "left_over": 0, "refused": 0})]
    );
    assert_eq!(database.value("select count(*) from reveille.jobs where failures = 0 and attempts = 1").await, 2499);
}

#[tokio::test]
async fn queue_set_changes_only_what_it_names() {
    let database = database().await;
    let set = |settings: &[&str]| reveille(&database, &[&["queue", "set", "q"], settings].concat());
    let row = "select jsonb_build_array(retention, paused_at is not null, bell) from reveille.queues";
    assert_eq!(set(&["retention=12h", "paused=true"]).code, 0);
    assert_eq!(database.value(row).await, json!(["12:00:00", true, true]));
    assert_eq!(set(&["bell=false"]).code, 0);
    assert_eq!(database.value(row).await, json!(["12:00:00", true, false]));
    assert_eq!(set(&["retention=default", "paused=false"]).code, 0);
    assert_eq!(database.value(row).await, json!([null, false, false]));
    assert_eq!(set(&["retention=0"]).code, 0);
    assert_eq!(database.value(row).await, json!(["00:00:00", false, false]));
    set(&["retention=31days"]).refused(&["30 days"]);
    let dead = "select dead_retention from reveille.queues";
    assert_eq!(set(&["dead_retention=90days"]).code, 0);
    assert_eq!(database.value(dead).await, "2160:00:00");
    assert_eq!(set(&["bell=true"]).code, 0);
    assert_eq!(database.value(dead).await, "2160:00:00");
    assert_eq!(set(&["dead_retention=default"]).code, 0);
    assert_eq!(database.value(dead).await, json!(null));
    set(&["dead_retention=40000days"]).refused(&["36500 days"]);
    set(&["colour=red"]).refused(&["unknown setting", "retention, paused, bell", "rate_limit"]);
    set(&["paused=perhaps"]).refused(&["true, false"]);
    set(&["max_running=0"]).refused(&["max_running", "pause"]);
    set(&["paused"]).refused(&["KEY=VALUE"]);
}

#[tokio::test]
async fn workers_and_prune_answer() {
    let database = database().await;
    let worker =
        "insert into reveille.workers (id, host, pid, version, queues, slots) values (7, 'here', 1, '0', '{a,b}', 3)";
    database.run(worker).await;
    let workers = reveille(&database, &["workers", "--json"]).json();
    assert_eq!(
        (&workers[0]["worker"], &workers[0]["queues"], &workers[0]["alive"]),
        (&json!(7), &json!(["a", "b"]), &json!(true))
    );
    assert!(reveille(&database, &["workers"]).out.contains("a, b"));
    assert_eq!(reveille(&database, &["prune"]).out, "emptied 0 days of history\n");
}

#[tokio::test]
async fn listen_prints_each_bell() {
    use std::io::{BufRead, BufReader};
    let database = database().await;
    let mut listen = command(&["listen", "--queue", "mail"]);
    let mut listening = Worker(listen.env("DATABASE_URL", &database.address).spawn().unwrap());
    database.until("select count(*) = 2 from reveille.sleepers").await;
    let mut lines = BufReader::new(listening.0.stdout.take().unwrap()).lines();
    database.run("insert into reveille.jobs (kind, queue) values ('k', 'mail')").await;
    let line = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap());
    assert_eq!(soon("the bell is printed", line).await.unwrap(), "bell mail");
}

#[tokio::test]
async fn the_error_for_an_unusable_database_names_the_next_step() {
    let empty = empty_database().await;
    for command in
        [&["status"][..], &["jobs"], &["enqueue", "k"], &["work", "--exec", "true"], &["pause", "q"], &["dead"]]
    {
        reveille(&empty, command).refused(&["reveille migrate"]);
    }
    let newer = database().await;
    newer
        .run(
            "insert into reveille.schema_history (version, name, applied_on, checksum) \
            values (99, 'x', '2026-01-01T00:00:00Z', '1')",
        )
        .await;
    for command in [&["status"][..], &["migrate"], &["work", "--exec", "true"]] {
        reveille(&newer, command).refused(&["version 99", "newer version of the program"]);
    }
}

#[tokio::test]
async fn the_error_for_an_unreachable_server_hides_the_password() {
    let at = |url: &str| {
        let mut command = command(&["status"]);
        command.env("DATABASE_URL", url);
        run(command, "")
    };
    at("postgres://u:secret@127.0.0.1:1/db").refused(&["127.0.0.1:1", "is the server running"]);
    at("postgres://u:secret@no-such-host.invalid/db").refused(&["no-such-host.invalid"]);
    at("postgres://u:secret@127.0.0.1:x/db").refused(&["address is not valid"]);
    at("nonsense secret").refused(&["address is not valid", "postgres://"]);
    at("postgres://127.0.0.1/db?sslmode=maybe").refused(&["sslmode", "verify-full"]);
}

#[tokio::test]
async fn the_error_for_a_wrong_password_hides_it() {
    let server = reveille::dev::Server::start().unwrap();
    let url = server.url("postgres").replace("//postgres:", "//postgres:secret");
    let mut wrong = command(&["status"]);
    wrong.env("DATABASE_URL", url);
    run(wrong, "").refused(&["password authentication failed", "check the user"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_works_on_the_given_database_and_sums_up_in_json() {
    let database = empty_database().await;
    let demo = reveille(&database, &["demo", "--json", "--database-url", &database.address]);
    assert_eq!(demo.code, 0, "{}", demo.err);
    let [summary] = &demo.json()[..] else { panic!("one object: {}", demo.out) };
    assert_eq!(
        summary["enqueued"].as_u64().unwrap(),
        summary["finished"].as_u64().unwrap() + summary["dead"].as_u64().unwrap()
    );
    assert_eq!((&summary["dead"], &summary["failures"]), (&json!(3), &json!(21)));
    for key in ["p50_ms", "p95_ms", "p99_ms", "seconds"] {
        assert!(summary[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let tables = "select jsonb_build_array((select count(*) from reveille.finished_jobs), \
        (select count(*) from reveille.dead_jobs))";
    assert_eq!(database.value(tables).await, json!([summary["finished"], summary["dead"]]));
}
