//! A worker tells probes by HTTP whether it lives and is ready.

use std::net::SocketAddr;

use reveille::admin::http::Pages;
use reveille::dev::Network;
use reveille::{Database, Worker, enqueue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::harness::{database, eventually, note, proxy, report, reporting, soon};

/// Sends a GET request. Returns the status and the body of the answer.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("the answer has a head");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn serve(pages: Pages) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(pages.serve(listener));
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_ready_from_its_first_heartbeat_to_its_shutdown() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = Worker::builder(database.database.clone()).state(reporter).handle(report).build().unwrap();
    let address = serve(Pages::new().health(&worker.health()).metrics(database.database.clone())).await;
    let starting = (503, "the worker is starting\n".to_owned());
    assert_eq!(get(address, "/readyz").await, starting);
    assert_eq!(get(address, "/healthz").await, (200, "ok\n".into()));
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.run_until(stop.clone().cancelled_owned()));
    eventually("the worker is ready", async || get(address, "/readyz").await == (200, "ok\n".into())).await;
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "x");
    let (status, page) = get(address, "/metrics").await;
    assert!(status == 200 && page.contains("reveille_up 1"), "{page}");
    stop.cancel();
    soon("the worker ends", working).await.unwrap().unwrap();
    let ended = (503, "the worker has ended\n".to_owned());
    assert_eq!((get(address, "/healthz").await, get(address, "/readyz").await), (ended.clone(), ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_shuts_down_is_alive_but_not_ready() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let release = CancellationToken::new();
    let waits = {
        let release = release.clone();
        move |_: reveille::Context| {
            let (release, reporter) = (release.clone(), reporter.clone());
            async move {
                reporter.report("started");
                release.cancelled().await;
            }
        }
    };
    let builder = Worker::builder(database.database.clone()).handle_any(waits, Default::default());
    let worker = builder.build().unwrap();
    let address = serve(Pages::new().health(&worker.health())).await;
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.run_until(stop.clone().cancelled_owned()));
    enqueue(&database.database, &note("x")).await.unwrap();
    reports.next().await;
    stop.cancel();
    let stopping = (503, "the worker is shutting down\n".to_owned());
    eventually("the worker is not ready", async || get(address, "/readyz").await == stopping).await;
    assert_eq!(get(address, "/healthz").await.0, 200);
    release.cancel();
    soon("the worker ends", working).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_database_lives_and_is_not_ready() {
    let database = database().await;
    let (proxy, through) = proxy(&database.address).await;
    let worker = Worker::builder(Database::connect(&through).await.unwrap());
    let worker = worker.handle_any(async |_| {}, Default::default()).build().unwrap();
    let address = serve(Pages::new().health(&worker.health())).await;
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.run_until(stop.clone().cancelled_owned()));
    eventually("the worker is ready", async || get(address, "/readyz").await.0 == 200).await;
    proxy.set(Network::Refuse);
    eventually("the worker is not ready", async || {
        let (status, reason) = get(address, "/readyz").await;
        status == 503 && reason.starts_with("the database has not answered the worker's heartbeats for ")
    })
    .await;
    assert_eq!(get(address, "/healthz").await.0, 200);
    proxy.set(Network::Pass);
    eventually("the worker is ready again", async || get(address, "/readyz").await.0 == 200).await;
    stop.cancel();
    soon("the worker ends", working).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_page_that_was_not_added_is_missing() {
    let address = serve(Pages::new()).await;
    let missing = (404, "no such page; there are /healthz\n".to_owned());
    for path in ["/", "/metrics", "/readyz", "/healthz/"] {
        assert_eq!(get(address, path).await, missing, "{path}");
    }
}
