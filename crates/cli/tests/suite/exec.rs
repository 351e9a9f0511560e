//! `reveille work --exec`: a worker for programs in any language.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use reveille::job::NewJob;
use serde_json::{Value, json};

use crate::harness::{TestDatabase, database, note, soon};

/// A worker process. Dropping this kills the process.
pub struct Worker(pub Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Worker {
    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = async {
            while status.is_none() {
                status = self.0.try_wait().unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the worker ends", ended).await;
        status.unwrap()
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }
}

pub fn work(database: &TestDatabase, exec: &str, more: &[&str]) -> Worker {
    work_by(env!("CARGO_BIN_EXE_reveille"), database, exec, more)
}

pub fn work_by(program: &str, database: &TestDatabase, exec: &str, more: &[&str]) -> Worker {
    let mut command = Command::new(program);
    command.args(["work", "--queue", "default=2", "--exec", exec]).args(more).env("DATABASE_URL", &database.address);
    command.env("TRACEPARENT", "the worker's own, not a job's").env("TRACESTATE", "likewise");
    Worker(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// A folder for the files that a test's commands write. Dropping this removes the folder.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        let folder =
            std::env::temp_dir().join(format!("reveille-test-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub async fn enqueue(database: &TestDatabase, call: &str) {
    database.run(&format!("select reveille.enqueue({call})")).await;
}

pub async fn idle(database: &TestDatabase) {
    database.until("select count(*) = 0 from reveille.jobs").await;
}

#[tokio::test]
async fn a_worker_whose_executable_was_removed_works_on() {
    let (database, folder) = (database().await, Folder::new());
    enqueue(&database, "'x'").await;
    let program = folder.path("reveille");
    std::fs::copy(env!("CARGO_BIN_EXE_reveille"), &program).unwrap();
    let _worker = work_by(&program, &database, "true", &[]);
    std::fs::remove_file(&program).unwrap();
    idle(&database).await;
}

#[tokio::test]
async fn metadata_reaches_a_command_unchanged_or_its_job_is_dead() {
    let (database, folder) = (database().await, Folder::new());
    let exec = format!("printf '%s\\n' \"$REVEILLE_JOB_METADATA\" >>{}", folder.path("seen"));
    let odd =
        ["", "'\"`$(true)\\\\", "a\nb\tc", "-n", "%s%n", "\u{1f514}\u{202e}é", "\u{1}\u{7f}", &"x".repeat(100_000)];
    for (place, odd) in odd.iter().chain([&"x".repeat(200_000).as_str()]).enumerate() {
        let job = NewJob::of(&note("x")).unwrap().metadata(&json!({ *odd: place })).unwrap();
        reveille::enqueue(&database.database, &job).await.unwrap();
    }
    let _worker = work(&database, &exec, &[]);
    idle(&database).await;
    let seen = folder.read("seen");
    let mut seen: Vec<Value> = seen.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    seen.sort_by_key(|metadata| metadata.as_object().unwrap().values().next().unwrap().as_u64());
    let expected: Vec<Value> = odd.iter().enumerate().map(|(place, odd)| json!({ *odd: place })).collect();
    assert_eq!(seen, expected);
    let dead =
        "select jsonb_build_array(reason, failures, errors -> 0 ->> 'error' like '%metadata%') from reveille.dead_jobs";
    assert_eq!(database.value(dead).await, json!(["permanent", 1, true]));
}

#[tokio::test]
async fn a_command_gets_payload_and_environment() {
    let (database, folder) = (database().await, Folder::new());
    let exec = format!(
        "cat >{0}; echo \" $REVEILLE_JOB_ID $REVEILLE_JOB_KIND $REVEILLE_JOB_QUEUE $REVEILLE_JOB_ATTEMPT \
            $REVEILLE_JOB_FAILURES \
         $REVEILLE_JOB_MAX_ATTEMPTS $REVEILLE_JOB_KEY $REVEILLE_JOB_TAGS $REVEILLE_JOB_METADATA\" >>{0}",
        folder.path("seen")
    );
    let _worker = work(&database, &exec, &[]);
    let call = "kind => 'greet', payload => '{\"a\": \"ü\"}', key => 'k', tags => '{x,y}', metadata => '{\"m\": 1}', \
        max_attempts => 4";
    enqueue(&database, call).await;
    idle(&database).await;
    assert_eq!(folder.read("seen"), "{\"a\": \"ü\"} 1 greet default 1 0 4 k x,y {\"m\": 1}\n");
    assert_eq!(database.value("select outcome from reveille.finished_jobs").await, "completed");
}

#[tokio::test]
async fn a_command_gets_the_trace_of_its_job() {
    let (database, folder) = (database().await, Folder::new());
    let exec = format!("echo \"$TRACEPARENT ${{TRACESTATE-none}}\" >>{}", folder.path("seen"));
    let _worker = work(&database, &exec, &[]);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for metadata in [json!({"traceparent": parent, "tracestate": "a=1"}), json!({"traceparent": parent}), json!({})] {
        enqueue(&database, &format!("kind => 'k', metadata => '{metadata}'")).await;
        idle(&database).await;
    }
    assert_eq!(folder.read("seen"), format!("{parent} a=1\n{parent} none\n none\n"));
}

#[tokio::test]
async fn the_exit_status_decides_how_the_job_ends() {
    let database = database().await;
    let _worker =
        work(&database, "read code; echo first >&2; echo \"because $code\" >&2; exit $code", &["--later", "1h"]);
    for code in [0, 75, 65, 3] {
        enqueue(&database, &format!("kind => 'k', payload => '{code}', max_attempts => 1")).await;
    }
    database.until("select count(*) = 2 from reveille.dead_jobs").await;
    database.until("select available_at > now() from reveille.jobs").await;
    let dead = database
        .value(
            "select jsonb_agg(jsonb_build_array(payload, reason, errors -> 0 -> 'error') \
        order by id) from reveille.dead_jobs",
        )
        .await;
    let expected = json!([
        [65, "permanent", "exit status 65: first\nbecause 65"],
        [3, "failed", "exit status: 3: first\nbecause 3"]
    ]);
    assert_eq!(dead, expected);
    let later = database.value("select jsonb_build_array(payload, failures, attempts) from reveille.jobs").await;
    assert_eq!(later, json!([75, 0, 1]));
    assert_eq!(database.value("select payload from reveille.finished_jobs").await, 0);
}

#[tokio::test]
async fn only_the_end_of_a_long_stderr_is_kept() {
    let database = database().await;
    let _worker = work(&database, "seq 1 100000 >&2; exit 1", &[]);
    enqueue(&database, "kind => 'k', max_attempts => 1").await;
    idle(&database).await;
    let error = database.value("select errors -> 0 ->> 'error' from reveille.dead_jobs").await;
    let lines: Vec<&str> = error.as_str().unwrap().lines().collect();
    assert_eq!((lines.len(), lines[19]), (20, "100000"));
}

#[tokio::test]
async fn a_command_may_ignore_its_input_or_be_killed() {
    let database = database().await;
    let _worker = work(&database, "test \"$REVEILLE_JOB_KIND\" = ignores || kill -9 $$", &[]);
    enqueue(&database, "kind => 'ignores', payload => to_jsonb(repeat('x', 500000))").await;
    enqueue(&database, "kind => 'dies', max_attempts => 1").await;
    idle(&database).await;
    let error = database.value("select errors -> 0 ->> 'error' from reveille.dead_jobs").await;
    assert!(error.as_str().unwrap().contains("signal: 9"), "{error}");
    assert_eq!(database.value("select kind from reveille.finished_jobs").await, "ignores");
}

#[tokio::test]
async fn output_is_kept_as_the_result_if_asked_for() {
    let database = database().await;
    let _worker = work(&database, "cat; sleep 1000 & echo shown >&2", &["--keep-output"]);
    for payload in [r#"'{"rows": 7}'"#, "'\"a word\"'"] {
        enqueue(&database, &format!("kind => 'k', payload => {payload}")).await;
    }
    database.until("select count(*) = 2 from reveille.finished_jobs").await;
    let results = database.value("select jsonb_agg(result order by id) from reveille.finished_jobs").await;
    assert_eq!(results, json!([{"rows": 7}, "a word"]));
}

#[tokio::test]
async fn output_that_is_not_json_is_text_and_too_much_is_dropped() {
    let database = database().await;
    let program = r#"case "$REVEILLE_JOB_KIND" in
        text) printf 'two\nlines\n';; silent) ;; much) head -c 2000000 /dev/zero;; fails) echo no; exit 1;;
    esac"#;
    let _worker = work(&database, program, &["--keep-output"]);
    for kind in ["text", "silent", "much"] {
        enqueue(&database, &format!("kind => '{kind}'")).await;
    }
    enqueue(&database, "kind => 'fails', max_attempts => 1").await;
    database.until("select count(*) = 3 from reveille.finished_jobs").await;
    let results = database.value("select jsonb_object_agg(kind, result) from reveille.finished_jobs").await;
    assert_eq!(results, json!({"text": "two\nlines", "silent": null, "much": null}));
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
}

#[tokio::test]
async fn queues_get_the_slots_that_were_asked_for() {
    let database = database().await;
    let _worker = work(&database, "true", &["--queue", "a=b=7", "--queue", "c=d=2"]);
    database.until("select count(*) = 1 from reveille.workers").await;
    let row = database.value("select jsonb_build_array(queues, slots) from reveille.workers").await;
    assert_eq!(row, json!([["default", "a=b", "c=d"], 11]));
}

/// Returns the peak memory of a process, in MB.
pub fn most_memory(worker: &Worker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn endless_output_without_lines_costs_no_memory() {
    let database = database().await;
    let program = "head -c 300000000 /dev/zero >&2; head -c 300000000 /dev/zero; exit 1";
    let worker = work(&database, program, &["--keep-output"]);
    for _ in 0..2 {
        enqueue(&database, "kind => 'k', max_attempts => 1").await;
    }
    database.until("select count(*) = 2 from reveille.dead_jobs").await;
    assert!(most_memory(&worker) < 150, "{} MB", most_memory(&worker));
    let error = database.value("select min(length(errors -> 0 ->> 'error')) from reveille.dead_jobs").await;
    assert!(error.as_u64().unwrap() < 9000, "{error}");
}

#[tokio::test]
async fn long_numbers_and_deep_json_are_kept_as_printed() {
    let database = database().await;
    let program = r#"case "$REVEILLE_JOB_KIND" in
        long) echo '{"n": 12345678901234567890123}';; large) echo '[1e400]';; half) printf '"\\ud800"';;
        deep) printf '%0300d' 0 | tr 0 '['; printf '%0300d' 0 | tr 0 ']';;
    esac"#;
    let _worker = work(&database, program, &["--keep-output"]);
    for kind in ["long", "large", "half", "deep"] {
        enqueue(&database, &format!("kind => '{kind}'")).await;
    }
    database.until("select count(*) = 4 from reveille.finished_jobs").await;
    let result = async |kind: &str| {
        database.value(&format!("select result::text from reveille.finished_jobs where kind = '{kind}'")).await
    };
    assert_eq!(result("long").await, "{\"n\": 12345678901234567890123}");
    assert_eq!(result("large").await, format!("[1{}]", "0".repeat(400)));
    assert_eq!(result("half").await, "\"\\\"\\\\ud800\\\"\"", "output that is no JSON text is kept as printed");
    assert_eq!(result("deep").await, format!("{}{}", "[".repeat(300), "]".repeat(300)));
}

