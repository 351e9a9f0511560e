//! The primary dies, and a standby takes over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reveille::dev::Server;
use reveille::{Attempt, Database, State, enqueue};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_postgres::Client;

use crate::harness::{
    Note, Reporter, Reports, Running, client, eventually, note, report, reporting, reporting_worker, soon, start,
    worker,
};

/// A primary with Reveille's tables, and the primary's standby.
struct Pair {
    primary: Option<Server>,
    standby: Server,
    at_standby: Client,
}

impl Pair {
    async fn start() -> Pair {
        let primary = Server::start().unwrap();
        Database::connect(primary.url("postgres")).await.unwrap().migrate().await.unwrap();
        let standby = primary.standby().await.unwrap();
        let at_standby = client(&standby.url("postgres")).await;
        Pair { primary: Some(primary), standby, at_standby }
    }

    fn primary(&self) -> &Server {
        self.primary.as_ref().unwrap()
    }

    /// Returns an address with both servers. The address does not tell which server is the primary.
    fn address(&self) -> String {
        let config: tokio_postgres::Config = self.primary().url("postgres").parse().unwrap();
        let password = String::from_utf8(config.get_password().unwrap().to_vec()).unwrap();
        let ports = format!("{},{}", self.primary().port(), self.standby.port());
        format!("host=127.0.0.1,127.0.0.1 port={ports} user=postgres password={password} dbname=postgres")
    }

    async fn database(&self) -> Database {
        Database::connect(self.address()).await.unwrap()
    }

