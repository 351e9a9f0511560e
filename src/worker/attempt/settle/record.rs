//! Recording a batch of endings: tried for as long as the store is away, and halved where the store refuses one of
//! them.

use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Driver, Ending, Failure, FailureReason, Settled, Settlement};
use crate::error::Error;
use crate::worker::attempt::reservations::Held;
use crate::worker::backoff::{Backoff, Comeback};

/// How long a job waits whose ending the store refuses.
const REFUSED_DELAY: Duration = Duration::from_secs(60);

/// An ending that is not recorded yet, since another session has locked the job.
pub(super) struct Locked {
    pub(super) settlement: Settlement,
    /// Who has, as far as is known.
    pub(super) by: String,
}

/// Records endings.
#[derive(Clone)]
pub(super) struct Recorder {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) held: Arc<Held>,
    pub(super) comeback: Comeback,
}

impl Recorder {
    /// Records these; returns those whose jobs are locked. A batch that the store refuses is halved until the endings
    /// that it will not have are found: the others are recorded as they are.
    pub(super) async fn record(&self, batch: Vec<Settlement>) -> Vec<Locked> {
        let mut locked = Vec::new();
        let mut left = vec![(batch, false)];
        while let Some((mut batch, unsure)) = left.pop() {
            match self.try_to_record(&batch, unsure).await {
                Ok(more) => locked.extend(more),
                Err(error) => match &batch[..] {
                    [settlement] if error.is_locked() => {
                        // Not its own row, or it would have been passed over: one that goes with it, such as a row that
                        // refers to it.
                        locked.push(Locked { settlement: settlement.clone(), by: "another session".into() });
                    }
                    [refused] => locked.extend(self.refused(refused, error).await),
                    _ => {
                        // Parts of it may have been recorded before the error.
                        let half = batch.split_off(batch.len() / 2);
                        left.extend([(half, true), (batch, true)]);
                    }
                },
            }
        }
        locked
    }

    /// Tries for as long as the store is away; an error is a refusal or a lock. `unsure`: an earlier try may have
    /// recorded some of them.
    async fn try_to_record(&self, batch: &[Settlement], mut unsure: bool) -> Result<Vec<Locked>, Error> {
        let mut backoff = Backoff::new("settle jobs", &self.comeback);
        loop {
            match self.driver.settle(batch).await {
                Ok(settled) => {
                    backoff.worked();
                    tracing::trace!(name: "worker.settled", target: "reveille::worker", jobs = batch.len(), "settled");
                    return Ok(self.settled(batch, settled, unsure));
                }
                Err(error) if error.is_about_data() || error.is_locked() => return Err(error),
                Err(error) => {
                    unsure = true;
                    backoff.failed(&error).over().await;
                }
            }
        }
    }

    /// Lets go of what is settled; returns what is not, since it is locked.
    fn settled(&self, batch: &[Settlement], settled: Vec<Settled>, unsure: bool) -> Vec<Locked> {
        let mut locked = Vec::new();
        for (settlement, settled) in batch.iter().zip(settled) {
            if let Settled::Locked(by) = settled {
                locked.push(Locked { settlement: settlement.clone(), by });
                continue;
            }
            self.held.let_go(&settlement.reservation);
            if settled == Settled::Lost && !unsure {
                let id = settlement.reservation.id;
                tracing::warn!(
                    name: "job.lost", target: "reveille::job", id,
                    "the job was no longer this worker's; its ending does not count"
                );
            }
        }
        locked
    }

    /// The store will not have this ending: records a failed attempt instead, or buries the job, or lets go of it.
    async fn refused(&self, settlement: &Settlement, mut error: Error) -> Vec<Locked> {
        let id = settlement.reservation.id;
        tracing::error!(name: "job.ending_refused", target: "reveille::job", id, %error, "the job's ending was refused");
        let failure = || Failure { reason: FailureReason::Failed, error: format!("its ending was refused: {error}") };
        let again = Ending::Waiting { failure: Some(failure()), delay: REFUSED_DELAY };
        for ending in [again, Ending::Dead(failure())] {
            match self.try_to_record(&[Settlement { ending, ..settlement.clone() }], true).await {
                Ok(locked) => return locked,
                Err(refusal) => error = refusal,
            }
        }
        tracing::error!(
            name: "job.refused", target: "reveille::job", id, %error,
            "the job can neither be put back nor buried; it stays reserved until its row is mended"
        );
        // Not held any more, it is put back as a stray once its row lets it.
        self.held.let_go(&settlement.reservation);
        Vec::new()
    }
}
