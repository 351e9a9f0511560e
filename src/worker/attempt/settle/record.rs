//! Records endings in batches. The recorder tries until the store answers, and splits a batch if the store refuses an
//! ending of the batch.

use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Driver, Ending, Failure, FailureReason, Settled, Settlement};
use crate::error::Error;
use crate::worker::attempt::reservations::HeldJobs;
use crate::worker::backoff::{Backoff, Reconnected};

/// A job whose ending the store refuses is retried after 60 s.
const REFUSED_DELAY: Duration = Duration::from_secs(60);

/// An ending that is not recorded yet, since another session has locked the job.
pub(super) struct LockedEnding {
    pub(super) settlement: Settlement,
    /// A description of the session that has locked the job, as far as the session is known.
    pub(super) locked_by: String,
}

/// Records endings.
#[derive(Clone)]
pub(super) struct Recorder {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) held_jobs: Arc<HeldJobs>,
    pub(super) reconnected: Reconnected,
}

impl Recorder {
    /// Records the endings of a batch and returns the endings of locked jobs. If the store refuses the batch, this
    /// halves the batch until the refused endings are found. All other endings are recorded unchanged.
    pub(super) async fn record(&self, batch: Vec<Settlement>) -> Vec<LockedEnding> {
        let mut locked = Vec::new();
        let mut left = vec![(batch, false)];
        while let Some((mut batch, may_be_recorded)) = left.pop() {
            match self.try_to_record(&batch, may_be_recorded).await {
                Ok(more) => locked.extend(more),
                Err(error) => match &batch[..] {
                    [settlement] if error.is_locked() => {
                        // This error is not about the job's own row: a lock on that row is an answer, not an error.
                        // Another session has locked a row that changes with the job, such as a row that refers to the
                        // job.
                        let locked_by = "another session".into();
                        locked.push(LockedEnding { settlement: settlement.clone(), locked_by });
                    }
                    [refused] => locked.extend(self.replace_refused(refused, error).await),
                    _ => {
                        // Some endings may have been recorded before the error.
                        let half = batch.split_off(batch.len() / 2);
                        left.extend([(half, true), (batch, true)]);
                    }
                },
            }
        }
        locked
    }

    /// Tries to record the batch until the store answers. Returns an error only if the store refuses the batch, or if
    /// another session has locked a row. `may_be_recorded`: an earlier try may have recorded some endings of the batch.
    async fn try_to_record(&self, batch: &[Settlement], mut may_be_recorded: bool) -> Result<Vec<LockedEnding>, Error> {
        let mut backoff = Backoff::new("settle jobs", &self.reconnected);
        loop {
            match self.driver.settle(batch).await {
                Ok(settled) => {
                    backoff.worked();
                    tracing::trace!(name: "worker.settled", target: "reveille::worker", jobs = batch.len(), "settled");
                    return Ok(self.remove_settled(batch, settled, may_be_recorded));
                }
                Err(error) if error.is_about_data() || error.is_locked() => return Err(error),
                Err(error) => {
                    may_be_recorded = true;
                    backoff.failed(&error).over().await;
                }
            }
        }
    }

    /// Removes the settled jobs from the held jobs. Returns the endings of locked jobs.
    fn remove_settled(&self, batch: &[Settlement], settled: Vec<Settled>, may_be_recorded: bool) -> Vec<LockedEnding> {
        let mut locked = Vec::new();
        for (settlement, settled) in batch.iter().zip(settled) {
            if let Settled::Locked(locked_by) = settled {
                locked.push(LockedEnding { settlement: settlement.clone(), locked_by });
                continue;
            }
            self.held_jobs.remove(&settlement.reservation);
            if settled == Settled::Lost && !may_be_recorded {
                let id = settlement.reservation.id;
                tracing::warn!(
                    name: "job.lost", target: "reveille::job", id,
                    "this worker no longer held the job; the attempt's ending does not count"
                );
            }
        }
        locked
    }

    /// Records a failed attempt instead of an ending that the store refuses. If the store refuses the failed attempt
    /// too, makes the job a dead job. If the store refuses the dead job as well, gives the job up.
    async fn replace_refused(&self, settlement: &Settlement, mut error: Error) -> Vec<LockedEnding> {
        let id = settlement.reservation.id;
        tracing::error!(
            name: "job.ending_refused", target: "reveille::job", id, %error,
            "the store refuses the job's ending; recording a failed attempt instead"
        );
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
            "the store refuses every ending of the job, so the job stays reserved; repair the job's row"
        );
        // The upkeep releases the job as a stray once the job's row can be written.
        self.held_jobs.remove(&settlement.reservation);
        Vec::new()
    }
}
