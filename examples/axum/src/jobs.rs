//! The jobs, their handlers and the worker.

use std::time::Duration;

use reveille::{Database, Job, State, Worker};
use serde::{Deserialize, Serialize};

use crate::Failure;

/// Sends the welcome mail to a new user.
#[derive(Debug, Serialize, Deserialize)]
pub struct SendWelcome {
    pub user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
    const QUEUE: &'static str = "mail";
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(30));
}

/// Stands for the client of a mail service.
#[derive(Clone)]
pub struct Mailer;

impl Mailer {
    async fn send(&self, to: &str) -> Result<(), Failure> {
        if !to.contains('@') {
            return Err(format!("{to:?} is not an address").into());
        }
        println!("welcome, {to}");
        Ok(())
    }
}

async fn send_welcome(
    job: SendWelcome,
    State(database): State<Database>,
    State(mailer): State<Mailer>,
) -> Result<(), Failure> {
    let select = "select email from example_users where id = $1";
    let user = database.client().await?.query_one(select, &[&job.user_id]).await?;
    mailer.send(user.get("email")).await
}

/// Returns a worker with all handlers.
pub fn worker(database: &Database) -> reveille::Result<Worker> {
    Worker::builder(database.clone())
        .state(database.clone())
        .state(Mailer)
        .queue("mail", 4)
        .grace(Duration::from_secs(20))
        .handle(send_welcome)
        .build()
}
