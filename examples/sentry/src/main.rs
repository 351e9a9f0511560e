//! A worker that reports its failed attempts to Sentry.
//!
//! `DATABASE_URL=postgres://… SENTRY_DSN=https://… cargo run --manifest-path examples/sentry/Cargo.toml`, with a
//! transport among the features of `sentry`. Without a transport nothing is sent.

use std::time::Duration;

use reveille::{Database, Worker};
use reveille_sentry_example::{Import, Reports};

/// A file takes an hour, so that there is time to kill the worker.
async fn import(import: Import) {
    println!("importing {}", import.file);
    tokio::time::sleep(Duration::from_secs(3600)).await;
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before the runtime starts, so that all its threads report to this client. Dropping the guard sends what is left.
    let _sentry = sentry::init(sentry::ClientOptions::new());
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(work(std::env::var("DATABASE_URL")?))
}

async fn work(url: String) -> Result<(), Box<dyn std::error::Error>> {
    let database = Database::connect(&url).await?;
    let worker = Worker::builder(database.clone())
        .queue("imports", 4)
        .middleware(Reports::new(database))
        .handle(import)
        .build()?;
    worker.run_until(tokio::signal::ctrl_c()).await?;
    Ok(())
}
