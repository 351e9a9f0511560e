//! Working without waiting: everything that is due now, and in the caller's own task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::attempt::Attempts;
use crate::driver::{Ending, Marks, Settlement};
use crate::error::Result;
use crate::executor::Executor;
use crate::handler::Gathers;
use crate::held::Held;
use crate::job::{Enqueued, NewJob};
use crate::lease::Lease;
use crate::wake::Bells;
use crate::worker::Worker;

/// What became of the attempts that were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Done.
    pub completed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Failed, and due again later.
    pub failed: u64,
    /// Put back without a failure: snoozed, or of a kind without a handler.
    pub put_back: u64,
    /// Dead.
    pub dead: u64,
}

/// A worker that runs jobs while they are enqueued, in the caller's task; made by [`Worker::inline`].
///
/// Enqueue on it as on a database. When the enqueue returns, the job has run, and whatever else was due; one that is
/// delayed, or failed and has to wait for its retry, has not.
pub struct Inline {
    worker: Worker,
}

impl Worker {
    /// Run everything in the worker's queues that is due, and what becomes due meanwhile; return when nothing is left, or
    /// somebody asks for the worker to stop.
    ///
    /// For tests, and for programs that are started when there is work. Runs as many jobs at once as the queues have
    /// slots. Dropped in the middle, what it held is left to be rescued.
    ///
    /// # Errors
    /// If the store fails: what was being run is left to be rescued.
    pub async fn drain(&self) -> Result<Drained> {
        self.driver.check().await?;
        let info = self.info();
        self.driver.register(&info).await?;
        let id = info.id;
        let held = Arc::new(Held::default());
        let stop = CancellationToken::new();
        let heartbeat = Lease {
            driver: Arc::clone(&self.driver),
            worker: info,
            id: Arc::new(AtomicI64::new(id)),
            held: Arc::clone(&held),
            bells: Arc::new(Bells::new([])),
            anew: Arc::default(),
            unsure: Arc::default(),
            sharing: Arc::default(),
            stopping: Arc::new(AtomicBool::new(false)),
            stop: stop.clone(),
            interval: self.options.heartbeat,
            dead_after: self.options.dead_after(),
        }
        .keep()?;
        let drained = self.run_due(id, &held, &stop).await;
        drop(heartbeat);
        let left = self.driver.leave(id).await;
        let drained = drained?;
        left.map(|()| drained)
    }

    /// Run jobs at once, in the caller, when they are enqueued on what this returns.
    pub fn inline(self) -> Inline {
        Inline { worker: self }
    }

    async fn run_due(&self, id: i64, held: &Arc<Held>, stop: &CancellationToken) -> Result<Drained> {
        let attempts = self.attempts(held);
        let mut drained = Drained::default();
        loop {
            let mut idle = true;
            for (queue, slots) in &self.queues {
                let settlements = self.run_batch(&attempts, id, queue, *slots).await?;
                idle &= settlements.is_empty();
                let stood = self.driver.settle(&settlements).await?;
                for (settlement, stood) in settlements.iter().zip(stood) {
                    held.let_go(&settlement.reservation);
                    if stood {
                        drained.count(&settlement.ending);
                    }
                }
            }
            if idle || stop.is_cancelled() {
                return Ok(drained);
            }
        }
    }

    async fn run_batch(&self, attempts: &Attempts, id: i64, queue: &str, slots: usize) -> Result<Vec<Settlement>> {
        let claimed = self.driver.claim(id, queue, slots, Marks::default()).await?;
        let running = claimed.jobs.into_iter().map(|job| {
            let hold = attempts.hold(&job);
            attempts.make(job, hold)
        });
        // All have begun when the second is polled: no further job will come to complete a batch.
        let begun = async { attempts.handlers.gather().for_each(Gathers::run_gathered) };
        let (settlements, ()) = futures::future::join(futures::future::join_all(running), begun).await;
        Ok(settlements)
    }
}

impl Drained {
    fn count(&mut self, ending: &Ending) {
        let count = match ending {
            Ending::Completed(_) | Ending::Recorded(_) => &mut self.completed,
            Ending::Cancelled => &mut self.cancelled,
            Ending::Waiting { failure: Some(_), .. } => &mut self.failed,
            Ending::Waiting { failure: None, .. } => &mut self.put_back,
            Ending::Dead(_) => &mut self.dead,
        };
        *count += 1;
    }
}

impl Executor for Inline {
    fn insert<'a>(&'a self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        async move {
            let enqueued = self.worker.driver.enqueue(jobs).await?;
            self.worker.drain().await?;
            Ok(enqueued)
        }
        .boxed()
    }
}
