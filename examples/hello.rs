//! The smallest worker: one kind of job, enqueued and worked in one process.
//!
//! `DATABASE_URL=postgres://… cargo run --example hello`, and from another terminal
//! `psql "$DATABASE_URL" -c "select * from reveille.enqueue(kind => 'hello', payload => '{\"name\": \"you\"}')"`.

use reveille::{Attempt, Database, Job, Worker, enqueue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Hello {
    name: String,
}

impl Job for Hello {
    const KIND: &'static str = "hello";
}

async fn hello(job: Hello, attempt: Attempt) {
    println!("hello, {} (attempt {})", job.name, attempt.number);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = Database::connect(std::env::var("DATABASE_URL").unwrap_or_default()).await?;
    database.migrate().await?;
    enqueue(&database, &Hello { name: "world".into() }).await?;

    println!("working until Ctrl-C");
    let worker = Worker::builder(database).handle(hello).build()?;
    worker.run_until(tokio::signal::ctrl_c()).await?;
    Ok(())
}
