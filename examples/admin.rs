//! Administration from Rust: list jobs by a filter, read one job, edit a job, cancel the jobs of a filter, run a job
//! again, and revive or purge dead jobs.
//!
//! Run it: `cargo run --example admin`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! delayed: invoice 4
//! dead: invoice 3 (permanent)
//! dead: invoice 2 (failed)
//! completed: invoice 1
//! invoice 2, attempt 1: no paper
//! edit invoice 4: Waiting
//! cancelled with the key acme: 1
//! run invoice 1 again: a new job
//! revived: 1, purged: 1
//! completed now: 2, dead now: 0
//! ```
//!
//! The guide's page: `docs/jobs/dead-jobs.md`

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reveille::admin::{BulkAction, Filter, JobEdit, RunAgain};
use reveille::driver::FailureReason;
use reveille::job::JobState;
use reveille::{Job, Outcome, State, Worker, enqueue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct PrintInvoice {
    invoice: u32,
}

impl Job for PrintInvoice {
    const KIND: &'static str = "print_invoice";
    const QUEUE: &'static str = "admin";
    const MAX_ATTEMPTS: u32 = 1;
}

/// The printer, which may have paper.
type Printer = Arc<AtomicBool>;

async fn print_invoice(job: PrintInvoice, State(printer): State<Printer>) -> Result<Outcome, &'static str> {
    match job.invoice {
        3 => Ok(Outcome::Dead("no such invoice".into())),
        2 if !printer.load(Ordering::Relaxed) => Err("no paper"),
        _ => Ok(Outcome::Complete),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let (admin, printer) = (database.admin(), Printer::default());
    let worker = Worker::builder(database.clone()).queue("admin", 4).state(Arc::clone(&printer)).handle(print_invoice);
    let worker = worker.build()?;
    let mut ids = Vec::new();
    for invoice in 1..=3 {
        ids.push(enqueue(&database, &PrintInvoice { invoice }).await?.id);
    }
    let later = enqueue(&database, &PrintInvoice { invoice: 4 }).delay(Duration::from_secs(3600)).await?;
    worker.run_until_drained().await?;

    // A filter without a state lists live jobs. Each list has the newest job first.
    let invoices = Filter::new().queue("admin");
    for (state, limit) in [(JobState::Delayed, 10), (JobState::Dead, 10), (JobState::Completed, 1)] {
        for job in admin.jobs(&invoices.clone().state(state), limit).await? {
            let reason = job.reason.map(|reason| format!(" ({})", reason.name())).unwrap_or_default();
            println!("{}: invoice {}{reason}", job.state, job.payload().decode::<PrintInvoice>()?.invoice);
        }
    }
    for failed in admin.job(ids[1]).await?.ok_or("the job is known")?.errors() {
        println!("invoice 2, attempt {}: {}", failed.attempt.unwrap_or_default(), failed.error);
    }

    println!("edit invoice 4: {:?}", admin.edit(later.id, JobEdit::new().key("acme")).await?);
    let of_acme = admin.bulk(BulkAction::Cancel, &invoices.clone().key("acme"))?.run().await?;
    println!("cancelled with the key acme: {}", of_acme.done);
    if let RunAgain::Enqueued(_) = admin.run_again(ids[0]).await? {
        println!("run invoice 1 again: a new job");
    }
    printer.store(true, Ordering::Relaxed);
    let revived = admin.revive_dead(&invoices.clone().reason(FailureReason::Failed)).await?;
    let purged = admin.purge_dead(&invoices.clone().reason(FailureReason::Permanent)).await?;
    println!("revived: {}, purged: {}", revived.done, purged.done);

    let run = worker.run_until_drained().await?;
    let dead = admin.jobs(&invoices.state(JobState::Dead), 10).await?;
    println!("completed now: {}, dead now: {}", run.completed, dead.len());
    Ok(())
}
