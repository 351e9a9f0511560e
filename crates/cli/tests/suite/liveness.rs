//! Other workers tell if a worker is alive, dead or only stalled.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reveille::enqueue;
use serde_json::json;

use crate::harness::{TestDatabase, database, note, reporting_worker, start};

const HOUR: Duration = Duration::from_secs(3600);

/// A worker process. Dropping this kills the process.
struct Process(Child);

impl Process {
    /// Starts a worker with one slot. The worker's program does not end.
    fn start(database: &TestDatabase) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(["work", "--queue", "default=1", "--exec", "sleep 1000"]).env("DATABASE_URL", &database.address);
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a database with one job, and a worker process that runs the job. The process's session holds the lock that
/// vouches for the worker.
async fn held_by_a_process() -> (TestDatabase, Process) {
    let database = database().await;
    let process = Process::start(&database);
    enqueue(&database.database, &note("x")).await.unwrap();
    let held = "select exists (select from reveille.jobs where reserved_at is not null)
        and (select bool_and(holds_lock) from reveille.workers)";
    database.until(held).await;
    (database, process)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_job_runs_elsewhere_long_before_dead_after() {
    let (database, process) = held_by_a_process().await;
    let (builder, mut reports) = reporting_worker(&database);
    let other = start(builder.dead_after(HOUR));
    process.signal("-KILL");
    assert_eq!(reports.next().await, "x");
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    let row = "select jsonb_build_array(attempts, failures, errors -> 0 -> 'reason') from reveille.finished_jobs";
    assert_eq!(database.value(row).await, json!([2, 1, "lost"]));
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_at_its_first_claim_loses_its_job_as_soon() {
    let database = database().await;
    enqueue(&database.database, &note("x")).await.unwrap();
    let process = Process::start(&database);
    database.until("select bool_or(reserved_at is not null) from reveille.jobs").await;
    process.signal("-KILL");
    let (builder, mut reports) = reporting_worker(&database);
    let other = start(builder.dead_after(HOUR));
    assert_eq!(reports.next().await, "x");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_worker_keeps_its_job_while_its_session_lives() {
    let (database, process) = held_by_a_process().await;
    let (builder, mut reports) = reporting_worker(&database);
    let other = start(builder);
    process.signal("-STOP");
    // Waits for longer than a rescue would take if the session that vouches were gone.
    database
        .until(
            "select (select max(last_seen_at) from reveille.workers) - (select min(last_seen_at) \
            from reveille.workers) > interval '6 seconds'",
        )
        .await;
    assert_eq!(database.value("select attempts from reveille.jobs").await, 1);
    process.signal("-CONT");
    database.until("select count(*) = 2 from reveille.workers where last_seen_at > now() - interval '2 seconds'").await;
    assert!(reports.rest().is_empty());
    assert_eq!(database.value("select attempts from reveille.jobs where reserved_at is not null").await, 1);
    other.stop().await;
}
