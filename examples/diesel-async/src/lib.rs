//! An application that uses diesel-async: it enqueues in Diesel's transactions, by one statement with one parameter.
//!
//! The guide's page on Diesel, `docs/clients/diesel.md`, quotes this code.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use reveille::enqueue::{Enqueuer, to_json_all};
use reveille::job::NewJob;
use reveille::{Database, Job, Worker};
use serde::{Deserialize, Serialize};

diesel::table! {
    example_users (id) {
        id -> BigInt,
        email -> Text,
    }
}

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
pub async fn create_tables(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    let table = "create table if not exists example_users \
        (id bigint generated always as identity primary key, email text not null unique)";
    diesel::sql_query(table).execute(conn).await?;
    Ok(())
}

/// The answer for one job.
#[derive(Debug, PartialEq, QueryableByName)]
pub struct Enqueued {
    #[diesel(sql_type = Integer)]
    pub place: i32,
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    #[diesel(sql_type = Bool)]
    pub existed: bool,
}

/// Enqueues the jobs of a JSON text, in the transaction of the connection.
pub async fn enqueue(conn: &mut AsyncPgConnection, json: String) -> QueryResult<Vec<Enqueued>> {
    let call = "select place, id, existed from reveille.enqueue_json($1::text::jsonb)";
    diesel::sql_query(call).bind::<Text, _>(json).load(conn).await
}

/// Inserts the user and enqueues the welcome mail in one transaction: both are stored, or neither.
pub async fn sign_up(conn: &mut AsyncPgConnection, email: &str) -> Result<i64, Failure> {
    conn.transaction(async |conn| {
        let insert = diesel::insert_into(example_users::table).values(example_users::email.eq(email));
        let user_id: i64 = insert.returning(example_users::id).get_result(conn).await?;
        let job = NewJob::of(&SendWelcome { user_id })?.tag("signup").unique_key(user_id.to_string());
        enqueue(conn, job.to_json()?).await?;
        Ok(user_id)
    })
    .await
}

/// Enqueues a mail to each user, all in one statement.
pub async fn welcome_all(conn: &mut AsyncPgConnection) -> Result<usize, Failure> {
    let users: Vec<i64> = example_users::table.select(example_users::id).load(conn).await?;
    let jobs: Vec<SendWelcome> = users.into_iter().map(|user_id| SendWelcome { user_id }).collect();
    Ok(enqueue(conn, to_json_all(&jobs)?).await?.len())
}

/// Enqueues a job through the middleware of the enqueuer.
pub async fn welcome_through(enqueuer: &Enqueuer, conn: &mut AsyncPgConnection, user_id: i64) -> Result<(), Failure> {
    enqueue(conn, enqueuer.to_json(&SendWelcome { user_id })?).await?;
    Ok(())
}

async fn send_welcome(job: SendWelcome) {
    println!("welcome, user {}", job.user_id);
}

/// Returns a worker. It opens its own connections.
pub fn worker(database: Database) -> reveille::Result<Worker> {
    Worker::builder(database).queue("mail", 4).handle(send_welcome).build()
}
