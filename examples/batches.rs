//! Batches: a handler that takes many jobs at once, and returns an outcome for each.
//!
//! Run it: `cargo run --example batches`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! indexing 50 pages at once
//! indexing 50 pages at once
//! indexing 21 pages at once
//! completed jobs: 120, failed attempts: 1
//! ```
//!
//! The last batch holds 20 new pages and the page that the index refused in the first batch.
//!
//! The guide's page: `docs/features/batches.md`

mod common;

use std::time::Duration;

use reveille::enqueue::enqueue_all;
use reveille::handler::{Batch, Gather};
use reveille::job::RetryPolicy;
use reveille::{Job, Outcome, State, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct IndexPage {
    page: u32,
}

impl Job for IndexPage {
    const KIND: &'static str = "index_page";
    const QUEUE: &'static str = "batches";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::ZERO)
    }
}

/// A search index, which takes many pages in one request and says which of them it has refused.
#[derive(Clone)]
struct Index;

impl Index {
    async fn add(&self, pages: &[(u32, u32)]) -> Result<Vec<bool>, std::io::Error> {
        println!("indexing {} pages at once", pages.len());
        Ok(pages.iter().map(|&(page, attempt)| page != 7 || attempt > 1).collect())
    }
}

/// An error fails every job of the batch. An outcome fails its job alone.
async fn index_pages(batch: Batch<IndexPage>, State(index): State<Index>) -> Result<Vec<Outcome>, std::io::Error> {
    let pages: Vec<_> = batch.iter().map(|item| (item.job.page, item.context.attempt().number)).collect();
    let added = index.add(&pages).await?;
    let judge = |added| if added { Outcome::Complete } else { Outcome::Fail("refused by the index".into()) };
    Ok(added.into_iter().map(judge).collect())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let pages: Vec<IndexPage> = (1..=120).map(|page| IndexPage { page }).collect();
    enqueue_all(&database, &pages).await?;

    // Each job takes a slot, so two batches fit into 100 slots. A batch starts when it has 50 jobs, or 50 ms after its
    // first job.
    let gather = Gather::up_to(50).within(Duration::from_millis(50));
    let worker = Worker::builder(database).queue("batches", 100).state(Index).handle_batch(gather, index_pages);
    let run = worker.build()?.run_until_drained().await?;
    println!("completed jobs: {}, failed attempts: {}", run.completed, run.failed);
    Ok(())
}
