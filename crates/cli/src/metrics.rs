//! `metrics`: Prometheus' text over HTTP.
//!
//! Scrapes cannot hurt: the database is asked by one at a time, at most once a second; connections are few, and each is
//! over soon.

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
use crate::work::told_to_stop;
use crate::{Outcome, output};

/// GET /metrics answers with the metrics, or with status 503 and `reveille_up 0` while the database is away; GET
/// /healthz with ok for as long as this process lives. The role reveille_monitor will do (see `reveille migrate
/// --print-grants`).
#[derive(Args)]
pub struct Metrics {
    /// Where to serve.
    #[arg(long, default_value = "127.0.0.1:9187", value_name = "ADDRESS:PORT", conflicts_with = "once")]
    listen: String,
    /// Print the metrics and end.
    #[arg(long)]
    once: bool,
}

/// How long a page is good for.
const FRESH: Duration = Duration::from_secs(1);
/// How long the database may take; the server itself gives up after 20 s.
const PATIENCE: Duration = Duration::from_secs(25);
/// How many are served at once; further ones are turned away.
const CONNECTIONS: usize = 64;
/// How long a client may take to say what it wants, and to be gone.
const ASKED_WITHIN: Duration = Duration::from_secs(5);
const GONE_WITHIN: Duration = Duration::from_secs(40);
/// The largest head of a request.
const LARGEST_HEAD: usize = 16 * 1024;

impl Metrics {
    pub async fn run(self, connection: &Connection) -> Outcome {
        if self.once {
            let page = metrics::text(&connection.lookout().await?).await?;
            return Ok(output::page(page.trim_end())?);
        }
        let database = match connection.lookout().await {
            Ok(database) => Some(database),
            Err(error) if error.is_invalid() => return Err(error.into()),
            Err(error) => {
                say!("{error}; until that is mended, the answer is status 503");
                None
            }
        };
        let listener = TcpListener::bind(&self.listen);
        let listener = listener.await.map_err(|error| format!("cannot listen at {}: {error}", self.listen))?;
        say!("serving http://{}/metrics; Ctrl-C ends it", listener.local_addr()?);
        let kept = Kept { connection: connection.clone(), database, page: None };
        tokio::select! {
            () = serve(listener, Arc::new(Mutex::new(kept))) => Ok(()),
            () = told_to_stop() => Ok(()),
        }
    }
}

async fn serve(listener: TcpListener, kept: Arc<Mutex<Kept>>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, or the client has gone again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                // Who is slow, or talks no HTTP, has only himself to blame.
                let _ = tokio::time::timeout(GONE_WITHIN, converse(stream, kept)).await;
                drop(slot);
            });
        }
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, kept: Arc<Mutex<Kept>>) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(request, Arc::clone(&kept)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKED_WITHIN)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer<B>(request: Request<B>, kept: Arc<Mutex<Kept>>) -> Result<Response<String>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            // A task of its own, so that a client that leaves does not end it half-way.
            let page = tokio::spawn(async move { kept.lock().await.page().await }).await;
            page.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
        }
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "there is /metrics, and /healthz\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

/// A status and a text.
type Page = (StatusCode, String);

/// The database, as long as it answers, and what it said last.
struct Kept {
    connection: Connection,
    database: Option<Database>,
    page: Option<(Instant, Page)>,
}

impl Kept {
    async fn page(&mut self) -> Page {
        if let Some((_, page)) = self.page.as_ref().filter(|(made, _)| made.elapsed() < FRESH) {
            return page.clone();
        }
        let page = match tokio::time::timeout(PATIENCE, self.ask()).await {
            Ok(Ok(text)) => (StatusCode::OK, text),
            Ok(Err(error)) => self.down(&error.to_string()),
            Err(_) => self.down("the database has not answered in time"),
        };
        self.page = Some((Instant::now(), page.clone()));
        page
    }

    async fn ask(&mut self) -> reveille::Result<String> {
        let database = match &self.database {
            Some(database) => database.clone(),
            None => self.database.insert(self.connection.lookout().await?).clone(),
        };
        metrics::text(&database).await
    }

    fn down(&mut self, why: &str) -> Page {
        // Connect anew, wherever the server may be by then.
        self.database = None;
        (StatusCode::SERVICE_UNAVAILABLE, metrics::down(why))
    }
}
