//! The application from end to end: requests over HTTP, and a worker, on a throw-away server.

use std::net::SocketAddr;
use std::time::Duration;

use reveille::dev::Server;
use reveille::{Database, testing};
use reveille_axum_example::jobs::SendWelcome;
use reveille_axum_example::{Failure, open, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Application {
    address: SocketAddr,
    database: Database,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Failure>>,
    _server: Server,
}

impl Application {
    async fn start() -> Application {
        let server = Server::start().unwrap();
        let database = open(server.url("postgres")).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let running = tokio::spawn(run(listener, database.clone(), stop.clone().cancelled_owned()));
        Application { address, database, stop, running, _server: server }
    }

    /// Sends a request, and returns the status and the body of the response.
    async fn request(&self, line: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    async fn sign_up(&self, email: &str) -> (u16, String) {
        self.request("POST /signup", &serde_json::json!({ "email": email }).to_string()).await
    }

    /// Returns the number of users.
    async fn users(&self) -> i64 {
        let client = self.database.client().await.unwrap();
        client.query_one("select count(*) from example_users", &[]).await.unwrap().get(0)
    }

    async fn stop(self) {
        self.stop.cancel();
        let running = tokio::time::timeout(Duration::from_secs(30), self.running);
        running.await.expect("the application stops").unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_signup_is_welcomed() {
    let application = Application::start().await;
    assert_eq!(application.request("GET /health", "").await.0, 200);
    let (status, body) = application.sign_up("ada@example.org").await;
    assert_eq!((status, body.as_str()), (201, r#"{"user_id":1}"#));

    let jobs = testing::enqueued(&application.database).await.unwrap();
    let job = jobs.assert_has(&SendWelcome { user_id: 1 });
    let finished = tokio::time::timeout(Duration::from_secs(30), application.database.finished(job.id));
    let finished = finished.await.expect("the job ends").unwrap();
    assert!(finished.unwrap().is_completed());
    application.stop().await;
}

/// Signs up the same address twice. The second request is refused, and leaves neither a user nor a job.
async fn assert_second_sign_up_enqueues_nothing(application: Application) {
    assert_eq!(application.sign_up("ada@example.org").await.0, 201);
    assert_eq!(application.sign_up("ada@example.org").await.0, 409);

    let jobs = testing::enqueued(&application.database).await.unwrap();
    assert_eq!((application.users().await, jobs.all().len()), (1, 1));
    application.stop().await;
}

#[tokio::test]
async fn a_failed_insert_enqueues_nothing() {
    let application = Application::start().await;
    assert_second_sign_up_enqueues_nothing(application).await;
}

#[tokio::test]
async fn a_commit_that_fails_after_the_enqueue_enqueues_nothing() {
    let application = Application::start().await;
    // Now the database checks the address at the commit, when the job has been inserted already.
    let late = "alter table example_users drop constraint example_users_email_key, \
        add unique (email) deferrable initially deferred";
    application.database.client().await.unwrap().batch_execute(late).await.unwrap();
    assert_second_sign_up_enqueues_nothing(application).await;
}

#[tokio::test]
async fn the_server_ends_with_its_worker() {
    let application = Application::start().await;
    let client = application.database.client().await.unwrap();
    let stop = "select reveille.stop_worker(id) from reveille.workers";
    // The worker registers itself soon after the start.
    let stopped = async {
        while client.query(stop, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("a worker is registered");

    let ended = tokio::time::timeout(Duration::from_secs(30), application.running).await;
    ended.expect("the application ends").unwrap().unwrap();
    assert!(TcpStream::connect(application.address).await.is_err());
}
