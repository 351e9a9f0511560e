//! The settler: records how attempts ended, in batches as large as gather while the batch before is on its way; where there are
//! many, within milliseconds.

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
/// After a batch of so many, one that follows soon waits for others to end, so that what it costs to settle at all is shared by more.
const MANY: usize = 32;
/// So soon.
const SOON: Duration = Duration::from_millis(40);
/// For so long it waits: for as long, the worker would run its jobs once more if it were killed.
const FOR_OTHERS: Duration = Duration::from_millis(20);
/// How long a job waits whose ending the store refuses.
const REFUSED_DELAY: Duration = Duration::from_secs(60);

/// How an attempt ended.
pub(crate) struct Ended {
    pub(crate) settlement: Settlement,
    /// Its queue has limits: others may start as soon as it is settled.
    pub(crate) limited: bool,
}

/// Settles what attempts hand over.
pub(crate) struct Settler {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) held: Arc<Held>,
    pub(crate) inbox: mpsc::Receiver<Ended>,
}

impl Settler {
    /// Settles until nobody can hand over any more and all is settled.
    pub(crate) async fn run(mut self) {
        let (mut batch, mut before) = (Vec::new(), None);
        while self.inbox.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
            self.gather(&mut batch, before).await;
            let count = batch.len();
            self.settle_all(batch.drain(..).map(|ended| ended.settlement).collect()).await;
            before = Some((count, Instant::now()));
        }
    }

    /// Adds what ends now; and what ends soon, if the batch before was a large one, settled a moment ago. `before`: its size, and when.
    async fn gather(&mut self, batch: &mut Vec<Ended>, before: Option<(usize, Instant)>) {
        self.take_ready(batch).await;
        if before.is_some_and(|(count, at)| count >= MANY && at.elapsed() < SOON) {
            self.wait_for_others(batch).await;
        }
    }

    /// The first of many that end at the same moment wakes the settler before the others have run.
    async fn take_ready(&mut self, batch: &mut Vec<Ended>) {
        let (began, mut before) = (Instant::now(), 0);
        while before < batch.len() && batch.len() < LARGEST_BATCH && began.elapsed() < MOMENT {
            before = batch.len();
            tokio::task::yield_now().await;
            while batch.len() < LARGEST_BATCH
                && let Ok(ended) = self.inbox.try_recv()
            {
                batch.push(ended);
            }
        }
    }

    /// Until somebody waits for a limit, at most.
    async fn wait_for_others(&mut self, batch: &mut Vec<Ended>) {
        let over = tokio::time::sleep(FOR_OTHERS);
        tokio::pin!(over);
        let mut seen = 0;
        while batch.len() < LARGEST_BATCH && !batch.iter().skip(seen).any(|ended| ended.limited) {
            seen = batch.len();
            tokio::select! {
                () = &mut over => return,
                more = self.inbox.recv_many(batch, LARGEST_BATCH - seen) => if more == 0 { return },
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::driver::Memory;
    use crate::job::Reservation;

    fn ended(id: i64, limited: bool) -> Ended {
        let reservation = Reservation { id, worker: 1, attempt: 1, reserved_at: SystemTime::now(), hint: 0 };
        let (waited, ran) = Default::default();
        Ended { settlement: Settlement { reservation, ending: Ending::Completed(None), waited, ran }, limited }
    }

    /// Of three that end at once, half the time later that a batch waits for others, and after it: how many are settled at once, and
    /// how long it takes to gather them. `before`: the size of the batch before, and how long ago that was settled; `limited`: of the first and the second.
    async fn gathered(before: (usize, Duration), limited: [bool; 2]) -> (usize, Duration) {
        let (endings, inbox) = mpsc::channel(8);
        let mut settler = Settler { driver: Arc::new(Memory::new()), held: Arc::default(), inbox };
        let others = tokio::spawn(async move {
            tokio::time::sleep(FOR_OTHERS / 2).await;
            endings.send(ended(2, limited[1])).await.ok().unwrap();
            tokio::time::sleep(FOR_OTHERS).await;
            endings.send(ended(3, false)).await.ok().unwrap();
        });
        let (mut batch, began) = (vec![ended(1, limited[0])], Instant::now());
        settler.gather(&mut batch, Some((before.0, began - before.1))).await;
        others.abort();
        (batch.len(), began.elapsed())
    }

    /// The clock of tests goes by whole milliseconds.
    fn about(took: Duration, expected: Duration) -> bool {
        took >= expected && took <= expected + Duration::from_millis(1)
    }

    #[tokio::test(start_paused = true)]
    async fn where_many_end_a_batch_waits_for_others_but_not_for_long() {
        let (count, took) = gathered((MANY, SOON / 2), [false, false]).await;
        assert!(count == 2 && about(took, FOR_OTHERS), "{count} {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_batch_waits_where_few_end_or_many_did_a_while_ago_or_a_limit_waits_for_it() {
        for (count, ago, limited) in [(MANY - 1, SOON / 2, false), (MANY, SOON, false), (MANY, SOON / 2, true)] {
            let gathered = gathered((count, ago), [limited, false]).await;
            assert_eq!(gathered, (1, Duration::ZERO), "{count} {ago:?} {limited}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_waits_is_settled_as_soon_as_a_limit_waits_for_it() {
        let (count, took) = gathered((MANY, SOON / 2), [false, true]).await;
        assert!(count == 2 && about(took, FOR_OTHERS / 2), "{count} {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_for_nobody_when_nobody_is_left() {
        let (_, inbox) = mpsc::channel(8);
        let mut settler = Settler { driver: Arc::new(Memory::new()), held: Arc::default(), inbox };
        let (mut batch, began) = (vec![ended(1, false)], Instant::now());
        settler.gather(&mut batch, Some((MANY, began))).await;
        assert_eq!((batch.len(), began.elapsed()), (1, Duration::ZERO));
    }
}
