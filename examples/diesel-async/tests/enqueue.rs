//! Jobs are enqueued in the transactions of diesel-async.

use diesel::QueryableByName;
use diesel::result::Error::RollbackTransaction;
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use reveille::dev::Server;
use reveille::enqueue::Enqueuer;
use reveille::handler::Middleware;
use reveille::job::{NewJob, Payload, Priority};
use reveille::{Database, testing};
use reveille_diesel_async_example::{
    Enqueued, SendWelcome, create_tables, enqueue, sign_up, welcome_all, welcome_through, worker,
};

struct Application {
    conn: AsyncPgConnection,
    database: Database,
    _server: Server,
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Text)]
    answer: String,
}

impl Application {
    async fn start() -> Application {
        let server = Server::start().unwrap();
        let url = server.url("postgres");
        let database = Database::connect(&url).await.unwrap();
        database.migrate().await.unwrap();
        let mut conn = AsyncPgConnection::establish(&url).await.unwrap();
        create_tables(&mut conn).await.unwrap();
        Application { conn, database, _server: server }
    }

    /// Returns the column `answer` of a query.
    async fn text(&mut self, sql: &str) -> String {
        diesel::sql_query(sql).get_result::<Answer>(&mut self.conn).await.unwrap().answer
    }
}

#[tokio::test]
async fn a_user_and_its_job_are_stored_together_or_not_at_all() {
    let mut application = Application::start().await;
    let user_id = sign_up(&mut application.conn, "ada@example.org").await.unwrap();
    sign_up(&mut application.conn, "ada@example.org").await.unwrap_err();
    let json = NewJob::of(&SendWelcome { user_id: 7 }).unwrap().to_json().unwrap();
    let rolled_back = application.conn.transaction::<(), _, _>(async |conn| {
        assert_eq!(enqueue(conn, json.clone()).await?.len(), 1);
        Err(RollbackTransaction)
    });
    assert!(matches!(rolled_back.await, Err(RollbackTransaction)));
    let jobs = testing::enqueued(&application.database).await.unwrap();
    assert_eq!(jobs.all().len(), 1);
    jobs.assert_has(&SendWelcome { user_id });
    worker(application.database.clone()).unwrap().run_until_drained().await.unwrap();
    assert_eq!(application.text("select outcome as answer from reveille.finished_jobs").await, "completed");
}

#[tokio::test]
async fn many_jobs_take_one_statement_and_keep_their_digits() {
    let mut application = Application::start().await;
    for email in ["ada@example.org", "bob@example.org"] {
        sign_up(&mut application.conn, email).await.unwrap();
    }
    assert_eq!(welcome_all(&mut application.conn).await.unwrap(), 2);
    let digits = "12345678901234567890.012345678901234567890";
    let job = NewJob::new("digits", Payload::parse(digits).unwrap()).unique_key("k").priority(Priority::High);
    let first = enqueue(&mut application.conn, job.to_json().unwrap()).await.unwrap();
    let id = first[0].id;
    assert_eq!(first, [Enqueued { place: 1, id, existed: false }]);
    let again = enqueue(&mut application.conn, job.to_json().unwrap()).await.unwrap();
    assert_eq!(again, [Enqueued { place: 1, id, existed: true }]);
    let payload = "select payload::text as answer from reveille.jobs where kind = 'digits'";
    assert_eq!(application.text(payload).await, digits);
    let error = enqueue(&mut application.conn, r#"{"kind": "k", "dealy": 1}"#.to_owned()).await.unwrap_err();
    assert!(error.to_string().contains("job 1: key \"dealy\": is unknown"), "{error}");
}

/// Marks each job.
struct Marks;

impl Middleware for Marks {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(job.set_metadata_member("marked", &true)?)
    }
}

#[tokio::test]
async fn jobs_pass_the_middleware_of_their_enqueuer() {
    let mut application = Application::start().await;
    welcome_through(&Enqueuer::new().middleware(Marks), &mut application.conn, 7).await.unwrap();
    let metadata = "select metadata::text as answer from reveille.jobs";
    assert_eq!(application.text(metadata).await, r#"{"marked": true}"#);
}
