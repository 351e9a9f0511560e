//! Jobs that were claimed ahead, before a slot was free for them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use crate::driver::{Ending, Settlement};
use crate::job::ReservedJob;
use crate::worker::attempt::reservations::HeldJob;
use crate::worker::pauses::Pauses;

/// A job that waits for a slot.
pub(super) struct WaitingJob {
    pub(super) job: ReservedJob,
    pub(super) held: Arc<HeldJob>,
    /// The number of pauses of the job's queue when the claim of the job began.
    pub(super) pauses: u64,
}

/// The jobs of one queue that wait for a slot.
pub(super) struct Ahead {
    jobs: Mutex<VecDeque<WaitingJob>>,
    /// Notified when a waiting job has started or was released.
    pub(super) started: Notify,
    /// The time at which the last waiting job started or, if none has started since, the first of the waiting jobs
    /// began to wait.
    last_start: Mutex<Instant>,
    /// The time at which the last running job ended, so that all slots were empty.
    ran_dry: Mutex<Option<Instant>>,
    endings: mpsc::Sender<Settlement>,
    pub(super) pauses: Arc<Pauses>,
}

/// Releases the waiting jobs at each pause of their queue.
pub(super) async fn release_at_each_pause(ahead: Arc<Ahead>) {
    loop {
        ahead.pauses.wait_for_stale().await;
        ahead.release(|waiting| waiting.pauses != ahead.pauses.count()).await;
    }
}

impl Ahead {
    pub(super) fn new(endings: mpsc::Sender<Settlement>, pauses: Arc<Pauses>) -> Ahead {
        let (jobs, started, ran_dry) = Default::default();
        Ahead { jobs, started, last_start: Mutex::new(Instant::now()), ran_dry, endings, pauses }
    }

    /// Removes and returns the next job to start.
    pub(super) fn next(&self) -> Option<WaitingJob> {
        self.take_first(|waiting| waiting.pauses == self.pauses.count())
    }

    /// Returns true if a waiting job may start.
    pub(super) fn has_next(&self) -> bool {
        self.lock().iter().any(|waiting| waiting.pauses == self.pauses.count())
    }

    fn take_first(&self, which: impl Fn(&WaitingJob) -> bool) -> Option<WaitingJob> {
        let mut jobs = self.lock();
        let first = jobs.iter().position(which)?;
        let first = jobs.remove(first);
        *self.last_start() = Instant::now();
        drop(jobs);
        self.started.notify_one();
        first
    }

    /// Releases the waiting jobs for which `which` returns true. If the future is dropped early, each of these jobs
    /// either still waits or is released.
    pub(super) async fn release(&self, which: impl Fn(&WaitingJob) -> bool) {
        while let Ok(place) = self.endings.reserve().await {
            let Some(WaitingJob { job, held, .. }) = self.take_first(&which) else { return };
            let ending = if held.cancel_requested() { Ending::Cancelled } else { Ending::Released };
            let (waited, ran) = (job.waited(), Duration::ZERO);
            place.send(Settlement::new(job.reservation, ending).waited(waited).ran(ran));
        }
    }

    /// Sends an ending to the settler.
    pub(super) async fn settle(&self, settlement: Settlement) {
        if self.endings.send(settlement).await.is_err() {
            tracing::error!(
                name: "job.unsettled", target: "reveille::job",
                "the task that settles jobs has ended: this ending is not recorded, and another worker rescues the job"
            );
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<WaitingJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn last_start(&self) -> MutexGuard<'_, Instant> {
        self.last_start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that all slots are empty now.
    pub(super) fn note_ran_dry(&self) {
        *self.ran_dry.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns the time at which all slots were empty, if that was noted since the last call.
    pub(super) fn take_ran_dry(&self) -> Option<Instant> {
        self.ran_dry.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::job::{Payload, Priority, Reservation};
    use crate::worker::attempt::reservations::HeldJobs;

    fn waiting(id: i64, pauses: u64) -> WaitingJob {
        let now = SystemTime::now();
        let reservation = Reservation { id, worker: 1, attempt: 1, reserved_at: now, hint: 0 };
        let job = ReservedJob {
            reservation,
            queue: "q".into(),
            kind: "k".into(),
            payload: Payload::encode(&()).unwrap(),
            priority: Priority::Normal,
            failures: 0,
            max_attempts: 1,
            available_at: now,
            created_at: now,
            key: None,
            tags: vec![],
            metadata: None,
            timeout: None,
            cancel_requested: false,
            undecodable: None,
        };
        WaitingJob { job, held: HeldJobs::default().take(reservation, false), pauses }
    }

    fn ahead(jobs: impl IntoIterator<Item = WaitingJob>, endings: mpsc::Sender<Settlement>) -> Arc<Ahead> {
        let ahead = Ahead::new(endings, Arc::default());
        ahead.lock().extend(jobs);
        Arc::new(ahead)
    }

    #[tokio::test]
    async fn a_job_claimed_before_a_pause_is_released_and_never_starts() {
        let (endings, mut inbox) = mpsc::channel(8);
        let ahead = ahead([waiting(1, 0), waiting(2, 0)], endings);
        let _pausing = AbortOnDropHandle::new(tokio::spawn(release_at_each_pause(Arc::clone(&ahead))));
        let next_id = || ahead.next().map(|waiting| waiting.job.reservation.id);
        assert_eq!(next_id(), Some(1));
        ahead.pauses.add();
        // The queue is resumed at once, and another job is claimed.
        ahead.lock().push_back(waiting(3, 1));
        assert_eq!(next_id(), Some(3), "it does not wait for the release of job 2");
        assert!(next_id().is_none() && !ahead.has_next());
        let back = inbox.recv().await.unwrap();
        assert_eq!(back.reservation.id, 2);
        assert_eq!(back.ending, Ending::Released);
    }

    #[tokio::test(start_paused = true)]
    async fn a_release_that_is_dropped_loses_no_job() {
        let (endings, mut inbox) = mpsc::channel(2);
        let ahead = ahead((0..10).map(|id| waiting(id, 0)), endings);
        let mut back = 0;
        while back < 10 {
            let released = tokio::time::timeout(Duration::from_millis(1), ahead.release(|_| true)).await;
            assert!(released.is_err(), "the channel has no room for all of them");
            while inbox.try_recv().is_ok() {
                back += 1;
            }
            assert_eq!(back + ahead.lock().len(), 10);
        }
    }
}
