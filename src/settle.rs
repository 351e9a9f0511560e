//! The settler: records how attempts ended, in batches of what has ended while the batch before was on its way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::driver::{Driver, Ending, Failure, Reason, Settlement};
use crate::error::Error;
use crate::held::Held;

/// At most so many endings in one batch.
const LARGEST_BATCH: usize = 1000;
/// For so long a batch may go on growing by what is ready to end, which handlers that keep their threads busy can draw out.
const MOMENT: Duration = Duration::from_millis(1);
/// How long a job waits whose ending the store refuses.
const REFUSED_DELAY: Duration = Duration::from_secs(60);

/// Settles what attempts hand over.
pub(crate) struct Settler {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) held: Arc<Held>,
    pub(crate) inbox: mpsc::Receiver<Settlement>,
}

impl Settler {
    /// Settles until nobody can hand over any more and all is settled.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.inbox.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
            self.take_ready(&mut batch).await;
            self.settle_all(std::mem::take(&mut batch)).await;
        }
    }

    /// The first of many that end at the same moment wakes the settler before the others have run.
    async fn take_ready(&mut self, batch: &mut Vec<Settlement>) {
        let (began, mut before) = (Instant::now(), 0);
        while before < batch.len() && batch.len() < LARGEST_BATCH && began.elapsed() < MOMENT {
            before = batch.len();
            tokio::task::yield_now().await;
            while batch.len() < LARGEST_BATCH
                && let Ok(settlement) = self.inbox.try_recv()
            {
                batch.push(settlement);
            }
        }
    }

    /// A batch that the store refuses is settled one by one, so that one bad ending does not keep the others.
    async fn settle_all(&self, batch: Vec<Settlement>) {
        let Err(error) = self.settle(&batch).await else { return };
        if let [refused] = &batch[..] {
            return self.settle_refused(refused, &error).await;
        }
        for settlement in batch {
            if let Err(error) = self.settle(std::slice::from_ref(&settlement)).await {
                self.settle_refused(&settlement, &error).await;
            }
        }
    }

    /// Tries for as long as the store is away; an error is a refusal.
    async fn settle(&self, batch: &[Settlement]) -> Result<(), Error> {
        let mut backoff = Backoff::new("settle jobs");
        let mut unsure = false;
        loop {
            match self.driver.settle(batch).await {
                Ok(stood) => {
                    backoff.worked();
                    tracing::trace!(name: "worker.settled", target: "reveille::worker", jobs = batch.len(), "settled");
                    for (settlement, stood) in batch.iter().zip(stood) {
                        self.held.let_go(&settlement.reservation);
                        // After an error it may be that an earlier try has settled it.
                        if !stood && !unsure {
                            let id = settlement.reservation.id;
                            tracing::warn!(
                                name: "job.lost", target: "reveille::job", id,
                                "the job was no longer this worker's; its ending does not count"
                            );
                        }
                    }
                    return Ok(());
                }
                Err(error) if error.is_invalid() => return Err(error),
                Err(error) => {
                    unsure = true;
                    tokio::time::sleep(backoff.failed(&error)).await;
                }
            }
        }
    }

    /// The store will not have this ending: record that instead, as a failed attempt.
    async fn settle_refused(&self, settlement: &Settlement, error: &Error) {
        let id = settlement.reservation.id;
        tracing::error!(
            name: "job.ending_refused", target: "reveille::job", id, %error,
            "the job's ending was refused"
        );
        let failure = Failure { reason: Reason::Failed, error: format!("its ending was refused: {error}") };
        let ending = Ending::Waiting { failure: Some(failure), delay: REFUSED_DELAY };
        if self.settle(&[Settlement { ending, ..settlement.clone() }]).await.is_err() {
            // Not held any more, it is put back as a stray.
            self.held.let_go(&settlement.reservation);
        }
    }
}
