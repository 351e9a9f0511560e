//! What only a socket shows: requests that no library would send, and clients that are slow.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{database, eventually, soon};
use crate::web::site;

async fn served() -> (crate::harness::TestDatabase, std::net::SocketAddr) {
    let database = database().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, router) = (listener.local_addr().unwrap(), site(&database));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (database, address)
}

/// Sends bytes, and returns the first line of the answer.
async fn raw(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = vec![0; 32];
    let length = soon("an answer", stream.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_without_one_known_host_is_refused() {
    let (_database, address) = served().await;
    for (head, status) in [
        ("GET / HTTP/1.0\r\n", "421"),
        ("GET / HTTP/1.0\r\nHost: localhost\r\n", "200"),
        ("GET / HTTP/1.1\r\n", "421"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n", "421"),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n", "421"),
        ("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n", "421"),
        ("GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\n", "421"),
        ("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n", "200"),
        ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n", "405"),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n", "405"),
        ("GET / HTTP/1.1\r\nHost: \u{e9}vil\r\n", "421"),
    ] {
        let answer = raw(address, format!("{head}\r\n").as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{head}: {answer}");
    }
}

#[tokio::test]
async fn slow_clients_do_not_stop_others() {
    let (_database, address) = served().await;
    let mut slow = Vec::new();
    for head in [
        // The head does not end.
        &b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "[..],
        // The body does not come.
        b"POST /queue/pause HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 1000000\r\n\
          Content-Type: application/x-www-form-urlencoded\r\n\r\nx=",
        // Nobody reads the stream.
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
    ] {
        for _ in 0..40 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head).await.unwrap();
            slow.push(stream);
        }
    }
    let began = Instant::now();
    // While the pages of the 40 streams are first drawn, all room for requests may be taken for a moment.
    eventually("five pages are answered", async || {
        let answers = join_all((0..5).map(|_| raw(address, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))).await;
        answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200"))
    })
    .await;
    // After 30 s, the slow bodies are given up.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
}
