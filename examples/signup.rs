//! A signup that writes the user and enqueues the welcome mail in one transaction: both happen, or neither.
//!
//! Run it: `cargo run --example signup`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! ada@example.org is signed up
//! nobody@example.org is not signed up: the card was refused
//! users: ada@example.org
//! shop -> ada@example.org: welcome! (attempt 1 of 5)
//! completed jobs: 1
//! ```
//!
//! The guide's pages: `docs/start/first-job.md`, `docs/jobs/enqueuing.md`

mod common;

use std::time::Duration;

use reveille::{Attempt, Job, State, Worker, enqueue, job::RetryPolicy};
use serde::{Deserialize, Serialize};

type Failed = Box<dyn std::error::Error>;

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
    email: String,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
    const QUEUE: &'static str = "signup";
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

/// An error is a failure: the job is tried again, later and later, until it is dead.
async fn send_welcome(job: SendWelcome, State(mailer): State<Mailer>, attempt: Attempt) -> Result<(), std::io::Error> {
    let Attempt { number, max_attempts, .. } = attempt;
    println!("{} -> {}: welcome! (attempt {number} of {max_attempts})", mailer.from, job.email);
    Ok(())
}

async fn sign_up(client: &mut deadpool_postgres::Client, email: &str, card: &str) -> Result<(), Failed> {
    let tx = client.transaction().await?;
    let user = tx.query_one("insert into example_users (email) values ($1) returning id", &[&email]).await?;
    let user_id: i64 = user.get("id");
    enqueue(&tx, &SendWelcome { user_id, email: email.into() }).unique_key(format!("user {user_id}")).await?;
    if card.is_empty() {
        // The transaction is dropped, and with it the user and the job.
        return Err("the card was refused".into());
    }
    tx.commit().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let database = common::database().await?;
    let mut client = database.client().await?;
    let table = "drop table if exists example_users; create table example_users (
        id bigint generated always as identity primary key, email text unique)";
    client.batch_execute(table).await?;

    for (email, card) in [("ada@example.org", "4242"), ("nobody@example.org", "")] {
        match sign_up(&mut client, email, card).await {
            Ok(()) => println!("{email} is signed up"),
            Err(error) => println!("{email} is not signed up: {error}"),
        }
    }
    let users = client.query("select email from example_users order by id", &[]).await?;
    println!("users: {}", users.iter().map(|user| user.get("email")).collect::<Vec<&str>>().join(", "));

    let mailer = Mailer { from: "shop" };
    let worker = Worker::builder(database).state(mailer).queue("signup", 4).handle(send_welcome).build()?;
    println!("completed jobs: {}", worker.run_until_drained().await?.completed);
    Ok(())
}
