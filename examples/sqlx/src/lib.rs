//! An application that knows only sqlx: it enqueues in its own transactions, and completes jobs in them.
//!
//! The guide's page on sqlx, `docs/clients/sqlx.md`, quotes this code.

use std::time::Duration;

use reveille::enqueue::{Enqueuer, enqueue_all};
use reveille::job::RetryPolicy;
use reveille::{Context, Database, Job, State, Worker, enqueue};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

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

/// Charges a user.
#[derive(Serialize, Deserialize)]
pub struct Charge {
    pub user_id: i64,
    pub cents: i64,
}

impl Job for Charge {
    const KIND: &'static str = "charge";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_millis(1))
    }
}

/// Creates the application's tables.
pub async fn create_tables(pool: &PgPool) -> sqlx::Result<()> {
    let tables = "create table if not exists example_users \
            (id bigint generated always as identity primary key, email text not null unique);
        create table if not exists example_charges (user_id bigint not null, cents bigint not null)";
    sqlx::raw_sql(tables).execute(pool).await?;
    Ok(())
}

/// Inserts the user and enqueues the welcome mail in one transaction: both are stored, or neither.
pub async fn sign_up(pool: &PgPool, email: &str) -> Result<i64, Failure> {
    let mut tx = pool.begin().await?;
    let insert = "insert into example_users (email) values ($1) returning id";
    let user_id: i64 = sqlx::query_scalar(insert).bind(email).fetch_one(&mut *tx).await?;
    enqueue(&mut *tx, &SendWelcome { user_id }).tag("signup").unique_key(user_id.to_string()).await?;
    tx.commit().await?;
    Ok(user_id)
}

/// Enqueues a mail to each user, all in one statement.
pub async fn welcome_all(pool: &PgPool) -> Result<usize, Failure> {
    let mut tx = pool.begin().await?;
    let users: Vec<i64> = sqlx::query_scalar("select id from example_users").fetch_all(&mut *tx).await?;
    let jobs: Vec<SendWelcome> = users.into_iter().map(|user_id| SendWelcome { user_id }).collect();
    let enqueued = enqueue_all(&mut *tx, &jobs).await?;
    tx.commit().await?;
    Ok(enqueued.len())
}

/// Enqueues a charge through the middleware of the enqueuer, on a connection of the pool, committed at once.
pub async fn charge_later(enqueuer: &Enqueuer, pool: &PgPool, charge: &Charge) -> reveille::Result<i64> {
    Ok(enqueuer.enqueue(pool, charge).delay(Duration::from_secs(3600)).key(charge.user_id.to_string()).await?.id)
}

/// Writes the charge and completes the job in one transaction, so that each job charges exactly once.
pub async fn charge(job: Charge, State(pool): State<PgPool>, context: Context) -> Result<(), Failure> {
    let mut tx = pool.begin().await?;
    let insert = "insert into example_charges (user_id, cents) values ($1, $2)";
    sqlx::query(insert).bind(job.user_id).bind(job.cents).execute(&mut *tx).await?;
    context.complete_in(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

async fn send_welcome(job: SendWelcome, State(pool): State<PgPool>) -> Result<(), Failure> {
    let select = "select email from example_users where id = $1";
    let email: String = sqlx::query_scalar(select).bind(job.user_id).fetch_one(&pool).await?;
    println!("welcome, {email}");
    Ok(())
}

/// Returns a worker. It opens its own connections; its handlers use the application's pool.
pub fn worker(database: Database, pool: PgPool) -> reveille::Result<Worker> {
    Worker::builder(database)
        .state(pool)
        .queue("default", 4)
        .queue("mail", 4)
        .handle(send_welcome)
        .handle(charge)
        .build()
}
