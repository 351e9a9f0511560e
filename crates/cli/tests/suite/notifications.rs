//! Any role can send a notification, so each notification is only a hint. Processes act on the hint once the tables
//! confirm it.

use std::process::{Command, Stdio};

use reveille::enqueue;
use tokio_postgres::Client;

use crate::exec::Worker;
use crate::harness::{TestDatabase, database, eventually, note, soon};

/// A session of a role without any right.
struct Outsider<'a> {
    database: &'a TestDatabase,
    client: Client,
    role: String,
}

impl Outsider<'_> {
    async fn of(database: &TestDatabase) -> Outsider<'_> {
        let (client, role) = (database.client().await, format!("outsider_{:016x}", fastrand::u64(..)));
        client.batch_execute(&format!("create role {role}; set session authorization {role}")).await.unwrap();
        Outsider { database, client, role }
    }

    async fn notify(&self, channel: &str, payload: &str) {
        self.client.execute("select pg_notify($1, $2)", &[&channel, &payload]).await.unwrap();
    }

    async fn leave(self) {
        self.client.batch_execute("reset session authorization").await.unwrap();
        self.database.run(&format!("drop role {}", self.role)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reveille_listen_ends_only_at_a_rightful_stop() {
    let database = database().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.arg("listen").env("DATABASE_URL", &database.address).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut listening = Worker(command.spawn().unwrap());
    database.until("select count(*) = 1 from reveille.sleepers").await;
    let id = database.value("select id from reveille.workers").await.as_i64().unwrap();
    let outsider = Outsider::of(&database).await;
    outsider.notify("reveille.stop", &id.to_string()).await;
    outsider.notify("reveille.cancel", "7").await;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(listening.0.stdout.take().unwrap()));
    let reading = tokio::task::spawn_blocking(move || {
        let cancelled = lines.by_ref().map(Result::unwrap).any(|line| line == "cancel 7");
        (cancelled, lines)
    });
    let (cancelled, _lines) = soon("the second notification arrives", reading).await.unwrap();
    assert!(cancelled, "the worker goes on after a stop that the tables do not confirm");
    assert!(database.admin().stop_worker(id).await.unwrap());
    eventually("the worker deregisters", async || listening_ended(&database).await).await;
    assert!(listening.ended().await.success());
    outsider.leave().await;
}

async fn listening_ended(database: &TestDatabase) -> bool {
    database.value("select count(*) from reveille.workers").await == 0
}

/// Returns the private memory of a process, in MB.
#[cfg(target_os = "linux")]
fn megabytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_notifications_costs_a_worker_no_memory() {
    let database = database().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(["work", "--exec", "true"]).env("DATABASE_URL", &database.address).stderr(Stdio::null());
    let process = Worker(command.spawn().unwrap());
    database.until("select count(*) = 1 from reveille.sleepers").await;
    let before = megabytes(process.0.id());
    let outsider = Outsider::of(&database).await;
    for channel in ["bell", "cancel", "pause", "stop", "schedules"] {
        let flood = format!(
            "select count(pg_notify('reveille.{channel}', repeat('9', 10) || n::text || repeat(' ', 1000)))
            from generate_series(1, 20000) as n"
        );
        outsider.client.batch_execute(&flood).await.unwrap();
    }
    enqueue(&database.database, &note("after")).await.unwrap();
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    let grown = megabytes(process.0.id()) - before;
    assert!(grown < 20.0, "the process has grown by {grown} MB");
    outsider.leave().await;
}
