//! `reveille metrics` serves true figures in Prometheus' format over HTTP, in every state of the database and the
//! clients.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reveille::dev::Network;

use crate::harness::{DEADLINE, database, empty_database, eventually, proxy};
use crate::prometheus::parse;

/// The running exporter. Dropping this kills the process.
struct Exporter {
    process: Child,
    at: SocketAddr,
}

impl Exporter {
    fn start(address: &str) -> Exporter {
        Exporter::run(address, &["metrics", "--listen", "127.0.0.1:0"])
    }

    fn run(address: &str, arguments: &[&str]) -> Exporter {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(arguments).env("DATABASE_URL", address).env("PGAPPNAME", "scraped").stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (sender, served) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = sender.send(lines.find_map(|line| line.strip_prefix("serving http://").map(str::to_owned)));
            // Reads the exporter's output to its end, because a full pipe would block the exporter.
            lines.for_each(drop);
        });
        let serving = served.recv_timeout(DEADLINE).ok().flatten();
        let Some(serving) = serving else {
            let _ = process.kill();
            panic!("the exporter says where it serves");
        };
        Exporter { process, at: serving.split('/').next().unwrap().parse().unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends a request. Returns the status and the body of the answer, or `None` without an answer.
    fn send(&self, request: &[u8]) -> Option<(u16, String)> {
        let (mut stream, mut answer) = (self.connect(), Vec::new());
        let _ = stream.write_all(request);
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, text.to_owned()))
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_and_other_requests_are_refused() {
    let database = database().await;
    let exporter = Exporter::start(&database.address);
    let (status, page) = exporter.get("/metrics?x=y").unwrap();
    assert_eq!((status, parse(&page).of("reveille_up", &[])), (200, Some(1.0)));
    assert_eq!(exporter.get("/healthz").unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(exporter.send(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap(), (200, String::new()));
    assert_eq!(exporter.get("/elsewhere").unwrap().0, 404);
    assert_eq!(exporter.send(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").unwrap().0, 405);
    assert_eq!(exporter.send(b"\x16\x03\x01 nonsense\r\n\r\n").unwrap().0, 400);
    let endless = [b"GET /metrics HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 100_000], b"\r\n\r\n".to_vec()].concat();
    assert!(exporter.send(&endless).is_none_or(|(status, _)| status == 431), "an endless head is refused");
    assert_eq!(exporter.get("/metrics").unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_serves_probes_and_metrics() {
    let database = database().await;
    let worker = Exporter::run(&database.address, &["work", "--exec", "true", "--http", "127.0.0.1:0"]);
    eventually("the worker is ready", async || worker.get("/readyz").is_some_and(|(status, _)| status == 200)).await;
    assert_eq!(worker.get("/healthz").unwrap(), (200, "ok\n".to_owned()));
    let (status, page) = worker.get("/metrics").unwrap();
    assert_eq!((status, parse(&page).of("reveille_workers", &[("state", "working")])), (200, Some(1.0)));
}

#[tokio::test]
async fn a_worker_refuses_an_address_that_it_cannot_serve_at() {
    let database = database().await;
    let worker = Command::new(env!("CARGO_BIN_EXE_reveille"))
        .args(["work", "--exec", "true", "--http", "nowhere"])
        .env("DATABASE_URL", &database.address)
        .output()
        .unwrap();
    let error = String::from_utf8(worker.stderr).unwrap();
    assert_eq!(worker.status.code(), Some(2), "{error}");
    assert!(error.contains("cannot listen at nowhere"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_do_not_keep_others_out_for_long() {
    let database = database().await;
    let exporter = Exporter::start(&database.address);
    let silent: Vec<TcpStream> = (0..200).map(|_| exporter.connect()).collect();
    // The silent clients hold all connections until the exporter drops these clients.
    eventually("a scrape is answered", async || exporter.get("/metrics").is_some_and(|(status, _)| status == 200))
        .await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_scrapes_cost_one_query_a_second_on_one_connection() {
    let database = database().await;
    // The figures of two queries differ by the job's age, so equal pages come from one query.
    database.run("insert into reveille.jobs (kind) values ('k')").await;
    let exporter = Exporter::start(&database.address);
    let began = Instant::now();
    let scrape = || (0..20).map(|_| exporter.get("/metrics").unwrap()).collect::<Vec<_>>();
    let pages: HashSet<(u16, String)> = std::thread::scope(|scope| {
        let scrapers: Vec<_> = (0..16).map(|_| scope.spawn(scrape)).collect();
        scrapers.into_iter().flat_map(|scraper| scraper.join().unwrap()).collect()
    });
    assert!(pages.iter().all(|(status, _)| *status == 200));
    assert!(pages.len() as u64 <= began.elapsed().as_secs() + 2, "320 scrapes, {} queries", pages.len());
    database
        .until(
            "select count(*) = 1 from pg_stat_activity where application_name = 'scraped' \
        and datname = current_database()",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_the_answer_is_503_until_it_is_back() {
    let database = database().await;
    let (network, address) = proxy(&database.address).await;
    let exporter = Exporter::start(&address);
    assert_eq!(exporter.get("/metrics").unwrap().0, 200);
    network.set(Network::Refuse);
    eventually("the outage is noticed", async || exporter.get("/metrics").unwrap().0 == 503).await;
    let (status, page) = exporter.get("/metrics").unwrap();
    assert_eq!((status, parse(&page).of("reveille_up", &[])), (503, Some(0.0)));
    assert_eq!(exporter.get("/healthz").unwrap().0, 200, "the exporter itself is well");
    network.set(Network::Pass);
    eventually("metrics are served again", async || exporter.get("/metrics").unwrap().0 == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_started_too_early_waits_for_the_schema() {
    let database = empty_database().await;
    let exporter = Exporter::start(&database.address);
    let (status, page) = exporter.get("/metrics").unwrap();
    assert!(status == 503 && page.contains("reveille migrate"), "{page}");
    database.migrate().await.unwrap();
    eventually("metrics are served", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        exporter.get("/metrics").unwrap().0 == 200
    })
    .await;
}
