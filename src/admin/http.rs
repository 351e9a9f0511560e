//! Pages over HTTP for probes and scrapes, for a program that serves no HTTP itself.
//!
//! ```no_run
//! # async fn example(database: reveille::Database) -> Result<(), Box<dyn std::error::Error>> {
//! # async fn note(_: reveille::Context) {}
//! use reveille::{Worker, admin::http::Pages, job::RetryPolicy};
//!
//! let worker = Worker::builder(database.clone()).handle_any(note, RetryPolicy::default()).build()?;
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:9187").await?;
//! tokio::spawn(Pages::new().health(&worker.health()).metrics(database).serve(listener));
//! worker.run_until(tokio::signal::ctrl_c()).await?;
//! # Ok(())
//! # }
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

use crate::admin::metrics;
use crate::database::Database;
use crate::error::Result;
use crate::worker::Health;

/// The time for which the metrics are served again without a new query.
const METRICS_LIFETIME: Duration = Duration::from_secs(1);
/// The time that the query for the metrics may take. A server may give up earlier.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(25);
/// The largest number of open connections. Further connections are closed at once.
const MAX_CONNECTIONS: usize = 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(40);
const LARGEST_REQUEST_HEAD: usize = 16 * 1024;

type Connect = dyn Fn() -> BoxFuture<'static, Result<Database>> + Send + Sync;
type Page = (StatusCode, String);

/// Serves `/healthz`, and the pages that its methods add.
///
/// Requests cannot overload the program or the database. At most one query for the metrics runs at a time, and at most
/// one a second. At most 64 connections are open, one request each; each ends within 40 s.
#[derive(Default)]
pub struct Pages {
    health: Option<Health>,
    metrics: Option<Mutex<MetricsSource>>,
}

impl Pages {
    /// Returns the page `/healthz` alone. It answers `ok` as long as this program answers.
    pub fn new() -> Pages {
        Pages::default()
    }

    /// Adds the page `/readyz` of a worker. It answers with status 200 while the worker [is
    /// ready](Health::is_ready), and else with status 503 and the reason. `/healthz` answers with status 503 once the
    /// worker [has ended](Health::is_live).
    #[must_use]
    pub fn health(self, health: &Health) -> Pages {
        Pages { health: Some(health.clone()), ..self }
    }

    /// Adds the page `/metrics`: the [metrics] of a database in Prometheus' text format. While the database does not
    /// answer, it has status 503 and `reveille_up 0`.
    #[must_use]
    pub fn metrics(self, database: Database) -> Pages {
        self.metrics_from(move || std::future::ready(Ok(database.clone())))
    }

    /// Adds the page `/metrics`, as [`metrics`](Pages::metrics) does. `connect` returns the database; it is called
    /// again after each failure, since the primary may then be another server.
    #[must_use]
    pub fn metrics_from<F>(self, connect: impl Fn() -> F + Send + Sync + 'static) -> Pages
    where
        F: Future<Output = Result<Database>> + Send + 'static,
    {
        let connect: Box<Connect> = Box::new(move || connect().boxed());
        Pages { metrics: Some(Mutex::new(MetricsSource { connect, database: None, page: None })), ..self }
    }

    /// Serves the pages until the future is dropped.
    pub async fn serve(self, listener: TcpListener) {
        let (pages, slots) = (Arc::new(self), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Tries again after a pause: this process has no free file descriptor, or the client has closed the
                // connection.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    // Ignores an error, because it is the client's fault: the client was too slow, or did not speak
                    // HTTP.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve_connection(stream, pages)).await;
                    drop(slot);
                });
            }
        }
    }

    fn healthz(&self) -> Page {
        match &self.health {
            Some(health) if !health.is_live() => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", health.status())),
            _ => (StatusCode::OK, "ok\n".into()),
        }
    }

    fn readyz(health: &Health) -> Page {
        match health.is_ready() {
            true => (StatusCode::OK, "ok\n".into()),
            false => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", health.status())),
        }
    }

    fn missing(&self) -> Page {
        let pages =
            [Some("/healthz"), self.health.as_ref().map(|_| "/readyz"), self.metrics.as_ref().map(|_| "/metrics")];
        let pages = pages.into_iter().flatten().collect::<Vec<_>>().join(", ");
        (StatusCode::NOT_FOUND, format!("no such page; there are {pages}\n"))
    }
}

/// Serves one request.
async fn serve_connection(stream: TcpStream, pages: Arc<Pages>) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(request, Arc::clone(&pages)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(LARGEST_REQUEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer<B>(request: Request<B>, pages: Arc<Pages>) -> std::result::Result<Response<String>, Infallible> {
    let is_allowed = [Method::GET, Method::HEAD].contains(request.method());
    let (status, text) = match (request.uri().path(), &pages.health, &pages.metrics) {
        _ if !is_allowed => (StatusCode::METHOD_NOT_ALLOWED, "not allowed; use GET or HEAD\n".to_owned()),
        ("/healthz", ..) => pages.healthz(),
        ("/readyz", Some(health), _) => Pages::readyz(health),
        ("/metrics", _, Some(_)) => metrics_page(&pages).await,
        _ => pages.missing(),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

/// Queries the metrics in a separate task, so that a client that leaves does not interrupt the query.
async fn metrics_page(pages: &Arc<Pages>) -> Page {
    let pages = Arc::clone(pages);
    let page = tokio::spawn(async move {
        match &pages.metrics {
            Some(metrics) => metrics.lock().await.page().await,
            None => pages.missing(),
        }
    });
    page.await.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}

/// The source of the metrics: the database, and the last page.
struct MetricsSource {
    connect: Box<Connect>,
    /// The database; `None` if the last query has failed.
    database: Option<Database>,
    /// The last page, and the time at which it was made.
    page: Option<(Instant, Page)>,
}

impl MetricsSource {
    async fn page(&mut self) -> Page {
        if let Some((_, page)) = self.page.as_ref().filter(|(made, _)| made.elapsed() < METRICS_LIFETIME) {
            return page.clone();
        }
        let page = match tokio::time::timeout(DATABASE_TIMEOUT, self.query()).await {
            Ok(Ok(text)) => (StatusCode::OK, text),
            Ok(Err(error)) => self.down(&error.to_string()),
            Err(_) => self.down("the database has not answered within 25 s"),
        };
        self.page = Some((Instant::now(), page.clone()));
        page
    }

    async fn query(&mut self) -> Result<String> {
        let database = match &self.database {
            Some(database) => database.clone(),
            None => self.database.insert((self.connect)().await?).clone(),
        };
        metrics::text(&database).await
    }

    fn down(&mut self, why: &str) -> Page {
        self.database = None;
        (StatusCode::SERVICE_UNAVAILABLE, metrics::down(why))
    }
}
