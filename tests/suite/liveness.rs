//! Workers that are alive, dead or only cut off.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use reveille::dev::{Network, Server};
use reveille::driver::{ClaimRequest, WorkerInfo, signals};
use reveille::{
    Database, State, Worker,
    driver::{Driver, Postgres},
    enqueue,
    handler::Cancellation,
};
use serde_json::json;

use crate::harness::{Note, Reporter, client, database, note, proxy, reporting, soon, start, worker};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_cancels_its_handlers_at_no_cost() {
    async fn waits(note: Note, State(reporter): State<Reporter>, cancellation: Cancellation) -> Result<(), String> {
        reporter.report(note.text);
        cancellation.cancelled().await;
        reporter.report("cancelled");
        Err("cancelled".into())
    }
    let database = database().await;
    let (proxy, address) = proxy(&database.address).await;
    let (reporter, mut reports) = reporting();
    let through = Database::connect(address).await.unwrap();
    let worker = start(worker(&through).heartbeat(Duration::from_millis(200)).state(reporter).handle(waits));
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "x");
    proxy.set(Network::Refuse);
    assert_eq!(reports.next().await, "cancelled");
    // After the reconnection, the worker releases the job without a failure, and runs the job once more.
    proxy.set(Network::Pass);
    assert_eq!(reports.next().await, "x");
    assert_eq!(database.value("select jsonb_build_array(attempts, failures) from reveille.jobs").await, json!([2, 0]));
    worker.begin_stop();
    database.run("select reveille.cancel(id) from reveille.jobs").await;
    worker.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_claim_that_was_never_answered_can_be_released() {
    let database = database().await;
    let (proxy, address) = proxy(&database.address).await;
    let driver = Postgres::new(Database::connect(address).await.unwrap()).unwrap();
    let info = WorkerInfo::new(7).host("test").queues(["default"]);
    driver.register(&info).await.unwrap();
    // The first claim prepares the statement.
    driver.claim(&ClaimRequest::new(7, "default", 1)).await.unwrap();
    let id = enqueue(&database.database, &note("x")).await.unwrap().id;
    // From here on, the answers of the server on the open connection are lost.
    proxy.set(Network::SwallowAnswers);
    let error = soon("the claim is given up", driver.claim(&ClaimRequest::new(7, "default", 1))).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(database.value("select reserved_by from reveille.jobs").await, 7);
    assert_eq!(driver.release_strays(7, &[]).await.unwrap(), [id], "the strays are released on a new connection");
    assert_eq!(
        database.value("select jsonb_build_array(reserved_by, attempts, failures) from reveille.jobs").await,
        json!([null, 1, 0])
    );
}

/// Sends a signal to all processes of a server.
fn signal_server(server: &Server, signal: &str) {
    let file = std::fs::read_to_string(server.data_dir().join("postmaster.pid")).unwrap();
    let postmaster = file.lines().next().unwrap().to_owned();
    let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
    let all: Vec<&str> = children.split_whitespace().chain([postmaster.as_str()]).collect();
    assert!(Command::new("kill").arg(signal).args(all).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_worker_is_declared_dead_while_the_server_stands_still() {
    const DEAD_AFTER: Duration = Duration::from_secs(4);
    async fn waits(note: Note, State(reporter): State<Reporter>, cancellation: Cancellation) -> Result<(), String> {
        reporter.report(note.text);
        cancellation.cancelled().await;
        reporter.report("cancelled");
        Err("cancelled".into())
    }
    let server = Server::start().unwrap();
    let database = Database::connect(server.url("postgres")).await.unwrap();
    database.migrate().await.unwrap();
    let (reporter, mut reports) = reporting();
    let build = |queue: &str| {
        let builder = Worker::builder(database.clone()).queue(queue, 1).heartbeat(Duration::from_millis(300));
        builder.dead_after(DEAD_AFTER).state(reporter.clone()).handle(waits)
    };
    let workers = ["one", "two"].map(|queue| start(build(queue)));
    let client = client(&server.url("postgres")).await;
    for queue in ["one", "two"] {
        enqueue(&client, &note(queue)).queue(queue).await.unwrap();
        assert_eq!(reports.next().await, queue);
    }
    let ids = "select array_agg(id order by id)::text from reveille.workers";
    let before: String = client.query_one(ids, &[]).await.unwrap().get(0);

    signal_server(&server, "-STOP");
    for _ in 0..2 {
        assert_eq!(reports.next().await, "cancelled");
    }
    // Freezes the server for twice as long as a silent worker needs to be declared dead.
    tokio::time::sleep(DEAD_AFTER * 2).await;
    signal_server(&server, "-CONT");
    let mut again = HashSet::new();
    while again.len() < 2 {
        let text = reports.next().await;
        again.extend((text != "cancelled").then_some(text));
    }
    assert_eq!(client.query_one(ids, &[]).await.unwrap().get::<_, String>(0), before);
    let failed = "select count(*) from reveille.jobs where failures > 0 or errors is not null";
    assert_eq!(client.query_one(failed, &[]).await.unwrap().get::<_, i64>(0), 0);
    client.batch_execute("select reveille.cancel(id) from reveille.jobs").await.unwrap();
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lingering_session_does_not_keep_the_next_from_vouching() {
    let database = database().await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    let info = WorkerInfo::new(7).host("test").queues(["default"]);
    driver.register(&info).await.unwrap();
    let lingering = signals(&driver, 7).await.unwrap();
    let next = signals(&driver, 7).await.unwrap();
    drop(lingering);
    let vouching = "select count(*) = 1 from pg_locks where locktype = 'advisory' and objid = 7
        and database = (select oid from pg_database where datname = current_database())";
    database.until(vouching).await;
    drop(next);
    database.until(&vouching.replace("= 1", "= 0")).await;
}
