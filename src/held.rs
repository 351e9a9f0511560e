//! What this worker holds: the jobs from their claim to their settlement.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::job::Reservation;

/// One reservation of this process.
#[derive(Clone)]
pub(crate) struct Hold {
    pub(crate) reservation: Reservation,
    /// Tells the handler to stop, for whatever reason.
    pub(crate) token: CancellationToken,
    cancel_requested: Arc<AtomicBool>,
}

impl Hold {
    /// Whether somebody asked for the job to be cancelled.
    pub(crate) fn cancel_requested(&self) -> bool {
        self.cancel_requested.load(Ordering::Relaxed)
    }
}

/// The reservations of this process.
#[derive(Default)]
pub(crate) struct Held {
    jobs: Mutex<HashMap<i64, Hold>>,
}

impl Held {
    /// From here on the job is known to be held.
    pub(crate) fn take(&self, reservation: Reservation, cancel_requested: bool) -> Hold {
        let cancel_requested = Arc::new(AtomicBool::new(cancel_requested));
        let hold = Hold { reservation, token: CancellationToken::new(), cancel_requested };
        self.lock().insert(reservation.id, hold.clone());
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

    /// Somebody asks for this job to be cancelled: tell its handler, if it runs here.
    pub(crate) fn cancel(&self, id: i64) {
        if let Some(hold) = self.lock().get(&id) {
            hold.cancel_requested.store(true, Ordering::Relaxed);
            hold.token.cancel();
        }
    }

    /// Tell all handlers to stop: their worker is shutting down, or they are no longer its to run.
    pub(crate) fn stop_all(&self) {
        self.lock().values().for_each(|hold| hold.token.cancel());
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Hold>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
