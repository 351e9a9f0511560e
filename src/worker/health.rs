//! The health of a worker, for the probes of a supervisor.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A worker that works is ready while its last heartbeat is at most 5 s old, or three heartbeats if that is longer.
const SHORTEST_SILENCE: Duration = Duration::from_secs(5);
const MISSED_BEATS: u32 = 3;

/// The health of one worker; from [`Worker::health`](crate::Worker::health). Clones share the state.
///
/// Only [`Worker::run_until`](crate::Worker::run_until) changes it.
#[derive(Debug, Clone)]
pub struct Health(Arc<HealthState>);

#[derive(Debug)]
struct HealthState {
    longest_silence: Duration,
    stage: Mutex<(Stage, Option<Instant>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Working,
    Stopping,
    Ended,
}

/// What a worker is doing. [`Display`](fmt::Display) has a sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthStatus {
    /// The worker has not started yet, or is connecting.
    Starting,
    /// The worker claims jobs, and the store answers its heartbeats.
    Working,
    /// The worker runs, and the store has not answered its heartbeats for this time.
    Unanswered(Duration),
    /// The worker shuts down: it claims no more jobs.
    Stopping,
    /// The worker has ended, or could not start.
    Ended,
}

impl Health {
    pub(crate) fn new(heartbeat: Duration) -> Health {
        let longest_silence = heartbeat.saturating_mul(MISSED_BEATS).max(SHORTEST_SILENCE);
        Health(Arc::new(HealthState { longest_silence, stage: Mutex::new((Stage::Waiting, None)) }))
    }

    /// Returns what the worker is doing.
    pub fn status(&self) -> HealthStatus {
        let (stage, answered_at) = *self.lock();
        match (stage, answered_at.map(|at| at.elapsed())) {
            (Stage::Waiting, _) | (Stage::Working, None) => HealthStatus::Starting,
            (Stage::Working, Some(silence)) if silence > self.0.longest_silence => HealthStatus::Unanswered(silence),
            (Stage::Working, Some(_)) => HealthStatus::Working,
            (Stage::Stopping, _) => HealthStatus::Stopping,
            (Stage::Ended, _) => HealthStatus::Ended,
        }
    }

    /// Returns false once the worker has ended: its process should be started again.
    ///
    /// A worker without a database lives: it goes on by itself once the database is back.
    pub fn is_live(&self) -> bool {
        self.status() != HealthStatus::Ended
    }

    /// Returns whether the worker claims jobs and the store answers its heartbeats.
    pub fn is_ready(&self) -> bool {
        self.status() == HealthStatus::Working
    }

    pub(crate) fn begin(&self) -> Running {
        self.lock().0 = Stage::Working;
        Running(self.clone())
    }

    pub(crate) fn answered(&self) {
        self.lock().1 = Some(Instant::now());
    }

    pub(crate) fn stopping(&self) {
        self.lock().0 = Stage::Stopping;
    }

    fn lock(&self) -> MutexGuard<'_, (Stage, Option<Instant>)> {
        self.0.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the worker's health when it is dropped.
pub(crate) struct Running(Health);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().0 = Stage::Ended;
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthStatus::Starting => f.pad("the worker is starting"),
            HealthStatus::Working => f.pad("the worker claims jobs"),
            HealthStatus::Unanswered(time) => {
                write!(f, "the database has not answered the worker's heartbeats for {} s", time.as_secs())
            }
            HealthStatus::Stopping => f.pad("the worker is shutting down"),
            HealthStatus::Ended => f.pad("the worker has ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ready_while_its_heartbeats_are_answered() {
        let health = Health::new(Duration::from_secs(1));
        assert_eq!((health.status(), health.is_live(), health.is_ready()), (HealthStatus::Starting, true, false));
        let running = health.begin();
        assert!(!health.is_ready());
        health.answered();
        assert!(health.is_ready());
        health.lock().1 = Instant::now().checked_sub(Duration::from_secs(6));
        assert!(health.is_live() && !health.is_ready(), "{}", health.status());
        health.answered();
        health.stopping();
        assert_eq!((health.status(), health.is_live(), health.is_ready()), (HealthStatus::Stopping, true, false));
        drop(running);
        assert_eq!((health.status(), health.is_live(), health.is_ready()), (HealthStatus::Ended, false, false));
    }
}