#[tokio::test]
async fn a_payload_reaches_a_command_as_it_is_stored() {
    let (database, folder) = (database().await, Folder::new());
    let payload = format!("{{\"n\": 12345678901234567890123, \"deep\": {}{}}}", "[".repeat(300), "]".repeat(300));
    let _worker = work(&database, &format!("cat >{}", folder.path("seen")), &[]);
    enqueue(&database, &format!("kind => 'k', payload => '{payload}'")).await;
    idle(&database).await;
    assert_eq!(json!(folder.read("seen")), database.value("select payload::text from reveille.finished_jobs").await);
}

#[tokio::test]
async fn a_command_gets_the_databases_address_only_if_asked_for() {
    let database = database().await;
    let program = "env | grep -E '^(DATABASE_URL|REVEILLE_LISTEN_URL|PG[A-Z]*)=' | sed 's/=.*//' | sort | tr '\\n' ' '";
    for (more, expected) in [
        (&["--keep-output"][..], Value::Null),
        (&["--keep-output", "--pass-database"], json!("DATABASE_URL PGAPPNAME PGPASSWORD REVEILLE_LISTEN_URL ")),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(["work", "--exec", program]).args(more);
        for name in ["DATABASE_URL", "REVEILLE_LISTEN_URL"] {
            command.env(name, &database.address);
        }
        command.env("PGPASSWORD", "secret").env("PGAPPNAME", "x").stdin(Stdio::null()).stdout(Stdio::null());
        let _worker = Worker(command.stderr(Stdio::null()).spawn().unwrap());
        enqueue(&database, "kind => 'k'").await;
        idle(&database).await;
        assert_eq!(
            database.value("select result from reveille.finished_jobs order by id desc limit 1").await,
            expected
        );
    }
}
