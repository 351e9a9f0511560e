//! Live control: cancelling, timeouts, pausing, draining, and stopping a worker from another session.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reveille::{State, enqueue, enqueue::enqueue_all};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::{Note, TestDatabase, database, note, soon, start, worker};

/// A worker process with two slots. Dropping this kills the process.
struct Process(Child);

impl Process {
    fn start(database: &TestDatabase, program: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(["work", "--queue", "default=2", "--exec", program]).env("DATABASE_URL", &database.address);
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Waits for the end of the process, and returns its exit status.
    async fn ended(mut self) -> Option<i32> {
        soon("the process ends", async {
            loop {
                if let Some(status) = self.0.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the command, and returns its exit status and the JSON objects that it printed.
async fn reveille(database: &TestDatabase, arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut command = crate::cli::command(arguments);
    command.arg("--json").env("DATABASE_URL", &database.address);
    let ended = tokio::task::spawn_blocking(move || crate::cli::run(command, "")).await.unwrap();
    (ended.code, ended.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_by_sql_stops_a_handler_in_another_process() {
    let database = database().await;
    let _process = Process::start(&database, "trap 'exit 1' TERM; sleep 1000 & wait");
    for id in 1..=3 {
        enqueue(&database.database, &note("x")).await.unwrap();
        database.until(&format!("select reserved_at is not null from reveille.jobs where id = {id}")).await;
        assert_eq!(database.value(&format!("select reveille.cancel({id})")).await, "requested");
        database.until(&format!("select outcome = 'cancelled' from reveille.finished_jobs where id = {id}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_stop_is_shown_as_stuck_until_it_ends() {
    async fn ignores(_: Note, State(gate): State<Arc<Notify>>) {
        gate.notified().await;
    }
    let database = database().await;
    let gate = Arc::new(Notify::new());
    let worker = start(worker(&database).state(gate.clone()).handle(ignores));
    let id = enqueue(&database.database, &note("x")).await.unwrap().id;
    database.until("select reserved_at is not null from reveille.jobs").await;
    assert_eq!(reveille(&database, &["jobs", "--state", "stuck"]).await, (0, vec![]));
    database.run(&format!("select reveille.cancel({id})")).await;
    database.until("select stuck_since > cancel_requested_at - interval '1 s' from reveille.running_jobs").await;
    assert_eq!(database.value("select stuck from reveille.worker_status").await, 1);
    let (_, stuck) = reveille(&database, &["jobs", "--state", "stuck"]).await;
    assert_eq!((stuck.len(), &stuck[0]["id"], stuck[0]["stuck_since"].is_string()), (1, &json!(id), true));
    let (_, shown) = reveille(&database, &["job", &id.to_string()]).await;
    assert_eq!(shown[0]["stuck_since"], stuck[0]["stuck_since"]);
    gate.notify_one();
    database.until("select outcome = 'completed' from reveille.finished_jobs").await;
    database.until("select stuck = 0 from reveille.worker_status").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_reaches_jobs_that_other_processes_have_claimed() {
    let database = database().await;
    let quick: Vec<Note> = vec![note("quick"); 100];
    enqueue_all(&database.database, &quick).await.unwrap();
    let slow: Vec<Note> = vec![note("slow"); 100];
    enqueue_all(&database.database, &slow).await.unwrap();
    let program = "case $(cat) in *slow*) sleep 0.1;; esac";
    let _processes = [Process::start(&database, program), Process::start(&database, program)];
    database.until("select count(*) > 110 from reveille.finished_jobs").await;
    database.run("select reveille.pause('default')").await;
    database.until("select count(*) = 0 from reveille.jobs where reserved_at is not null").await;
    let left = "select jsonb_build_array(count(*), sum(failures), now()) from reveille.jobs";
    let paused = database.value(left).await;
    assert!(
        paused[0].as_i64().unwrap() > 0 && paused[1] == 0,
        "jobs claimed ahead are released without a failure: {paused}"
    );
    let time = paused[2].as_str().unwrap();
    database
        .until(&format!("select bool_and(last_seen_at > '{time}'::timestamptz + interval '1 s') from reveille.workers"))
        .await;
    assert_eq!(database.value(left).await[0], paused[0], "no job has started since the pause");
    database.run("select reveille.resume('default')").await;
    database.until("select count(*) = 200 from reveille.finished_jobs where failures = 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_of_a_paused_queue_waits_only_for_running_jobs() {
    let database = database().await;
    enqueue(&database.database, &note("ready")).await.unwrap();
    let (code, out) = reveille(&database, &["drain", "default", "--timeout", "1ms"]).await;
    assert_eq!((code, &out[0]["drained"], &out[0]["ready"]), (1, &json!(false), &json!(1)));
    database.admin().pause("default").await.unwrap();
    let (code, out) = reveille(&database, &["drain", "default"]).await;
    assert_eq!((code, &out[0]["drained"], &out[0]["paused"]), (0, &json!(true), &json!(true)));
    database.run("update reveille.jobs set reserved_at = now(), reserved_by = 1").await;
    assert_eq!(reveille(&database, &["drain", "default", "--timeout", "50ms"]).await.0, 1);
    assert_eq!(reveille(&database, &["drain", ""]).await.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_asked_to_stop_finishes_its_jobs_and_exits_with_0() {
    let database = database().await;
    let process = Process::start(&database, "sleep 0.5");
    enqueue(&database.database, &note("x")).await.unwrap();
    database.until("select reserved_at is not null from reveille.jobs").await;
    let id = database.value("select id from reveille.workers").await.to_string();
    assert_eq!(
        reveille(&database, &["workers", "stop", &id]).await,
        (0, vec![json!({"id": id.parse::<i64>().unwrap(), "answer": "stopping"})])
    );
    assert_eq!(database.value("select bool_and(stopping) is not false from reveille.worker_status").await, true);
    assert_eq!(process.ended().await, Some(0));
    assert_eq!(database.value("select outcome from reveille.finished_jobs").await, "completed");
    assert_eq!(database.value("select count(*) from reveille.workers").await, 0);
    assert_eq!(
        reveille(&database, &["workers", "stop", &id]).await.0,
        1,
        "the stopped worker is not registered any more"
    );
}
