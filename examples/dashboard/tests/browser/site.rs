//! The application on a throw-away server, with jobs of all sorts.

use std::net::SocketAddr;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use reveille::Database;
use reveille::dev::Server;
use reveille_dashboard_example::application;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::browser::Browser;

/// Text that a page must show as it is.
pub const HOSTILE: &str =
    "<img src=x onerror=\"document.title='taken over'\"></script><script>document.title='taken over'</script>'\"&";

pub struct Site {
    database: Database,
    address: SocketAddr,
    /// The application, which keeps its sessions while it is served anew.
    application: Router,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    pub running: i64,
    pub dead: i64,
    pub completed: i64,
    /// A blocked job of the workflow 1, and a job with steps.
    pub blocked: i64,
    pub stepping: i64,
    _server: Server,
}

/// Jobs in all states, as workers would have left them.
const JOBS: &str = include_str!("jobs.sql");

impl Site {
    pub async fn start() -> Site {
        let server = Server::start().unwrap();
        let database = Database::connect(server.url("postgres")).await.unwrap();
        database.migrate().await.unwrap();
        database.client().await.unwrap().batch_execute(JOBS).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        // The streams of this application end with the connections.
        let application = application(database.clone(), std::future::pending());
        let serving = serve(listener, application.clone(), stop.clone());
        let mut site = Site {
            database,
            address,
            application,
            stop,
            serving,
            running: 0,
            dead: 0,
            completed: 0,
            blocked: 0,
            stepping: 0,
            _server: server,
        };
        site.running = site.id("select id from reveille.jobs where reserved_at is not null limit 1").await;
        site.dead = site.id("select id from reveille.dead_jobs where kind = 'send_welcome' limit 1").await;
        site.completed = site.id("select id from reveille.finished_jobs where result is not null limit 1").await;
        site.blocked = site.id("select job from reveille.workflow_jobs where name = 'report'").await;
        site.stepping = site.id("select id from reveille.jobs where kind = 'checkout'").await;
        site
    }

    /// Returns the address of a page of the dashboard.
    pub fn page(&self, path: &str) -> String {
        let path = path
            .replace("RUNNING", &self.running.to_string())
            .replace("DEAD", &self.dead.to_string())
            .replace("COMPLETED", &self.completed.to_string())
            .replace("BLOCKED", &self.blocked.to_string())
            .replace("STEPPING", &self.stepping.to_string());
        let slash = if path.is_empty() { "" } else { "/" };
        format!("http://{}/ops/jobs{slash}{path}", self.address)
    }

    pub async fn log_in(&self, browser: &Browser, name: &str, password: &str) {
        browser.open(&format!("http://{}/login", self.address)).await;
        browser.fill("input[name=name]", name).await;
        browser.fill("input[name=password]", password).await;
        browser.find("button").await.click().await.unwrap();
        browser.find("main h1").await;
    }

    pub async fn enqueue(&self, kind: &str, payload: &str) -> i64 {
        self.id(&format!("insert into reveille.jobs (kind, payload) values ('{kind}', {payload}) returning id")).await
    }

    /// Enqueues a job with markup in each of its fields.
    pub async fn enqueue_hostile(&self) -> i64 {
        let text = HOSTILE.replace('\'', "''");
        self.id(&format!(
            "insert into reveille.jobs (queue, kind, payload, key, tags, metadata, unique_key, available_at, failures, \
             attempts, errors, progress) values ('{text}', left('{text}', 128), \
             jsonb_build_object('{text}', '{text}'), '{text}', array['{text}'], \
             jsonb_build_object('{text}', '{text}'), '{text}', now() + interval '1 hour', 1, 1, \
             jsonb_build_array(jsonb_build_object('at', now(), 'attempt', 1, 'error', '{text}')), \
             to_jsonb('{text}'::text)) returning id"
        ))
        .await
    }

    /// Enqueues a workflow with markup in each of its texts.
    pub async fn enqueue_hostile_workflow(&self) -> i64 {
        let text = HOSTILE.replace('\'', "''");
        self.id(&format!(
            "select reveille.enqueue_workflow(left('{text}', 128), jsonb_build_array(jsonb_build_object('name', \
             left('{text}', 128), 'kind', left('{text}', 128)), jsonb_build_object('name', 'next', 'kind', 'k', \
             'after', jsonb_build_array(left('{text}', 128)))), unique_key => '{text}', \
             input => to_jsonb('{text}'::text))"
        ))
        .await
    }

    pub async fn id(&self, sql: &str) -> i64 {
        self.database.client().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
    }

    pub async fn text(&self, sql: &str) -> String {
        self.database.client().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
    }

    pub async fn stop_serving(&mut self) {
        self.stop.cancel();
        (&mut self.serving).await.unwrap();
    }

    /// Serves the application again at the same address.
    pub async fn serve_again(&mut self) {
        self.stop = CancellationToken::new();
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = serve(listener, self.application.clone(), self.stop.clone());
    }
}

/// Serves the application. Once `stop` is cancelled, open connections are cut off.
fn serve(listener: TcpListener, application: Router, stop: CancellationToken) -> JoinHandle<()> {
    let mut connections = tokio::task::JoinSet::new();
    tokio::spawn(async move {
        while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
            let service = TowerToHyperService::new(application.clone());
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}
