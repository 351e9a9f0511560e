//! A signup that writes the user and enqueues the welcome mail in one transaction: both happen, or neither.
//!
//! `DATABASE_URL=postgres://… cargo run --example signup`

use std::time::Duration;

use reveille::{Attempt, Database, Job, State, Worker, enqueue, job::RetryPolicy};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
    email: String,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
    const QUEUE: &'static str = "mail";
    const MAX_ATTEMPTS: u32 = 5;

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(60))
    }
}

/// What handlers share: here, somebody who sends mail.
#[derive(Clone)]
struct Mailer {
    from: &'static str,
}

impl Mailer {
    async fn send(&self, to: &str) -> Result<(), String> {
        if to.contains('@') {
            println!("{} -> {to}: welcome!", self.from);
            Ok(())
        } else {
            Err(format!("{to:?} is no address"))
        }
    }
}

/// An error is a failure: the job is tried again, later and later, until it is dead.
async fn send_welcome(job: SendWelcome, State(mailer): State<Mailer>, attempt: Attempt) -> Result<(), String> {
    println!("user {}, attempt {} of {}", job.user_id, attempt.number, attempt.max_attempts);
    mailer.send(&job.email).await
}

async fn sign_up(client: &mut deadpool_postgres::Client, email: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let tx = client.transaction().await?;
    let user = tx.query_one("insert into example_users (email) values ($1) returning id", &[&email]).await?;
    let user_id: i64 = user.get("id");
    enqueue(&tx, &SendWelcome { user_id, email: email.into() }).unique_key(format!("user-{user_id}")).await?;
    tx.commit().await?;
    Ok(user_id)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = Database::connect(std::env::var("DATABASE_URL").unwrap_or_default()).await?;
    database.migrate().await?;
    let mut client = database.client().await?;
    let users = "create table if not exists example_users (id bigint generated always as identity primary key, \
        email text unique)";
    client.batch_execute(users).await?;

    let email = format!("ada-{}@example.org", std::process::id());
    println!("signed up user {}", sign_up(&mut client, &email).await?);
    // The same address again: the transaction fails, and no second mail is sent.
    if let Err(error) = sign_up(&mut client, &email).await {
        println!("not signed up again: {error}");
    }

    let worker =
        Worker::builder(database).state(Mailer { from: "shop" }).queue("mail", 4).handle(send_welcome).build()?;
    println!("{:?}", worker.run_until_drained().await?);
    Ok(())
}
