//! The log of a worker after the server has ended one of its connections.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::harness::{TestDatabase, database, soon};

/// A worker process whose log is read. Dropping this kills the process.
struct Process(Child);

impl Process {
    fn start(database: &TestDatabase) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command
            .args(["work", "--exec", "true"])
            .env("DATABASE_URL", &database.address)
            .env("RUST_LOG", "reveille=info");
        Process(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Reads the log up to the first line that contains `text`.
    async fn log_until(&mut self, text: String) -> Vec<String> {
        let lines = BufReader::new(self.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        let reading = tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            for line in lines {
                read.push(line);
                if read.last().is_some_and(|line| line.contains(&text)) {
                    break;
                }
            }
            read
        });
        soon("the line is logged", reading).await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_that_the_server_has_ended_one_connection() {
    for (session, part) in [("reveille listener", "listen for new jobs"), ("reveille heartbeat", "send a heartbeat")] {
        let database = database().await;
        let mut process = Process::start(&database);
        database.until("select count(*) = 1 from reveille.sleepers").await;
        // Holds a lock, so that the session ends in the middle of a statement. An idle heartbeat would reconnect
        // without a log event.
        let held = database.client().await;
        held.batch_execute("begin; lock table reveille.workers in access exclusive mode").await.unwrap();
        let terminate = format!(
            "select count(pg_terminate_backend(pid)) = 1 from pg_stat_activity
            where application_name = '{session}' and datname = current_database()
                and (wait_event_type = 'Lock' or application_name = 'reveille listener')"
        );
        database.until(&terminate).await;
        held.batch_execute("rollback").await.unwrap();
        let log = process.log_until(format!("can {part} again")).await.join("\n");
        let trouble = format!("cannot {part}; trying again");
        let why = "the server ended this connection: terminating connection due to administrator command";
        assert!(log.contains(&trouble) && log.contains(why) && !log.contains("is the server running"), "{log}");
    }
}
