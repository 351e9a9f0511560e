//! A commit that hangs holds up neither a worker nor its settlements. Statements that wait for the hanging commit are
//! given up, and leave no session behind.

use std::sync::Arc;
use std::time::Duration;

use reveille::admin::doctor::{Finding, Verdict};
use reveille::dev::{Network, Server};
use reveille::driver::{ClaimRequest, Driver, Ending, Postgres, Settled, Settlement, WorkerInfo, signals};
use reveille::{Database, enqueue};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::harness::{claim, client, eventually, note, proxy, reporting_worker, soon, start};

/// A server whose synchronous standby is away, and a commit that notifies and waits for this standby. The commit holds
/// the lock that all commits that notify take.
struct Hanging {
    server: Server,
    database: Database,
    admin: Client,
    producer: Arc<Client>,
    committing: Option<JoinHandle<()>>,
    released: CancellationToken,
}

impl Hanging {
    /// Returns a server on which no commit hangs yet. Commits wait for no standby until the test names one.
    async fn prepared() -> Hanging {
        let server = Server::start().unwrap();
        let database = Database::connect(server.url("postgres")).await.unwrap();
        database.migrate().await.unwrap();
        let [admin, producer] = [client(&server.url("postgres")).await, client(&server.url("postgres")).await];
        admin.batch_execute("create table written (); set synchronous_commit = local").await.unwrap();
        producer.batch_execute("set application_name = 'shop'").await.unwrap();
        Hanging {
            server,
            database,
            admin,
            producer: Arc::new(producer),
            committing: None,
            released: CancellationToken::new(),
        }
    }

    async fn start() -> Hanging {
        let mut hanging = Hanging::prepared().await;
        hanging.hang().await;
        hanging
    }

    /// Makes the commit hang.
    async fn hang(&mut self) {
        self.admin.batch_execute("alter system set synchronous_standby_names = '*'").await.unwrap();
        self.admin.batch_execute("select pg_reload_conf()").await.unwrap();
        let commit = "begin; insert into written default values; notify bell; commit";
        let (producer, released) = (Arc::clone(&self.producer), self.released.clone());
        // The first commits do not hang, since it takes a moment until the new setting is in force.
        self.committing = Some(tokio::spawn(async move {
            while !released.is_cancelled() {
                producer.batch_execute(commit).await.unwrap();
            }
        }));
        self.until("select count(*) = 1 from pg_stat_activity where wait_event = 'SyncRep'").await;
    }

