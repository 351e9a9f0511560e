//! Middleware: payloads are sealed before they leave the program, and opened just before their handler reads them.
//!
//! The example `newsletter` has a middleware that counts.
//!
//! Run it: `cargo run --example middleware`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! the table holds "7b226962616e223a22444530322031323033227d"
//! the handler reads the IBAN DE02 1203
//! refused: cannot enqueue: a middleware refused the job: no key for the tenant "unknown"
//! ```
//!
//! The guide's page: `docs/features/middleware.md`

mod common;

use std::error::Error;
use std::sync::Arc;

use reveille::enqueue::Enqueuer;
use reveille::handler::{BoxFuture, Middleware, Next};
use reveille::job::{NewJob, Payload};
use reveille::{Context, Job, Outcome, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Pay {
    iban: String,
}

impl Job for Pay {
    const KIND: &'static str = "pay";
    const QUEUE: &'static str = "middleware";
}

/// Seals payloads. Hexadecimal digits stand in for a cipher here.
struct Sealed;

impl Sealed {
    fn open(sealed: &Payload) -> Result<Payload, Box<dyn Error + Send + Sync>> {
        let hex: String = sealed.decode()?;
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap_or(""), 16));
        Ok(Payload::parse(&String::from_utf8(bytes.collect::<Result<_, _>>()?)?)?)
    }
}

impl Middleware for Sealed {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn Error + Send + Sync>> {
        if job.key.as_deref() == Some("unknown") {
            return Err("no key for the tenant \"unknown\"".into());
        }
        let hex: String = job.payload.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        job.payload = Payload::encode(&hex)?;
        Ok(())
    }

    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match Sealed::open(&context.job().payload) {
                Ok(payload) => next.run(context.with_payload(payload)).await,
                Err(error) => Outcome::Undecodable(format!("cannot be opened: {error}")),
            }
        })
    }
}

async fn pay(job: Pay) {
    println!("the handler reads the IBAN {}", job.iban);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = common::database().await?;
    let sealed = Arc::new(Sealed);

    // Each producer has an enqueuer with the middleware. The function `enqueue` passes no middleware.
    let enqueuer = Enqueuer::new().middleware(Arc::clone(&sealed));
    let pay_it = Pay { iban: "DE02 1203".into() };
    let job = enqueuer.enqueue(&database, &pay_it).await?;
    let row = database.admin().job(job.id).await?.ok_or("the job is known")?;
    println!("the table holds {}", String::from_utf8_lossy(row.payload().as_bytes()));

    let worker = Worker::builder(database.clone()).queue("middleware", 4).middleware(sealed).handle(pay).build()?;
    worker.run_until_drained().await?;
    if let Err(error) = enqueuer.enqueue(&database, &pay_it).key("unknown").await {
        println!("refused: {error}");
    }
    Ok(())
}