    /// Waits until the standby has replayed all earlier changes.
    async fn replicated(&self) {
        let primary = client(&self.primary().url("postgres")).await;
        let lsn: String = primary.query_one("select pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
        let sql = format!("select pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn");
        eventually("the standby has replayed every change", async || self.is(&sql).await).await;
    }

    /// Stops the replication to the standby.
    async fn cut(&self) {
        self.at_standby.batch_execute("alter system set primary_conninfo = ''").await.unwrap();
        self.at_standby.batch_execute("select pg_reload_conf()").await.unwrap();
        eventually("replication stops", async || self.is("select count(*) = 0 from pg_stat_wal_receiver").await).await;
    }

    /// Kills the primary as in a crash, and promotes the standby. Returns the time of the promotion.
    async fn fail_over(&mut self) -> Instant {
        drop(self.primary.take());
        assert!(self.is("select pg_promote()").await);
        Instant::now()
    }

    /// Returns the standby's answer to a query.
    async fn is(&self, sql: &str) -> bool {
        self.at_standby.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn until(&self, sql: &str) {
        eventually(sql, async || self.is(sql).await).await;
    }

    async fn enqueue_at_standby(&self, text: &str) {
        enqueue(&self.at_standby, &note(text)).await.unwrap();
    }
}

/// A handler. A job whose text begins with "held" ends only once the gate has a permit, even if the job is cancelled
/// before.
async fn held(note: Note, State(reporter): State<Reporter>, State(gate): State<Arc<Semaphore>>, attempt: Attempt) {
    reporter.report(format!("{} {}", note.text, attempt.number));
    if note.text.starts_with("held") {
        let _ = gate.acquire().await;
    }
}

fn holding(database: &Database) -> (Running, Reports, Arc<Semaphore>) {
    let ((reporter, reports), gate) = (reporting(), Arc::new(Semaphore::new(0)));
    (start(worker(database).state(reporter).state(Arc::clone(&gate)).handle(held)), reports, gate)
}

const WORKERS: &str = "select count(*) = 2 and bool_and(holds_lock) from reveille.workers";
const LISTENERS: &str = "select count(*) = 2 from pg_stat_activity where application_name = 'reveille listener'";

#[tokio::test(flavor = "multi_thread")]
async fn workers_go_on_by_themselves_and_none_is_declared_dead() {
    let mut pair = Pair::start().await;
    let database = pair.database().await;
    let (one, mut reports, gate) = holding(&database);
    enqueue(&database, &note("held")).await.unwrap();
    assert_eq!(reports.next().await, "held 1");
    let (builder, mut other_reports) = reporting_worker(&database);
    let other = start(builder.queue("other", 1));
    let at_primary = client(&pair.primary().url("postgres")).await;
    eventually("both workers are ready", async || at_primary.query_one(WORKERS, &[]).await.unwrap().get(0)).await;
    pair.replicated().await;
    let ids = "select string_agg(id::text, ' ' order by id) from reveille.workers";
    let before: String = at_primary.query_one(ids, &[]).await.unwrap().get(0);

    let promoted = pair.fail_over().await;
    pair.enqueue_at_standby("after").await;
    let started = soon("a job is started", async {
        tokio::select! { text = reports.next() => text, text = other_reports.next() => text }
    });
    assert!(started.await.starts_with("after"));
    println!("a job started {:?} after the promotion", promoted.elapsed());

    // Waits for the listeners, because the bell must find the next jobs. A worker without its listener polls quickly.
    pair.until(LISTENERS).await;
    pair.until(WORKERS).await;
    pair.until("select count(*) >= 2 from reveille.sleepers").await;
    println!("both listened again {:?} after the promotion", promoted.elapsed());
    for _ in 0..3 {
        let enqueued = Instant::now();
        enqueue(&pair.at_standby, &note("bell")).queue("other").await.unwrap();
        assert_eq!(other_reports.next().await, "bell");
        println!("a job started {:?} after it was enqueued", enqueued.elapsed());
    }

    gate.add_permits(100);
    pair.until(
        "select count(*) = 5 and bool_and(attempts = 1 and failures = 0 and outcome = 'completed') \
        from reveille.finished_jobs",
    )
    .await;
    assert_eq!(
        pair.at_standby.query_one(ids, &[]).await.unwrap().get::<_, String>(0),
        before,
        "the workers are the same as before"
    );
    one.stop().await;
    other.stop().await;
}

/// Suspended processes. Dropping this resumes the processes.
struct Frozen(Vec<String>);

impl Frozen {
    fn signal(&self, signal: &str) {
        let _ = std::process::Command::new("kill").arg(signal).args(&self.0).status();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_leave_a_primary_that_stops_answering() {
    let pair = Pair::start().await;
    let database = pair.database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let running = start(builder);
    enqueue(&database, &note("before")).await.unwrap();
    assert_eq!(reports.next().await, "before");
    // Waits for the replication of the job's end. Otherwise the job would run again on the standby.
    pair.until("select count(*) = 1 from reveille.finished_jobs").await;
    let primary = client(&pair.primary().url("postgres")).await;
    let postmaster = std::fs::read_to_string(pair.primary().data_dir().join("postmaster.pid")).unwrap();
    let mut frozen = Frozen(vec![postmaster.lines().next().unwrap().to_owned()]);
    // From here on, no session begins, so the list of sessions below stays complete.
    frozen.signal("-STOP");
    let sessions = "select pid::text from pg_stat_activity where backend_type = 'client backend'";
    frozen.0.extend(primary.query(sessions, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
    frozen.signal("-STOP");
    assert!(pair.is("select pg_promote()").await);
    let promoted = Instant::now();
    pair.enqueue_at_standby("after").await;
    assert_eq!(reports.next().await, "after");
    println!("a job started {:?} after the promotion, the primary being silent", promoted.elapsed());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_claim_was_not_replicated_is_settled_once() {
    let mut pair = Pair::start().await;
    let database = pair.database().await;
    enqueue(&database, &note("held")).await.unwrap();
    pair.replicated().await;
    pair.cut().await;
    // Starts the worker after the end of replication, so that the standby has neither the worker's row nor its
    // reservation.
    let (running, mut reports, gate) = holding(&database);
    assert_eq!(reports.next().await, "held 1");
    pair.fail_over().await;
    assert_eq!(reports.next().await, "held 1", "the promoted standby does not know the first claim");
    gate.add_permits(100);
    pair.until("select count(*) = 1 and bool_and(outcome = 'completed' and attempts = 1) from reveille.finished_jobs")
        .await;
    pair.until("select count(*) = 0 from reveille.jobs").await;
    pair.until("select count(*) = 1 and bool_and(holds_lock) from reveille.workers").await;
    pair.enqueue_at_standby("next").await;
    assert_eq!(reports.next().await, "next 1");
    running.stop().await;
}

#[tokio::test]
async fn the_error_says_that_only_a_standby_was_found() {
    let pair = Pair::start().await;
    let standby = Database::connect(pair.standby.url("postgres")).await.unwrap();
    assert!(standby.check().await.is_ok(), "the standby can be read");
    let error = enqueue(&standby, &note("x")).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("standby"), "{error}");
    let error = worker(&standby).handle(async |_: Note| {}).build().unwrap().run_until(std::future::pending::<()>());
    let error = soon("the worker gives up", error).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("standby"), "{error}");
}

#[tokio::test]
async fn a_host_that_accepts_but_never_answers_is_skipped() {
    let server = Server::start().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = format!("{},{}", silent.local_addr().unwrap().port(), server.port());
    let url = server.url("postgres").replacen("127.0.0.1", "127.0.0.1,127.0.0.1", 1);
    let url = url.replacen(&format!("127.0.0.1:{}", server.port()), "127.0.0.1", 1);
    let began = Instant::now();
    // A `connect_timeout` of 0 means no timeout. The silent host is skipped nevertheless.
    let database = Database::connect(format!("{url}?port={ports}&connect_timeout=0"));
    soon("a connection", database).await.unwrap();
    println!("connected in {:?}", began.elapsed());
    let port = silent.local_addr().unwrap().port();
    let alone = Database::connect(format!("host=127.0.0.1 port={port} user=x password=x connect_timeout=1"));
    let error = soon("the attempt to connect ends", alone).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("timeout"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_a_server_that_turned_read_only_are_closed() {
    let server = Server::start().unwrap();
    let database = Database::connect(server.url("postgres")).await.unwrap();
    database.migrate().await.unwrap();
    let admin = client(&server.url("postgres")).await;
    let (reporter, mut reports) = reporting();
    let running = start(worker(&database).poll_interval(Duration::from_millis(20)).state(reporter).handle(report));
    let sessions = |sql: &'static str| {
        let admin = &admin;
        eventually(sql, async move || admin.query_one(sql, &[]).await.unwrap().get(0))
    };
    enqueue(&admin, &note("first")).await.unwrap();
    assert_eq!(reports.next().await, "first");
    admin.batch_execute("alter system set default_transaction_read_only = on").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    sessions("select count(*) = 0 from pg_stat_activity where application_name = 'reveille worker'").await;
    admin.batch_execute("alter system reset default_transaction_read_only").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    admin.batch_execute("set default_transaction_read_only = off").await.unwrap();
    enqueue(&admin, &note("again")).await.unwrap();
    assert_eq!(reports.next().await, "again");
    running.stop().await;
}