    async fn is(&self, sql: &str) -> bool {
        self.admin.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn until(&self, sql: &str) {
        eventually(sql, async || self.is(sql).await).await;
    }

    /// Lets all commits go on.
    async fn release(&mut self) {
        self.released.cancel();
        self.admin.batch_execute("alter system reset synchronous_standby_names").await.unwrap();
        self.admin.batch_execute("select pg_reload_conf()").await.unwrap();
        soon("the commit ends", self.committing.take().unwrap()).await.unwrap();
    }
}

const A_SESSION_WAITS: &str = "select count(*) > 0 from pg_locks where locktype = 'object' and not granted";
const NO_SESSION_WAITS: &str = "select count(*) = 0 from pg_locks where locktype = 'object' and not granted";

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_is_given_up_leaves_no_session() {
    let hanging = Hanging::start().await;
    let driver = Postgres::new(hanging.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(7)).await.unwrap();
    let error = soon("the probe is given up", signals(&driver, 7)).await.err().unwrap();
    assert!(error.is_unavailable(), "{error}");
    hanging.until(NO_SESSION_WAITS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_caller_is_gone_leaves_no_session() {
    let hanging = Hanging::start().await;
    let driver = Arc::new(Postgres::new(hanging.database.clone()).unwrap());
    driver.register(&WorkerInfo::new(7)).await.unwrap();
    let listening = Arc::clone(&driver);
    let listening = tokio::spawn(async move { signals(&*listening, 7).await.map(drop) });
    hanging.until(A_SESSION_WAITS).await;
    listening.abort();
    hanging.until(NO_SESSION_WAITS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_worker_that_was_cut_off_does_not_wait_forever() {
    let hanging = Hanging::start().await;
    // Shortens the timeout of the session that registers the worker, which sends the probe, too. Zero stays zero.
    let shorten = "create function shorten() returns trigger language plpgsql as $$ begin
            perform set_config('lock_timeout', (setting::int / 50)::text, false)
            from pg_settings where name = 'lock_timeout';
            return null;
        end $$;
        create trigger shorten after insert on reveille.workers execute function shorten()";
    hanging.admin.batch_execute(shorten).await.unwrap();
    let (proxy, address) = proxy(&hanging.server.url("postgres")).await;
    let driver = Postgres::new(Database::connect(address).await.unwrap()).unwrap();
    driver.register(&WorkerInfo::new(7)).await.unwrap();
    let listening = tokio::spawn(async move { signals(&driver, 7).await.map(drop) });
    hanging.until(A_SESSION_WAITS).await;
    // From here on, the server does not learn that the worker gives the statement up.
    proxy.set(Network::BlackHole);
    hanging.until(NO_SESSION_WAITS).await;
    assert!(soon("the probe is given up", listening).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_claim_that_is_given_up_leaves_no_session() {
    let hanging = Hanging::start().await;
    let driver = Postgres::new(hanging.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(7)).await.unwrap();
    hanging.admin.batch_execute("set reveille.bell = off").await.unwrap();
    enqueue(&hanging.admin, &note("x")).await.unwrap();
    let durable = Postgres::new(hanging.database.clone()).unwrap().durable(true).unwrap();
    let request = ClaimRequest::new(7, "default", 1);
    let error = soon("the claim is given up", durable.claim(&request)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    hanging.until("select count(*) = 1 from pg_stat_activity where wait_event = 'SyncRep'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_that_is_given_up_leaves_no_session() {
    let mut hanging = Hanging::prepared().await;
    let driver = Postgres::new(hanging.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(7)).await.unwrap();
    enqueue(&hanging.database, &note("x")).await.unwrap();
    assert_eq!(claim(&driver, 7, 1).await.len(), 1);
    // The end of this job is notified.
    let last = "update reveille.jobs set awaited = true, max_attempts = 1; delete from reveille.workers";
    hanging.admin.batch_execute(last).await.unwrap();
    hanging.hang().await;
    let error = soon("the rescue is given up", driver.rescue(8, &[])).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    hanging.until(NO_SESSION_WAITS).await;
    hanging.release().await;
    assert_eq!(soon("the job is rescued", driver.rescue(8, &[])).await.unwrap().dead.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_job_ends_while_a_synchronous_standby_is_away() {
    let mut hanging = Hanging::prepared().await;
    let (builder, mut reports) = reporting_worker(&hanging.database);
    let worker = start(builder.poll_interval(Duration::from_millis(50)));
    hanging.until("select count(*) = 1 from reveille.sleepers").await;
    hanging.hang().await;
    hanging.admin.batch_execute("set reveille.bell = off").await.unwrap();
    enqueue(&hanging.admin, &note("lone")).await.unwrap();
    assert_eq!(reports.next().await, "lone");
    hanging.until("select count(*) = 1 from reveille.finished_jobs").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bell_is_armed_while_a_synchronous_standby_is_away() {
    let hanging = Hanging::start().await;
    let driver = Postgres::new(hanging.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(7)).await.unwrap();
    driver.arm(7, "default").await.unwrap();
    assert!(hanging.is("select count(*) = 1 from reveille.sleepers").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_awaited_job_ends_later_if_its_notification_has_to_wait() {
    let mut hanging = Hanging::prepared().await;
    let driver = Postgres::new(hanging.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(7)).await.unwrap();
    enqueue(&hanging.database, &note("x")).await.unwrap();
    hanging.admin.batch_execute("update reveille.jobs set awaited = true").await.unwrap();
    let [job] = &claim(&driver, 7, 1).await[..] else { panic!("one job") };
    let ending = [Settlement::new(job.reservation, Ending::Completed(None))];
    hanging.hang().await;
    let settled = soon("the settlement is given up", driver.settle(&ending)).await.unwrap();
    assert!(matches!(&settled[..], [Settled::Locked(by)] if by.contains("hangs")), "{settled:?}");
    assert!(hanging.is(NO_SESSION_WAITS).await);
    hanging.release().await;
    let settled = soon("the ending is recorded", driver.settle(&ending)).await.unwrap();
    assert_eq!(settled, [Settled::Counted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_the_commits_that_hang() {
    let hanging = Hanging::start().await;
    let waiting = client(&hanging.server.url("postgres")).await;
    let waiting = tokio::spawn(async move { waiting.batch_execute("notify bell").await });
    hanging.until(A_SESSION_WAITS).await;
    let doctor = hanging.database.doctor();
    let found = |findings: &[Finding], check: &str, part: &str| {
        let found = findings.iter().find(|found| found.check == check && found.finding.contains(part)).cloned();
        found.filter(|found| found.state != Verdict::Ok).map(|found| (found.state, found.advice.unwrap_or_default()))
    };
    eventually("the commits have waited for long enough", async || {
        let findings = soon("the doctor answers", doctor.examine()).await.unwrap();
        let [standby, notifying] = ["a synchronous standby: 1, for", "(postgres, shop): 1, for"]
            .map(|part| found(&findings, "commits", part).filter(|(state, _)| *state == Verdict::Bad));
        let sent = found(&findings, "listening", "no notification could be sent");
        assert!(sent.is_some_and(|(_, advice)| advice.contains("`commits`")), "{findings:#?}");
        standby.is_some_and(|(_, advice)| advice.contains("pg_reload_conf"))
            && notifying.is_some_and(|(_, advice)| advice.contains("standby"))
    })
    .await;
    waiting.abort();
}
