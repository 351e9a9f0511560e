//! A database for each test, workers that report to the test, and waits with a deadline.

use std::sync::LazyLock;
use std::time::Duration;

use reveille::dev::{Proxy, Server};
use reveille::driver::ClaimRequest;
use reveille::job::ReservedJob;
use reveille::worker::WorkerBuilder;
use reveille::{Database, Job, Worker, driver::Driver};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;
use tokio_util::sync::CancellationToken;

/// The longest time that a wait may take on a busy machine. Only a failing test waits this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The longest time that one statement of a test may take. Some statements fill large tables.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(300);

/// A query that returns true while a session of the current database waits for an advisory lock.
pub const WAITS_FOR_ADVISORY_LOCK: &str = "select exists (
    select from pg_locks join pg_database on pg_database.oid = pg_locks.database
    where datname = current_database() and locktype = 'advisory' and not granted
)";

/// The server at `DATABASE_URL`, or a throw-away server that ends with this process.
enum TestServer {
    Given(tokio_postgres::Config),
    ThrowAway(Server),
}

static HOST: LazyLock<TestServer> = LazyLock::new(|| match std::env::var("DATABASE_URL") {
    Ok(url) if !url.is_empty() => TestServer::Given(url.parse().expect("DATABASE_URL of the tests is a plain URL")),
    _ => TestServer::ThrowAway(Server::start().expect("a throw-away server starts")),
});

static TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// Returns the address of a database on the server, as a string of `key=value` pairs.
pub fn address(database: &str) -> String {
    match &*HOST {
        TestServer::ThrowAway(server) => server.url(database),
        TestServer::Given(config) => {
            let host = match config.get_hosts().first() {
                Some(Host::Tcp(host)) => host.clone(),
                Some(Host::Unix(path)) => path.display().to_string(),
                None => "localhost".into(),
            };
            let port = config.get_ports().first().copied().unwrap_or(5432);
            let user = config.get_user().unwrap_or("postgres");
            let password = config.get_password().map(String::from_utf8_lossy).unwrap_or_default();
            format!("host='{host}' port={port} user='{user}' password='{password}' dbname='{database}'")
        }
    }
}

/// Opens a plain connection, as any program may do.
pub async fn client(address: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await.expect("the server takes a connection");
    tokio::spawn(connection);
    client
}

/// Starts a proxy to the server at an address. Returns the proxy, which can break the network, and the proxy's address.
pub async fn proxy(address: &str) -> (Proxy, String) {
    let config: tokio_postgres::Config = address.parse().unwrap();
    let (host, port) = host_and_port(&config);
    let proxy = Proxy::start(host, port).await.expect("the proxy starts");
    let through = with_login(&config, proxy.port());
    (proxy, through)
}

/// Returns the host and the port of a server that is reached by TCP.
pub fn host_and_port(config: &tokio_postgres::Config) -> (String, u16) {
    match &config.get_hosts()[0] {
        Host::Tcp(host) => (host.clone(), config.get_ports()[0]),
        Host::Unix(_) => panic!("the server is reached by TCP"),
    }
}

/// Returns an address with this login and database, but with another port, on the local host.
fn with_login(config: &tokio_postgres::Config, port: u16) -> String {
    let user = config.get_user().unwrap();
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    format!("host=127.0.0.1 port={port} user='{user}' password='{password}' dbname='{}'", config.get_dbname().unwrap())
}

async fn on_server(sql: &str) {
    client(&address("postgres")).await.batch_execute(sql).await.expect(sql);
}

fn new_name(what: &str) -> String {
    format!("reveille_{what}_{}_{:08x}", std::process::id(), fastrand::u32(..))
}

/// A test's own database. Dropping this drops the database.
pub struct TestDatabase {
    pub database: Database,
    pub address: String,
    name: String,
}

impl std::ops::Deref for TestDatabase {
    type Target = Database;
    fn deref(&self) -> &Database {
        &self.database
    }
}

/// Returns a fresh database with Reveille's tables, cloned from a migrated template.
pub async fn database() -> TestDatabase {
    let template = TEMPLATE
        .get_or_init(|| async {
            let name = new_name("template");
            on_server(&format!("create database {name}")).await;
            let database = Database::connect(address(&name)).await.expect("the template can be created");
            database.migrate().await.expect("the template migrates");
            name
        })
        .await;
    create(&format!("template {template}")).await
}

/// Returns a fresh, empty database.
pub async fn empty_database() -> TestDatabase {
    create("").await
}

/// Returns a fresh database in this encoding, with Reveille's tables.
pub async fn encoded_database(encoding: &str) -> TestDatabase {
    let database = create(&format!("encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'")).await;
    database.database.migrate().await.expect("the database migrates");
    database
}

async fn create(from: &str) -> TestDatabase {
    let name = new_name("test");
    // Tries again, because a session of another test may still be connected to the template.
    eventually("the database is created", async || {
        client(&address("postgres")).await.batch_execute(&format!("create database {name} {from}")).await.is_ok()
    })
    .await;
    let address = address(&name);
    let database = Database::connect(address.clone()).await.expect("the fresh database is there");
    TestDatabase { database, address, name }
}

impl TestDatabase {
    /// Opens a plain connection to the database.
    pub async fn client(&self) -> tokio_postgres::Client {
        client(&self.address).await
    }

