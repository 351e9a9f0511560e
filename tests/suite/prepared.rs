//! Jobs are enqueued in transactions that are prepared for two-phase commit.

use std::time::Duration;

use reveille::dev::Server;
use reveille::{Database, Worker};
use tokio_postgres::Client;

use crate::harness::{Reports, Running, client, eventually, report, reporting, start};

/// The statements that make a job due at once.
const MAKE_DUE: [&str; 3] = [
    "insert into reveille.jobs (kind, payload) values ('note', '{\"text\": \"note\"}')",
    "select reveille.enqueue('note', '{\"text\": \"note\"}', unique_key => 'u', unique_mode => 'debounce')",
    "select reveille.retry(id) from reveille.jobs",
];
const SILENTLY: &str = "set local reveille.bell = 'off'";

/// A server that allows prepared transactions. By default, servers refuse them.
struct Prepares {
    server: Server,
    database: Database,
    client: Client,
}

impl Prepares {
    async fn new() -> Prepares {
        let server = Server::options().setting("max_prepared_transactions", "5").start().unwrap();
        let database = Database::connect(server.url("postgres")).await.unwrap();
        database.migrate().await.unwrap();
        let client = client(&server.url("postgres")).await;
        Prepares { server, database, client }
    }

    /// Starts a worker, and waits until the worker sleeps. The bell or the next poll wakes the worker.
    async fn asleep(&self, poll: Duration) -> (Running, Reports) {
        let (reporter, reports) = reporting();
        let builder = Worker::builder(self.database.clone()).queue("default", 4).poll_interval(poll);
        let worker = start(builder.state(reporter).handle(report));
        self.until("select count(*) = 1 from reveille.sleepers").await;
        (worker, reports)
    }

    /// Waits until no job runs. Then enqueues a job for tomorrow.
    async fn enqueue_for_tomorrow(&self) {
        self.until("select count(*) = 0 from reveille.jobs where reserved_at is not null").await;
        self.run("select reveille.enqueue('note', '{\"text\": \"note\"}', unique_key => 'u', delay => '1 day')").await;
    }

    async fn until(&self, condition: &str) {
        eventually(condition, async || self.client.query_one(condition, &[]).await.is_ok_and(|row| row.get(0))).await;
    }

    /// Prepares a transaction. Returns the statement that commits it, or the server's error message.
    ///
    /// Each transaction has a name of its own, since the server answers before it frees the name of a refused
    /// transaction.
    async fn prepare(&self, first: &str, make_due: &str) -> Result<String, String> {
        let client = client(&self.server.url("postgres")).await;
        let name = format!("{:08x}", fastrand::u32(..));
        let prepared = client.batch_execute(&format!("begin; {first}; {make_due}; prepare transaction '{name}'")).await;
        prepared.map_err(|error| error.as_db_error().unwrap().message().to_owned())?;
        Ok(format!("commit prepared '{name}'"))
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_bell_off_a_transaction_can_be_prepared() {
    let prepares = Prepares::new().await;
    let (worker, mut reports) = prepares.asleep(Duration::from_secs(3600)).await;
    for make_due in MAKE_DUE {
        prepares.enqueue_for_tomorrow().await;
        let refused = prepares.prepare("select", make_due).await.expect_err(make_due);
        assert!(refused.contains("NOTIFY"), "{make_due}: {refused}");
        let commit = prepares.prepare(SILENTLY, make_due).await.unwrap_or_else(|error| panic!("{make_due}: {error}"));
        prepares.run(&commit).await;
        prepares.run("select pg_notify('reveille.bell', 'default')").await;
        assert_eq!(reports.next().await, "note", "the bell that the test rang wakes the worker after: {make_due}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_prepared_transactions_start_at_the_next_poll() {
    let prepares = Prepares::new().await;
    let (worker, mut reports) = prepares.asleep(Duration::from_secs(1)).await;
    prepares.run("alter role current_user in database postgres set reveille.bell = 'off'").await;
    for make_due in MAKE_DUE {
        prepares.enqueue_for_tomorrow().await;
        let commit = prepares.prepare("select", make_due).await.unwrap_or_else(|error| panic!("{make_due}: {error}"));
        prepares.run(&commit).await;
        assert_eq!(reports.next().await, "note", "{make_due}");
    }
    worker.stop().await;
}
