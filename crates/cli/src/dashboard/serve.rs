//! The HTTP server of the dashboard.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::patience::Patience;

/// The largest number of open connections. A further one waits until the kernel's queue takes it.
const MOST_CONNECTIONS: usize = 512;
/// The time within which a client must send the head of a request.
const REQUEST_HEAD: Duration = Duration::from_secs(10);
const LARGEST_REQUEST_HEAD: usize = 64 * 1024;
/// The time that open requests have to end once the server is to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Serves the pages until `stop`.
pub async fn serve(listener: TcpListener, pages: Router, stop: CancellationToken) {
    let (slots, connections) = (Arc::new(Semaphore::new(MOST_CONNECTIONS)), TaskTracker::new());
    while let Some(Ok(slot)) = stop.run_until_cancelled(Arc::clone(&slots).acquire_owned()).await {
        let stream = match stop.run_until_cancelled(listener.accept()).await {
            Some(Ok((stream, _))) => stream,
            Some(Err(_)) => {
                // This process has no free file descriptor, or the client has gone. Tries again after a pause.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => break,
        };
        let (pages, stop) = (pages.clone(), stop.clone());
        connections.spawn(async move {
            // An error is the client's: it was too slow, or did not speak HTTP.
            let _ = serve_connection(stream, pages, stop).await;
            drop(slot);
        });
    }
    connections.close();
    let _ = tokio::time::timeout(GRACE, connections.wait()).await;
}

async fn serve_connection(stream: TcpStream, pages: Router, stop: CancellationToken) -> hyper::Result<()> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD)
        .max_buf_size(LARGEST_REQUEST_HEAD)
        .serve_connection(TokioIo::new(Patience::with(stream)), TowerToHyperService::new(pages));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
