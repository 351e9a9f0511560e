//! What this worker holds: the jobs from their claim to their settlement.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::driver::Stuck;
use crate::job::Reservation;

/// How long a handler may still run after it was told to stop before its job is called stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// One reservation of this process.
pub(crate) struct Hold {
    pub(crate) reservation: Reservation,
    /// Tells the handler to stop, for whatever reason.
    pub(crate) token: CancellationToken,
    cancel_requested: AtomicBool,
    /// Whether its handler runs.
    running: AtomicBool,
    /// How long its handler may, and until when.
    timeout: OnceLock<(Duration, Instant)>,
    told: OnceLock<Told>,
    /// Whether it was told of as stuck.
    reported: AtomicBool,
}

/// Since when a handler has been told to stop, and whether because its time was over.
#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    timeout: Option<Duration>,
}

impl Hold {
    /// Whether somebody asked for the job to be cancelled.
    pub(crate) fn cancel_requested(&self) -> bool {
        self.cancel_requested.load(Ordering::Relaxed)
    }

    /// The timeout because of which its handler was told to stop, if that was why.
    pub(crate) fn timed_out(&self) -> Option<Duration> {
        self.told.get().and_then(|told| told.timeout)
    }

    /// Its handler starts, and may take so long.
    pub(crate) fn begin(&self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout
            && let Some(over) = Instant::now().checked_add(timeout)
        {
            let _ = self.timeout.set((timeout, over));
        }
        self.running.store(true, Ordering::Relaxed);
    }

    /// Its handler has ended, or was dropped.
    pub(crate) fn end(&self) {
        self.running.store(false, Ordering::Relaxed);
    }

    /// Tells its handler to stop.
    pub(crate) fn stop(&self) {
        self.tell(None);
    }

    /// Tells its handler to stop, because it has taken so long.
    pub(crate) fn time_out(&self, timeout: Duration) {
        self.tell(Some(timeout));
    }

    fn tell(&self, timeout: Option<Duration>) {
        let _ = self.told.set(Told { at: Instant::now(), timeout });
        self.token.cancel();
    }

    /// For how long its handler has been told to stop, if it runs all the same. One that blocks its thread keeps its
    /// own timer from telling it.
    fn told_for(&self) -> Option<Duration> {
        if !self.running.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(&(timeout, over)) = self.timeout.get()
            && over < Instant::now()
        {
            self.time_out(timeout);
        }
        self.told.get().map(|told| told.at.elapsed())
    }
}

/// The reservations of this process.
#[derive(Default)]
pub(crate) struct Held {
    jobs: Mutex<HashMap<i64, Arc<Hold>>>,
    /// How many have ended and cannot be settled, since other sessions have locked their rows.
    locked: AtomicUsize,
}

impl Held {
    /// From here on the job is known to be held.
    pub(crate) fn take(&self, reservation: Reservation, cancel_requested: bool) -> Arc<Hold> {
        let hold = Arc::new(Hold {
            reservation,
            token: CancellationToken::new(),
            cancel_requested: AtomicBool::new(cancel_requested),
            running: AtomicBool::new(false),
            timeout: OnceLock::new(),
            told: OnceLock::new(),
            reported: AtomicBool::new(false),
        });
        self.lock().insert(reservation.id, Arc::clone(&hold));
        hold
    }

    /// The reservation is settled, lost or given up.
    pub(crate) fn let_go(&self, reservation: &Reservation) {
        let mut jobs = self.lock();
        // The same job may have been claimed again meanwhile.
        if jobs.get(&reservation.id).is_some_and(|hold| hold.reservation == *reservation) {
            jobs.remove(&reservation.id);
        }
    }

    /// Whether the job is held, and was not asked to be cancelled so far.
    pub(crate) fn may_be_cancelled(&self, id: i64) -> bool {
        self.lock().get(&id).is_some_and(|hold| !hold.cancel_requested())
    }

    /// Somebody asks for this job to be cancelled: tell its handler, if it runs here.
    pub(crate) fn cancel(&self, id: i64) {
        if let Some(hold) = self.lock().get(&id) {
            hold.cancel_requested.store(true, Ordering::Relaxed);
            hold.stop();
        }
    }

    /// Tell all handlers to stop: their worker is shutting down, or they are no longer its to run.
    pub(crate) fn stop_all(&self) {
        self.lock().values().for_each(|hold| hold.stop());
    }

    /// The jobs whose handlers do not stop, the longest told first; and tells those to stop whose time is over.
    pub(crate) fn stuck(&self) -> Vec<Stuck> {
        let holds: Vec<Arc<Hold>> = self.lock().values().cloned().collect();
        let mut stuck = Vec::new();
        for hold in holds {
            let Some(told_for) = hold.told_for().filter(|told_for| *told_for >= STUCK_AFTER) else { continue };
            let id = hold.reservation.id;
            stuck.push(Stuck::new(id, told_for));
            if !hold.reported.swap(true, Ordering::Relaxed) {
                tracing::warn!(name: "job.stuck", target: "reveille::job", id, ?told_for, "stuck: its handler was told to stop and still runs");
            }
        }
        stuck.sort_by_key(|stuck| std::cmp::Reverse(stuck.asked_ago));
        stuck
    }

    /// So many have ended and are locked by others now.
    pub(crate) fn locked(&self, count: usize) {
        self.locked.store(count, Ordering::Relaxed);
    }

    /// How many have ended and are locked by others.
    pub(crate) fn count_locked(&self) -> usize {
        self.locked.load(Ordering::Relaxed)
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Arc<Hold>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
