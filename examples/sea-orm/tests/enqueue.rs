//! Jobs are enqueued in the transactions of SeaORM.

use reveille::dev::Server;
use reveille::enqueue::Enqueuer;
use reveille::handler::Middleware;
use reveille::job::{NewJob, Payload, Priority};
use reveille::{Database, testing};
use reveille_sea_orm_example::{
    Enqueued, SendWelcome, create_tables, enqueue, sign_up, welcome_all, welcome_through, worker,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement, TransactionTrait};

struct Application {
    db: DatabaseConnection,
    database: Database,
    _server: Server,
}

impl Application {
    async fn start() -> Application {
        let server = Server::start().unwrap();
        let url = server.url("postgres");
        let database = Database::connect(&url).await.unwrap();
        database.migrate().await.unwrap();
        let db = sea_orm::Database::connect(&url).await.unwrap();
        create_tables(&db).await.unwrap();
        Application { db, database, _server: server }
    }

    /// Returns the text that a query returns.
    async fn text(&self, sql: &str) -> String {
        let statement = Statement::from_string(self.db.get_database_backend(), sql);
        self.db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
    }
}

#[tokio::test]
async fn a_user_and_its_job_are_stored_together_or_not_at_all() {
    let application = Application::start().await;
    let user_id = sign_up(&application.db, "ada@example.org").await.unwrap();
    sign_up(&application.db, "ada@example.org").await.unwrap_err();
    let tx = application.db.begin().await.unwrap();
    let job = NewJob::of(&SendWelcome { user_id: 7 }).unwrap();
    assert_eq!(enqueue(&tx, job.to_json().unwrap()).await.unwrap().len(), 1);
    tx.rollback().await.unwrap();
    let jobs = testing::enqueued(&application.database).await.unwrap();
    assert_eq!(jobs.all().len(), 1);
    jobs.assert_has(&SendWelcome { user_id });
    worker(application.database.clone(), application.db.clone()).unwrap().run_until_drained().await.unwrap();
    assert_eq!(application.text("select outcome from reveille.finished_jobs").await, "completed");
}

#[tokio::test]
async fn many_jobs_take_one_statement_and_keep_their_digits() {
    let application = Application::start().await;
    for email in ["ada@example.org", "bob@example.org"] {
        sign_up(&application.db, email).await.unwrap();
    }
    assert_eq!(welcome_all(&application.db).await.unwrap(), 2);
    let digits = "12345678901234567890.012345678901234567890";
    let job = NewJob::new("digits", Payload::parse(digits).unwrap()).unique_key("k").priority(Priority::High);
    let first = enqueue(&application.db, job.to_json().unwrap()).await.unwrap();
    let id = first[0].id;
    assert_eq!(first, [Enqueued { place: 1, id, existed: false }]);
    let again = enqueue(&application.db, job.to_json().unwrap()).await.unwrap();
    assert_eq!(again, [Enqueued { place: 1, id, existed: true }]);
    assert_eq!(application.text("select payload::text from reveille.jobs where kind = 'digits'").await, digits);
    let error = enqueue(&application.db, r#"{"kind": "k", "dealy": 1}"#.to_owned()).await.unwrap_err();
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
    let application = Application::start().await;
    welcome_through(&Enqueuer::new().middleware(Marks), &application.db, 7).await.unwrap();
    assert_eq!(application.text("select metadata::text from reveille.jobs").await, r#"{"marked": true}"#);
}
