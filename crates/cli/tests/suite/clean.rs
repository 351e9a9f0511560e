//! Text from jobs, notifications, servers and arguments is shown. No terminal obeys the text, and the text cannot forge
//! a line of a log.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::cli::{Ended, reveille};
use crate::harness::{TestDatabase, database, eventually, soon};

/// A colour, a window title, a C1 control, changes of the text's direction, and a line break before a forged line.
const EVIL: &str = "\x1b[31m\x1b]0;x\x07\u{9b}1m\u{202e}\u{2067}\u{200f}\nforged";

/// Returns `EVIL` as an SQL string.
fn evil() -> String {
    format!("'{EVIL}'")
}

/// Returns the characters of a text that a terminal obeys, except line ends.
fn obeyed(text: &str) -> Vec<char> {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|&c| c != '\n' && (c.is_control() || turns(c))).collect()
}

#[track_caller]
fn is_clean(ended: &Ended) {
    for text in [&ended.out, &ended.err] {
        assert!(obeyed(text).is_empty() && !text.lines().any(|line| line.starts_with("forged")), "{text:?}");
    }
}

async fn evil_database() -> TestDatabase {
    let database = database().await;
    let evil = evil();
    database
        .run(&format!(
            "insert into reveille.jobs (kind, queue, key, tags, payload, metadata, attempts, failures, errors)
                 values ({evil}, {evil}, {evil}, array[{evil}], to_jsonb({evil}::text),
                     jsonb_build_object({evil}, {evil}), 1, 1, jsonb_build_array(jsonb_build_object(
                         'error', {evil}, 'at', {evil}, 'attempt', 1, 'reason', {evil})));
             insert into reveille.dead_jobs (id, queue, kind, payload, errors, priority, attempts, failures,
                 max_attempts, available_at, created_at, reason)
                 select id, queue, kind, payload, errors, priority, 1, 1, 1, now(), now(), 'failed' from reveille.jobs;
             insert into reveille.workers (id, host, pid, version, queues, slots)
                 values (7, {evil}, 1, {evil}, array[{evil}], 1);
             insert into reveille.queues (name, max_running) values ({evil}, 1);
             select reveille.schedule(name => {evil}, cron => '* * * * *', kind => {evil})"
        ))
        .await;
    database
}

#[tokio::test]
async fn no_command_prints_control_characters_of_a_job() {
    let database = evil_database().await;
    for arguments in [
        &["jobs"][..],
        &["jobs", "--state", "failing"],
        &["job", "1"],
        &["dead", "list"],
        &["status"],
        &["workers"],
        &["schedule", "list"],
        &["queue", "limits"],
        &["doctor"],
        &["top", "--once"],
        &["top", "--once", "--table", "failing"],
        &["top", "--once", "--table", "waiting"],
        &["top", "--once", "--table", "dead"],
        &["top", "--once", "--table", "workers"],
        &["top", "--once", "--table", "schedules"],
        &["top", "--once", "--table", "limits"],
    ] {
        let shown = reveille(&database, arguments);
        assert!(shown.code < 2, "{arguments:?}: {}", shown.err);
        is_clean(&shown);
        assert!(arguments == ["doctor"] || shown.out.contains("\\u001b[31m"), "{arguments:?}: {}", shown.out);
        if arguments[0] != "top" {
            let json = reveille(&database, &[arguments, &["--json"]].concat());
            is_clean(&json);
            let has_evil = json.json().iter().any(|object| object.to_string().contains("\u{202e}"));
            assert!(arguments == ["doctor"] || has_evil, "{arguments:?}: the JSON has the stored text: {}", json.out);
        }
    }
}

#[tokio::test]
async fn no_message_repeats_control_characters_of_an_argument() {
    let database = database().await;
    for arguments in [
        &["job", EVIL][..],
        &["jobs", "--state", EVIL],
        &["pause", EVIL],
        &["resume", EVIL],
        &["drain", EVIL],
        &["enqueue", "x", EVIL],
        &["enqueue", "x", "--at", EVIL],
        &["queue", "set", EVIL, "max_running=1"],
        &["queue", "set", "x", EVIL],
        &["schedule", "remove", EVIL],
        &["schedule", "next", EVIL],
        &["work", "--exec", "true", "--queue", &format!("{EVIL}=0")],
        &["status", "--database-url", &format!("postgres://{EVIL}@localhost/x?{EVIL}")],
        &["status", "--schema", EVIL],
        &[EVIL],
    ] {
        let ended = reveille(&database, arguments);
        assert!(!ended.out.is_empty() || !ended.err.is_empty(), "{arguments:?}");
        is_clean(&ended);
    }
}

/// A running command. Dropping this kills the process.
struct AtWork(Child);

impl Drop for AtWork {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn at_work(database: &TestDatabase, arguments: &[&str]) -> AtWork {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(arguments).env("DATABASE_URL", &database.address).env("RUST_LOG", "debug");
    AtWork(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_prints_one_clean_line_for_each_notification() {
    let database = database().await;
    let mut listening = at_work(&database, &["listen"]);
    let mut lines = BufReader::new(listening.0.stdout.take().unwrap());
    database.until("select count(*) = 1 from reveille.workers").await;
    let notify = format!("select pg_notify('reveille.bell', {0}), pg_notify('reveille.pause', {0})", evil());
    database.run(&notify).await;
    let reading = tokio::task::spawn_blocking(move || {
        ["bell", "pause"].map(|signal| {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            (signal, line)
        })
    });
    for (signal, line) in soon("both lines are printed", reading).await.unwrap() {
        assert!(obeyed(&line).is_empty() && line.starts_with(&format!("{signal} \\u001b[31m")), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_logs_no_control_characters_of_a_job() {
    let database = evil_database().await;
    database.run("delete from reveille.dead_jobs; update reveille.jobs set max_attempts = 2").await;
    let program = "printf '\\033[31mcolour\\r\\302\\233forged\\n' >&2; exit 1";
    let mut working = at_work(&database, &["work", "--exec", program, "--queue", EVIL]);
    let lines = BufReader::new(working.0.stderr.take().unwrap());
    let logged = std::thread::spawn(move || lines.lines().map_while(Result::ok).collect::<Vec<_>>());
    database.until("select count(*) = 0 from reveille.jobs where schedule_id is null").await;
    assert!(Command::new("kill").arg(working.0.id().to_string()).status().unwrap().success());
    eventually("the worker ends", async || logged.is_finished()).await;
    let logged = logged.join().unwrap();
    for line in &logged {
        assert!(obeyed(line).is_empty() && !line.starts_with("forged"), "{line:?}");
    }
    let has = |part: &str| logged.iter().any(|line| line.contains(part));
    assert!(has("kind=\"\\u{1b}[31m") && has("colour") && has("\\u001b[31mcolour"), "{logged:#?}");
}

#[test]
fn only_the_module_for_output_prints() {
    fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { sources(&path, found) } else { found.push(path) }
        }
    }
    let mut files = Vec::new();
    sources(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    assert!(files.len() > 30);
    for file in files.iter().filter(|file| !file.ends_with("output.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for way in
            ["print!(", "println!(", "io::stdout().lock", "io::stderr().lock", "stdout().write", "stderr().write"]
        {
            assert!(!text.contains(way), "{way} in {}: print by way of output.rs", file.display());
        }
    }
}
