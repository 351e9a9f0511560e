//! A worker goes on in every part even if its log cannot be written.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use reveille::{enqueue, enqueue::enqueue_all};

use crate::exec::Worker;
use crate::harness::{TestDatabase, database, note};

/// A worker process that writes its log to `log`. Dropping this kills the process.
struct Process(Worker);

impl Process {
    fn start(database: &TestDatabase, log: Stdio) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(["work", "--exec", "echo error >&2; exit 65"]);
        command.env("DATABASE_URL", &database.address).env("RUST_LOG", "trace");
        Process(Worker(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()))
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(self.0.0.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
}

/// Returns a pipe whose reader is closed.
fn without_a_reader() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_log_cannot_be_written_works_on() {
    let full = || File::options().write(true).open("/dev/full").unwrap().into();
    let full = cfg!(target_os = "linux").then(|| ("a full disk", full()));
    for (place, log) in full.into_iter().chain([("a pipe without a reader", without_a_reader())]) {
        let database = database().await;
        let mut process = Process::start(&database, log);
        enqueue_all(&database.database, &vec![note("x"); 20]).await.unwrap();
        database.until("select count(*) = 20 from reveille.dead_jobs where reason = 'permanent'").await;
        database.until("select count(*) = 1 from reveille.sleepers").await;
        enqueue(&database.database, &note("later")).await.unwrap();
        database.until("select count(*) = 21 from reveille.dead_jobs").await;
        process.terminate();
        let status = process.0.ended().await;
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{place}");
        assert_eq!(
            database.value("select count(*) from reveille.workers").await,
            0,
            "{place}: the worker has deregistered"
        );
    }
}
