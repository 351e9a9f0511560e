//! An application that uses SeaORM: it enqueues in SeaORM's transactions, by one statement with one parameter.
//!
//! The guide's page on SeaORM, `docs/clients/sea-orm.md`, quotes this code.

pub mod user;

use reveille::enqueue::{Enqueuer, to_json_all};
use reveille::job::NewJob;
use reveille::{Database, Job, State, Worker};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, QueryResult,
    Statement, TransactionTrait,
};
use serde::{Deserialize, Serialize};

/// Any error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sends the welcome mail to a new user.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct SendWelcome {
    pub user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
    const QUEUE: &'static str = "mail";
}

/// Creates the application's tables.
pub async fn create_tables(db: &DatabaseConnection) -> Result<(), DbErr> {
    let table = "create table if not exists example_users \
        (id bigint generated always as identity primary key, email text not null unique)";
    db.execute_unprepared(table).await?;
    Ok(())
}

/// The answer for one job.
#[derive(Debug, PartialEq)]
pub struct Enqueued {
    pub place: i32,
    pub id: i64,
    pub existed: bool,
}

/// Enqueues the jobs of a JSON text, on a connection or in a transaction.
pub async fn enqueue(on: &impl ConnectionTrait, json: String) -> Result<Vec<Enqueued>, DbErr> {
    const SQL: &str = "select place, id, existed from reveille.enqueue_json($1::text::jsonb)";
    let statement = Statement::from_sql_and_values(on.get_database_backend(), SQL, [json.into()]);
    let rows = on.query_all_raw(statement).await?;
    let read = |row: &QueryResult| -> Result<Enqueued, DbErr> {
        let (place, id) = (row.try_get_by("place")?, row.try_get_by("id")?);
        Ok(Enqueued { place, id, existed: row.try_get_by("existed")? })
    };
    rows.iter().map(read).collect()
}

/// Inserts the user and enqueues the welcome mail in one transaction: both are stored, or neither.
pub async fn sign_up(db: &DatabaseConnection, email: &str) -> Result<i64, Failure> {
    let tx = db.begin().await?;
    let user = user::ActiveModel { email: Set(email.to_owned()), ..Default::default() }.insert(&tx).await?;
    let job = NewJob::of(&SendWelcome { user_id: user.id })?.tag("signup").unique_key(user.id.to_string());
    enqueue(&tx, job.to_json()?).await?;
    tx.commit().await?;
    Ok(user.id)
}

/// Enqueues a mail to each user, all in one statement.
pub async fn welcome_all(db: &DatabaseConnection) -> Result<usize, Failure> {
    let tx = db.begin().await?;
    let users = user::Entity::find().all(&tx).await?;
    let jobs: Vec<SendWelcome> = users.iter().map(|user| SendWelcome { user_id: user.id }).collect();
    let enqueued = enqueue(&tx, to_json_all(&jobs)?).await?;
    tx.commit().await?;
    Ok(enqueued.len())
}

/// Enqueues a job through the middleware of the enqueuer.
pub async fn welcome_through(enqueuer: &Enqueuer, db: &DatabaseConnection, user_id: i64) -> Result<(), Failure> {
    enqueue(db, enqueuer.to_json(&SendWelcome { user_id })?).await?;
    Ok(())
}

async fn send_welcome(job: SendWelcome, State(db): State<DatabaseConnection>) -> Result<(), Failure> {
    let user = user::Entity::find_by_id(job.user_id).one(&db).await?.ok_or("no such user")?;
    println!("welcome, {}", user.email);
    Ok(())
}

/// Returns a worker. It opens its own connections; its handlers use the application's.
pub fn worker(database: Database, db: DatabaseConnection) -> reveille::Result<Worker> {
    Worker::builder(database).state(db).queue("mail", 4).handle(send_welcome).build()
}
