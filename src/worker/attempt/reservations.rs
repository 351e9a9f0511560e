//! The jobs that this worker holds, from their claim to their settlement.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::driver::Stuck;
use crate::handler::cancellation::{Cancellation, StopReason};
use crate::job::Reservation;

/// A handler that still runs 5 s after its stop request is reported as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// One job that this worker holds.
pub(crate) struct HeldJob {
    pub(crate) reservation: Reservation,
    /// Asks the handler to stop, for any reason.
    pub(crate) cancellation: Cancellation,
    cancel_requested: AtomicBool,
    handler_runs: AtomicBool,
    /// Set when the handler starts, if the attempt has a timeout.
    deadline: OnceLock<Deadline>,
    stop_request: OnceLock<StopRequest>,
    reported_stuck: AtomicBool,
}

#[derive(Clone, Copy)]
struct Deadline {
    timeout: Duration,
    at: Instant,
}

/// The time at which the handler was asked to stop. `timeout`: the timeout that the handler exceeded, if that was the
/// reason.
#[derive(Clone, Copy)]
struct StopRequest {
    at: Instant,
    timeout: Option<Duration>,
}

impl HeldJob {
    pub(crate) fn cancel_requested(&self) -> bool {
        self.cancel_requested.load(Ordering::Relaxed)
    }

    /// Returns the timeout that the handler exceeded, if the handler was asked to stop for that reason.
    pub(crate) fn timed_out(&self) -> Option<Duration> {
        self.stop_request.get().and_then(|request| request.timeout)
    }

    /// Notes that the handler starts, and that it has to end within `timeout`.
    pub(crate) fn begin(&self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout
            && let Some(at) = Instant::now().checked_add(timeout)
        {
            let _ = self.deadline.set(Deadline { timeout, at });
        }
        self.handler_runs.store(true, Ordering::Relaxed);
    }

    /// Notes that the handler has ended, or was dropped.
    pub(crate) fn end(&self) {
        self.handler_runs.store(false, Ordering::Relaxed);
    }

    /// Asks the handler to stop.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.request_stop(reason, None);
    }

    /// Asks the handler to stop, because it has exceeded its timeout.
    pub(crate) fn time_out(&self, timeout: Duration) {
        self.request_stop(StopReason::TimedOut, Some(timeout));
    }

    fn request_stop(&self, reason: StopReason, timeout: Option<Duration>) {
        let _ = self.stop_request.set(StopRequest { at: Instant::now(), timeout });
        self.cancellation.request(reason);
    }

    /// Returns the time since the handler was asked to stop; `None` if the handler was not asked to stop, or has ended.
    fn stopping_for(&self) -> Option<Duration> {
        if !self.handler_runs.load(Ordering::Relaxed) {
            return None;
        }
        // A handler that blocks its thread also blocks the timer of its own attempt, so the timeout is checked here
        // too.
        if let Some(deadline) = self.deadline.get()
            && deadline.at < Instant::now()
        {
            self.time_out(deadline.timeout);
        }
        self.stop_request.get().map(|request| request.at.elapsed())
    }
}

/// All jobs that this worker holds.
#[derive(Default)]
pub(crate) struct HeldJobs {
    jobs: Mutex<HashMap<i64, Arc<HeldJob>>>,
    /// The number of attempts that have ended and cannot be settled yet, since other sessions have locked their jobs.
    locked: AtomicUsize,
}

impl HeldJobs {
    /// Adds a job that this worker has just claimed.
    pub(crate) fn take(&self, reservation: Reservation, cancel_requested: bool) -> Arc<HeldJob> {
        let held = Arc::new(HeldJob {
            reservation,
            cancellation: Cancellation::default(),
            cancel_requested: AtomicBool::new(cancel_requested),
            handler_runs: AtomicBool::new(false),
            deadline: OnceLock::new(),
            stop_request: OnceLock::new(),
            reported_stuck: AtomicBool::new(false),
        });
        self.lock().insert(reservation.id, Arc::clone(&held));
        held
    }

    /// Removes a job whose reservation is settled, lost or given up.
    pub(crate) fn remove(&self, reservation: &Reservation) {
        let mut jobs = self.lock();
        // This worker may have claimed the same job again. The job then has a newer reservation, and stays.
        if jobs.get(&reservation.id).is_some_and(|held| held.reservation == *reservation) {
            jobs.remove(&reservation.id);
        }
    }

    /// Returns true if the job is held and its cancellation was not requested yet.
    pub(crate) fn may_be_cancelled(&self, id: i64) -> bool {
        self.lock().get(&id).is_some_and(|held| !held.cancel_requested())
    }

    /// Cancels the job if it is held, and asks its handler to stop.
    pub(crate) fn cancel(&self, id: i64) {
        if let Some(held) = self.lock().get(&id) {
            held.cancel_requested.store(true, Ordering::Relaxed);
            held.stop(StopReason::Cancelled);
        }
    }

    /// Asks all handlers to stop.
    pub(crate) fn stop_all(&self, reason: StopReason) {
        self.lock().values().for_each(|held| held.stop(reason));
    }

    /// Returns the stuck jobs, the earliest stop request first.
    pub(crate) fn stuck(&self) -> Vec<Stuck> {
        let jobs: Vec<Arc<HeldJob>> = self.lock().values().cloned().collect();
        let mut stuck = Vec::new();
        for held in jobs {
            let Some(stopping_for) = held.stopping_for().filter(|time| *time >= STUCK_AFTER) else { continue };
            let id = held.reservation.id;
            stuck.push(Stuck::new(id, stopping_for));
            if !held.reported_stuck.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    name: "job.stuck", target: "reveille::job", id, told_for = ?stopping_for,
                    "stuck: the handler was asked to stop and still runs"
                );
            }
        }
        stuck.sort_by_key(|stuck| std::cmp::Reverse(stuck.asked_ago));
        stuck
    }

    pub(crate) fn set_locked(&self, count: usize) {
        self.locked.store(count, Ordering::Relaxed);
    }

    /// Returns the number of attempts that have ended and cannot be settled yet, since other sessions have locked their
    /// jobs.
    pub(crate) fn count_locked(&self) -> usize {
        self.locked.load(Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Arc<HeldJob>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
