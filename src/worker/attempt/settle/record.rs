//! Records endings in batches. The recorder tries until the store answers, and splits a batch if the store refuses an
//! ending of the batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Driver, Ending, Failure, FailureReason, Settled, Settlement};
use crate::error::Error;
use crate::job::Reservation;
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

/// The settlements of a batch that did not count.
#[derive(Default)]
struct NotCounted {
    locked: Vec<LockedEnding>,
    /// The settlements whose reservations no longer stand.
    lost: Vec<Settlement>,
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
        let (mut locked, mut lost) = (Vec::new(), Vec::new());
        let mut left = vec![(batch, false)];
        while let Some((mut batch, may_be_recorded)) = left.pop() {
            match self.try_to_record(&batch, may_be_recorded).await {
                Ok(not_counted) => {
                    locked.extend(not_counted.locked);
                    lost.extend(not_counted.lost);
                }
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
        if !lost.is_empty() {
            self.explain(lost).await;
        }
        locked
    }

    /// Finds out why these reservations no longer stood. A job that its handler has completed in SQL is counted; all
    /// other jobs are lost.
    async fn explain(&self, lost: Vec<Settlement>) {
        let reservations: Vec<Reservation> = lost.iter().map(|settlement| settlement.reservation).collect();
        let mut completed = self.completed_in_sql(&reservations).await;
        let mut recorded = Vec::new();
        for settlement in lost {
            let Reservation { id, attempt, .. } = settlement.reservation;
            if let Some(queue) = completed.remove(&(id, attempt)) {
                tracing::debug!(
                    name: "job.completed_in_sql", target: "reveille::job", id,
                    "the job's handler has completed the job by reveille.complete_in"
                );
                recorded.push(Settlement { ending: Ending::Recorded(queue), ..settlement });
            } else {
                tracing::warn!(
                    name: "job.lost", target: "reveille::job", id,
                    "this worker no longer held the job; the attempt's ending does not count"
                );
            }
        }
        if !recorded.is_empty()
            && let Err(error) = self.try_to_record(&recorded, true).await
        {
            let jobs = recorded.len();
            tracing::warn!(
                name: "jobs.uncounted", target: "reveille::job", jobs, %error,
                "the store refuses to count completed jobs"
            );
        }
    }

    /// Asks until the store answers. If the store refuses the question, no job is known to be completed.
    async fn completed_in_sql(&self, reservations: &[Reservation]) -> HashMap<(i64, i32), String> {
        let mut backoff = Backoff::new("settle jobs", &self.reconnected);
        loop {
            match self.driver.completed_in_sql(reservations).await {
                Ok(completed) => {
                    backoff.worked();
                    return completed;
                }
                Err(error) if error.is_unavailable() => backoff.failed(&error).over().await,
                Err(_) => return HashMap::new(),
            }
        }
    }

    /// Tries to record the batch until the store answers. Returns an error only if the store refuses the batch, or if
    /// another session has locked a row. `may_be_recorded`: an earlier try may have recorded some endings of the batch,
    /// so a reservation that no longer stands does not count as lost.
    async fn try_to_record(&self, batch: &[Settlement], mut may_be_recorded: bool) -> Result<NotCounted, Error> {
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

    /// Removes the settled jobs from the held jobs.
    fn remove_settled(&self, batch: &[Settlement], settled: Vec<Settled>, may_be_recorded: bool) -> NotCounted {
        let mut not_counted = NotCounted::default();
        for (settlement, settled) in batch.iter().zip(settled) {
            if let Settled::Locked(locked_by) = settled {
                not_counted.locked.push(LockedEnding { settlement: settlement.clone(), locked_by });
                continue;
            }
            self.held_jobs.remove(&settlement.reservation);
            if settled.is_counted() {
                settlement.count_kind();
            } else if !may_be_recorded {
                not_counted.lost.push(settlement.clone());
            }
        }
        not_counted
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
            match self.try_to_record(&[Settlement { ending: ending.clone(), ..settlement.clone() }], true).await {
                Ok(not_counted) => {
                    if let Ending::Dead(failure) = ending {
                        failure.log_death(id);
                    }
                    return not_counted.locked;
                }
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