    /// Runs statements without parameters.
    pub async fn run(&self, sql: &str) {
        let client = self.client().await;
        answered(sql, client.batch_execute(sql)).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Returns the single value of a query as JSON; null if the query returns no row.
    pub async fn value(&self, sql: &str) -> Value {
        let query = format!("select to_jsonb(answer) from ({sql}) as answer(value)");
        let client = self.client().await;
        let row = answered(sql, client.query_opt(&query, &[])).await;
        let row = row.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        row.map_or(Value::Null, |row| row.get::<_, Value>(0)["value"].clone())
    }

    /// Returns the message of the error with which the server refuses a statement.
    pub async fn refusal(&self, sql: &str) -> String {
        let client = self.client().await;
        let error = answered(sql, client.batch_execute(sql)).await.expect_err(sql);
        error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
    }

    /// Waits until a query returns true.
    pub async fn until(&self, sql: &str) {
        let client = self.client().await;
        let query = format!("select coalesce(bool_and(answer.value), false) from ({sql}) as answer(value)");
        eventually(sql, async || client.query_one(&query, &[]).await.is_ok_and(|row| row.get(0))).await;
    }
}

/// Waits for the answer to a statement. Panics after the deadline, because the statement may wait for a lock forever.
async fn answered<T>(sql: &str, answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(STATEMENT_DEADLINE, answer).await.unwrap_or_else(|_| panic!("too late: {sql}"))
}

impl Drop for TestDatabase {
    /// Drops the database, also on a throw-away server, since the databases of all tests together take 12 GB. On a
    /// throw-away server, the test does not wait for this, since other parts of the test may need the thread.
    fn drop(&mut self) {
        let name = self.name.clone();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(on_server(&format!("drop database if exists {name} with (force)")));
        });
        if matches!(&*HOST, TestServer::Given(_)) {
            let _ = dropping.join();
        }
    }
}

/// Returns the names of all migrations, oldest first.
pub fn migrations() -> Vec<String> {
    // The command's tests share this module from a deeper folder, so this searches the parent folders too.
    let folders = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("migrations"));
    let files = std::fs::read_dir(folders.into_iter().find(|folder| folder.is_dir()).unwrap()).unwrap();
    let mut names: Vec<_> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let version = |name: &String| name[1..name.find('_').unwrap()].parse::<u32>().unwrap();
    names.sort_by_key(version);
    names
}

/// Returns a database with only the migrations before this version.
pub async fn older_database(version: u32) -> TestDatabase {
    let older = empty_database().await;
    let sql = reveille::database::migrations_sql("reveille").unwrap();
    let of_it = format!("-- V{version}__");
    let next = migrations().into_iter().find(|name| format!("-- {name}").starts_with(&of_it)).unwrap();
    older.run(sql.split(&format!("-- {next}")).next().unwrap()).await;
    older
}

/// Claims due jobs of the queue `default`.
pub async fn claim(driver: &dyn Driver, worker: i64, limit: usize) -> Vec<ReservedJob> {
    let request = ClaimRequest::new(worker, "default", limit);
    soon("the claim is answered", driver.claim(&request)).await.expect("the claim succeeds").jobs
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("too late: {what}"));
}

/// Waits for the end of a future. Panics after the deadline.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

/// The job that most tests enqueue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    pub text: String,
}

impl Job for Note {
    const KIND: &'static str = "note";
}

pub fn note(text: &str) -> Note {
    Note { text: text.into() }
}

/// Sends the reports of handlers to a test.
#[derive(Clone)]
pub struct Reporter(mpsc::UnboundedSender<String>);

impl Reporter {
    pub fn report(&self, text: impl Into<String>) {
        let _ = self.0.send(text.into());
    }
}

/// Receives the reports of handlers.
pub struct Reports(mpsc::UnboundedReceiver<String>);

impl Reports {
    /// Returns the next report.
    pub async fn next(&mut self) -> String {
        soon("a handler runs", self.0.recv()).await.expect("a handler can report")
    }

    /// Returns all reports that the test has not received yet.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }
}

pub fn reporting() -> (Reporter, Reports) {
    let (reporter, reports) = mpsc::unbounded_channel();
    (Reporter(reporter), Reports(reports))
}

/// A handler that reports its note's text.
pub async fn report(note: Note, reveille::State(reporter): reveille::State<Reporter>) {
    reporter.report(note.text);
}

/// A running worker.
pub struct Running {
    stop: CancellationToken,
    working: JoinHandle<reveille::Result<()>>,
}

impl Running {
    /// Stops the worker, and waits for its end.
    pub async fn stop(self) {
        self.stop.cancel();
        soon("the worker stops", self.working).await.expect("the worker does not panic").expect("the worker ends well");
    }

    /// Begins to stop the worker.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    pub async fn ended(self) {
        soon("the worker stops", self.working).await.expect("the worker does not panic").expect("the worker ends well");
    }

    pub fn is_working(&self) -> bool {
        !self.working.is_finished()
    }
}

/// Starts a worker in the background.
pub fn start(builder: WorkerBuilder) -> Running {
    let worker = builder.build().expect("the worker can be built");
    let stop = CancellationToken::new();
    Running { working: tokio::spawn(worker.run_until(stop.clone().cancelled_owned())), stop }
}

/// Builds a worker on the queue `default` that only the bell wakes.
pub fn worker(database: &Database) -> WorkerBuilder {
    Worker::builder(database.clone()).queue("default", 4).poll_interval(Duration::from_secs(3600))
}

/// Builds a worker whose only handler reports its note's text.
pub fn reporting_worker(database: &Database) -> (WorkerBuilder, Reports) {
    let (reporter, reports) = reporting();
    (worker(database).state(reporter).handle(report), reports)
}
