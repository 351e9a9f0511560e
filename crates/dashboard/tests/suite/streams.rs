//! Streams share what they read, and end when they should.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures::StreamExt;
use futures::future::join_all;
use reveille::Database;
use reveille_dashboard::{Access, Dashboard, Viewer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::harness::{TestDatabase, database, eventually, host_and_port, soon};
use crate::web::{furnish, open_stream, read_until, request, send, site};

/// On a busy machine, a reading serves the streams for up to 90 s.
const READ_TWICE_WITHIN: Duration = Duration::from_secs(240);

/// The number of times that each statement was run, by its text.
type Counts = Arc<Mutex<HashMap<String, usize>>>;

/// Starts a proxy that counts the statements that pass. Returns the address through it.
async fn counting_proxy(database: &TestDatabase) -> (String, Counts) {
    let config: tokio_postgres::Config = database.address.parse().unwrap();
    let ((host, port), counts) = (host_and_port(&config), Counts::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let counted = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let counts = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut names = HashMap::new();
                // The first message of a session has no type.
                let mut is_first = true;
                loop {
                    let mut kind = [0];
                    if !is_first && from_client.read_exact(&mut kind).await.is_err() {
                        return;
                    }
                    let Ok(length) = from_client.read_u32().await else { return };
                    let mut body = vec![0; length as usize - 4];
                    if from_client.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    count(&kind, &body, &mut names, &counts);
                    if !is_first {
                        to_server.write_all(&kind).await.unwrap();
                    }
                    to_server.write_u32(length).await.unwrap();
                    to_server.write_all(&body).await.unwrap();
                    is_first = false;
                }
            });
        }
    });
    let user = config.get_user().unwrap();
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    let name = config.get_dbname().unwrap();
    (format!("host=127.0.0.1 port={here} user='{user}' password='{password}' dbname='{name}' sslmode=disable"), counts)
}

/// Counts a message that binds a prepared statement to its parameters.
fn count(kind: &[u8; 1], body: &[u8], names: &mut HashMap<String, String>, counts: &Counts) {
    let mut texts = body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    match (kind, texts.next(), texts.next()) {
        (b"P", Some(name), Some(sql)) => drop(names.insert(name, sql)),
        (b"B", _, Some(name)) => {
            let sql = names.get(&name).cloned().unwrap_or_default();
            *counts.lock().unwrap().entry(sql).or_default() += 1;
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_hundred_streams_cost_one_statement_a_second_of_each_kind() {
    let database = database().await;
    furnish(&database).await;
    let (address, counts) = counting_proxy(&database).await;
    let through = Database::connect(address).await.unwrap();
    let router = site(&through);
    let began = Instant::now();
    let pages = ["/", "/jobs", "/jobs/1", "/queue?name=mail"];
    let opened = join_all((0..100).map(|n| open_stream(&router, pages[n % pages.len()]))).await;
    let mut streams: Vec<_> = opened.into_iter().map(|(_, _, stream)| stream).collect();
    // A slow reading serves the streams for longer, so a busy machine reads the overview seldom.
    let reading = join_all(streams.iter_mut().map(|stream| async move { while stream.next().await.is_some() {} }));
    let of_overview = || {
        let counts = counts.lock().unwrap();
        counts.iter().filter(|(sql, _)| sql.contains("dead_by_queue")).map(|(_, count)| *count).sum::<usize>()
    };
    let read_again = async {
        while of_overview() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = reading => panic!("the streams ended"),
        read = tokio::time::timeout(READ_TWICE_WITHIN, read_again) => read.expect("the overview is read again"),
    }
    let seconds = began.elapsed().as_secs_f64();
    for (sql, count) in counts.lock().unwrap().iter() {
        // A page of jobs may take several slices, and two pages list jobs. The doctor has statements of its own.
        let most = 4.0 * (seconds + 2.0);
        assert!((*count as f64) <= most, "{count} times within {seconds:.1} s: {sql}");
    }
    assert!((of_overview() as f64) <= seconds + 2.0, "{} overviews within {seconds:.1} s", of_overview());
}

#[tokio::test]
async fn the_streams_that_clients_leave_make_room_for_others() {
    let database = database().await;
    let router = site(&database);
    for _ in 0..3 {
        let opened = join_all((0..256).map(|_| open_stream(&router, "/"))).await;
        let open = opened.iter().filter(|(status, ..)| *status == StatusCode::OK).count();
        // A request that comes while 64 others are answered is sent away. All others get a stream.
        let refused = opened.iter().filter(|(status, ..)| *status == StatusCode::SERVICE_UNAVAILABLE).count();
        assert_eq!(open + refused, 256);
        assert!(open >= 64, "{open}");
    }
    let mut streams = Vec::new();
    while streams.len() < 256 {
        let (status, _, stream) = open_stream(&router, "/").await;
        assert_eq!(status, StatusCode::OK, "stream {}", streams.len());
        streams.push(stream);
    }
    assert_eq!(open_stream(&router, "/").await.0, StatusCode::SERVICE_UNAVAILABLE);
    // Pages are still served, and heads of streams take no room.
    assert_eq!(send(&router, request("GET", "/", &[], "")).await.status, StatusCode::OK);
    streams.truncate(200);
    for _ in 0..100 {
        let head = request("HEAD", "/", &[("accept", "text/event-stream")], "");
        assert_eq!(send(&router, head).await.status, StatusCode::OK);
    }
    let (_, _, mut last) = open_stream(&router, "/").await;
    read_until(&mut last, "the last stream lives", |event| event.contains("Overview")).await;
    drop((streams, last));
    let sessions = "select count(*) <= 8 from pg_stat_activity where datname = current_database()";
    database.until(sessions).await;
}

#[tokio::test]
async fn streams_end_at_shutdown() {
    let database = database().await;
    let stop = CancellationToken::new();
    let dashboard = Dashboard::new(database.database.clone()).shutdown(stop.clone().cancelled_owned());
    let router = dashboard.authorize(|_| Viewer::new("ada").access(Access::all())).router();
    let opened = join_all((0..20).map(|_| open_stream(&router, "/"))).await;
    stop.cancel();
    let ends = opened.into_iter().map(|(_, _, mut stream)| async move { while stream.next().await.is_some() {} });
    soon("all streams end", join_all(ends)).await;
    let (_, _, mut late) = open_stream(&router, "/").await;
    soon("a late stream ends at once", async { while late.next().await.is_some() {} }).await;
}

#[tokio::test]
async fn a_slow_statement_leaves_the_rest_of_the_page_and_no_session() {
    let database = database().await;
    furnish(&database).await;
    let dashboard = Dashboard::new(database.database.clone()).statement_timeout(Duration::from_millis(300));
    let router = dashboard.authorize(|_| Viewer::new("ada")).router();
    let blocker = database.client().await;
    blocker.batch_execute("begin; lock table reveille.finished_jobs in access exclusive mode").await.unwrap();
    let answers = join_all((0..20).map(|_| send(&router, request("GET", "/jobs?state=completed", &[], "")))).await;
    for answer in answers {
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body.contains("role=\"alert\"") && answer.body.contains("name=\"kind\""), "{}", answer.body);
    }
    let waiting = "select count(*) = 0 from pg_stat_activity \
        where datname = current_database() and wait_event_type = 'Lock' and query like '%finished%'";
    database.until(waiting).await;
    blocker.batch_execute("rollback").await.unwrap();
    eventually("the list is back", async || {
        send(&router, request("GET", "/jobs?state=completed", &[], "")).await.body.contains("jobs/5")
    })
    .await;
}
