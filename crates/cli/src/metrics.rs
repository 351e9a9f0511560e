//! `metrics`: Prometheus' text over HTTP.
//!
//! Scrapes cannot overload the database: at most one query for the figures runs at a time, and at most one per second.
//! There are at most 64 connections, and each connection ends within 40 s.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use reveille::{Database, admin::metrics};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

use crate::connection::Connection;
use crate::work::stop_signal;
use crate::{Outcome, output};

/// GET /metrics answers with the metrics, or with status 503 and `reveille_up 0` while the database cannot be reached.
/// GET /healthz answers ok while this process runs. The role reveille_monitor suffices (see `reveille migrate
/// --print-grants`).
#[derive(Args)]
pub struct MetricsCommand {
    /// The address to serve at.
    #[arg(long, default_value = "127.0.0.1:9187", value_name = "ADDRESS:PORT", conflicts_with = "once")]
    listen: String,
    /// Print the metrics once, without serving them.
    #[arg(long)]
    once: bool,
}

/// The time for which a page is served again without a new query for the figures.
const PAGE_LIFETIME: Duration = Duration::from_secs(1);
/// The time that a query for the figures may take. The server itself gives up after 20 s.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(25);
/// The largest number of open connections. Further connections are closed at once.
const MAX_CONNECTIONS: usize = 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(40);
const LARGEST_REQUEST_HEAD: usize = 16 * 1024;

impl MetricsCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        if self.once {
            let page = metrics::text(&connection.lookout().await?).await?;
            return Ok(output::page(page.trim_end())?);
        }
        let database = match connection.lookout().await {
            Ok(database) => Some(database),
            Err(error) if error.is_invalid() => return Err(error.into()),
            Err(error) => {
                say!("{error}; until that is fixed, scrapes get status 503");
                None
            }
        };
        let listener = TcpListener::bind(&self.listen);
        let listener = listener
            .await
            .map_err(|error| format!("cannot listen at {}: {error}; give a free address with --listen", self.listen))?;
        say!("serving http://{}/metrics; Ctrl-C ends it", listener.local_addr()?);
        let source = MetricsSource { connection: connection.clone(), database, page: None };
        tokio::select! {
            () = serve(listener, Arc::new(Mutex::new(source))) => Ok(()),
            () = stop_signal() => Ok(()),
        }
    }
}

async fn serve(listener: TcpListener, source: Arc<Mutex<MetricsSource>>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Tries again after a pause: this process has no free file descriptor, or the client has closed the
            // connection.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            let source = Arc::clone(&source);
            tokio::spawn(async move {
                // Ignores an error, because it is the client's fault: the client was too slow, or did not speak HTTP.
                let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve_connection(stream, source)).await;
                drop(slot);
            });
        }
    }
}

/// Serves one request.
async fn serve_connection(stream: TcpStream, source: Arc<Mutex<MetricsSource>>) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(request, Arc::clone(&source)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(LARGEST_REQUEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer<B>(request: Request<B>, source: Arc<Mutex<MetricsSource>>) -> Result<Response<String>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            // The query for the figures runs in a separate task, so that a client that leaves does not interrupt the
            // query.
            let page = tokio::spawn(async move { source.lock().await.page().await }).await;
            page.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
        }
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "no such page; use /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "not allowed; use GET or HEAD\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

type Page = (StatusCode, String);

/// The source of the metrics: the database, and the last page.
struct MetricsSource {
    connection: Connection,
    /// The database; `None` if the last query for the figures has failed.
    database: Option<Database>,
    /// The last page, and the time at which it was made.
    page: Option<(Instant, Page)>,
}

impl MetricsSource {
    async fn page(&mut self) -> Page {
        if let Some((_, page)) = self.page.as_ref().filter(|(made, _)| made.elapsed() < PAGE_LIFETIME) {
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

    async fn query(&mut self) -> reveille::Result<String> {
        let database = match &self.database {
            Some(database) => database.clone(),
            None => self.database.insert(self.connection.lookout().await?).clone(),
        };
        metrics::text(&database).await
    }

    fn down(&mut self, why: &str) -> Page {
        // The next query connects again, since the primary may be another server after a fail-over.
        self.database = None;
        (StatusCode::SERVICE_UNAVAILABLE, metrics::down(why))
    }
}
