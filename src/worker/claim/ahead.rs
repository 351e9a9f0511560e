//! Jobs that were claimed before a slot was free for them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use crate::driver::{Ending, Settlement};
use crate::job::ReservedJob;
use crate::worker::attempt::reservations::Hold;
use crate::worker::pauses::Pauses;

pub(super) type Claimed = (ReservedJob, Arc<Hold>);

/// A job that waits for a slot, and how often its queue had been paused when its claim began.
pub(super) struct Waiting {
    pub(super) claimed: Claimed,
    pub(super) pauses: u64,
}

/// Jobs that wait for a slot.
pub(super) struct Ahead {
    pub(super) jobs: Mutex<VecDeque<Waiting>>,
    /// One of them has started, or gone back.
    pub(super) started: Notify,
    /// When one of them started last, or the first of them came.
    pub(super) last_start: Mutex<Instant>,
    /// When all that had been taken were over.
    pub(super) ran_dry: Mutex<Option<Instant>>,
    pub(super) endings: mpsc::Sender<Settlement>,
    pub(super) pauses: Arc<Pauses>,
}

/// What was claimed before a pause and has not started goes back, at no cost.
pub(super) async fn give_back_at_each_pause(ahead: Arc<Ahead>) {
    loop {
        ahead.pauses.stale().await;
        ahead.give_back(|waiting| waiting.pauses != ahead.pauses.count()).await;
    }
}

impl Ahead {
    pub(super) fn new(endings: mpsc::Sender<Settlement>, pauses: Arc<Pauses>) -> Ahead {
        let (jobs, started, ran_dry) = Default::default();
        Ahead { jobs, started, last_start: Mutex::new(Instant::now()), ran_dry, endings, pauses }
    }

    /// The next one to start.
    pub(super) fn next(&self) -> Option<Claimed> {
        self.take_first(|waiting| waiting.pauses == self.pauses.count())
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.lock().iter().any(|waiting| waiting.pauses == self.pauses.count())
    }

    pub(super) fn take_first(&self, which: impl Fn(&Waiting) -> bool) -> Option<Claimed> {
        let mut jobs = self.lock();
        let first = jobs.iter().position(which)?;
        let first = jobs.remove(first);
        *self.last_start() = Instant::now();
        drop(jobs);
        self.started.notify_one();
        first.map(|waiting| waiting.claimed)
    }

    /// Gives them back. May be dropped in the middle: each job either waits still, or is on its way back.
    pub(super) async fn give_back(&self, which: impl Fn(&Waiting) -> bool) {
        while let Ok(place) = self.endings.reserve().await {
            let Some((job, hold)) = self.take_first(&which) else { return };
            let ending = if hold.cancel_requested() {
                Ending::Cancelled
            } else {
                Ending::Waiting { failure: None, delay: Duration::ZERO }
            };
            let (waited, ran) = (job.waited(), Duration::ZERO);
            place.send(Settlement { reservation: job.reservation, ending, waited, ran });
        }
    }

    pub(super) async fn ended(&self, settlement: Settlement) {
        if self.endings.send(settlement).await.is_err() {
            tracing::error!(
                name: "job.unsettled", target: "reveille::job",
                "the settler is gone; the job will be rescued"
            );
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn last_start(&self) -> MutexGuard<'_, Instant> {
        self.last_start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn runs_dry(&self) {
        *self.ran_dry.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When all that had been taken were over, if they are; until it is asked.
    pub(super) fn ran_dry(&self) -> Option<Instant> {
        self.ran_dry.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::job::{Payload, Priority, Reservation};
    use crate::worker::attempt::reservations::Held;

    fn waiting(id: i64, pauses: u64) -> Waiting {
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
        Waiting { claimed: (job, Held::default().take(reservation, false)), pauses }
    }

    fn ahead(jobs: impl IntoIterator<Item = Waiting>, endings: mpsc::Sender<Settlement>) -> Arc<Ahead> {
        let (jobs, pauses) = (Mutex::new(jobs.into_iter().collect()), Arc::default());
        let (started, last_start, ran_dry) = (Notify::new(), Mutex::new(Instant::now()), Mutex::default());
        Arc::new(Ahead { jobs, started, last_start, ran_dry, endings, pauses })
    }

    #[tokio::test]
    async fn what_was_claimed_before_a_pause_never_starts_and_goes_back() {
        let (endings, mut inbox) = mpsc::channel(8);
        let ahead = ahead([waiting(1, 0), waiting(2, 0)], endings);
        let _pausing = AbortOnDropHandle::new(tokio::spawn(give_back_at_each_pause(Arc::clone(&ahead))));
        assert_eq!(ahead.next().map(|(job, _)| job.reservation.id), Some(1));
        ahead.pauses.add();
        // Resumed at once, and claimed again.
        ahead.lock().push_back(waiting(3, 1));
        assert_eq!(ahead.next().map(|(job, _)| job.reservation.id), Some(3), "not behind what goes back");
        assert!(ahead.next().is_none() && !ahead.is_waiting());
        let back = inbox.recv().await.unwrap();
        assert_eq!(back.reservation.id, 2);
        assert_eq!(back.ending, Ending::Waiting { failure: None, delay: Duration::ZERO });
    }

    #[tokio::test(start_paused = true)]
    async fn giving_back_can_be_broken_off_and_loses_no_job() {
        let (endings, mut inbox) = mpsc::channel(2);
        let ahead = ahead((0..10).map(|id| waiting(id, 0)), endings);
        let mut back = 0;
        while back < 10 {
            let given = tokio::time::timeout(Duration::from_millis(1), ahead.give_back(|_| true)).await;
            assert!(given.is_err(), "there is no room for all of them");
            while inbox.try_recv().is_ok() {
                back += 1;
            }
            assert_eq!(back + ahead.lock().len(), 10);
        }
    }
}
