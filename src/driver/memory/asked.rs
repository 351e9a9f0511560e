//! Looking, and what people ask for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::StoredJob;
use super::kept::FAR;
use super::limits::Limits;
use super::store::Store;
use crate::driver::{Hints, Signal};
use crate::error::{Error, Result};
use crate::job::JobState;
use crate::queue::QueueSettings;

/// For how long completed and cancelled jobs are kept.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    pub(super) fn job(&self, id: i64) -> Option<StoredJob> {
        self.jobs.get(&id).map(|kept| kept.shown(self.clock.now()))
    }

    pub(super) fn jobs(&self) -> Vec<StoredJob> {
        let now = self.clock.now();
        self.jobs.values().map(|kept| kept.shown(now)).collect()
    }

    pub(super) fn cancel(&mut self, id: i64) -> &'static str {
        let Some(kept) = self.jobs.get_mut(&id) else { return "unknown" };
        match kept.stored.state {
            JobState::Ready | JobState::Delayed => {
                self.end(id, JobState::Cancelled);
                "cancelled"
            }
            JobState::Running => {
                kept.cancel_requested = true;
                self.signal(&Signal::Cancel(id));
                "requested"
            }
            JobState::Dead => "dead",
            JobState::Completed | JobState::Cancelled => "finished",
        }
    }

    pub(super) fn retry(&mut self, id: i64) -> Result<&'static str> {
        let now = self.clock.now();
        let Some(kept) = self.jobs.get_mut(&id) else { return Ok("unknown") };
        match kept.stored.state {
            JobState::Ready | JobState::Delayed => {
                let due = kept.stored.available_at.min(now);
                self.waits(id, due);
                Ok("due")
            }
            JobState::Running => Ok("running"),
            JobState::Dead => {
                if let Some(unique) = kept.unique() {
                    if self.unique.contains_key(&unique) {
                        return Err(Error::invalid(format!(
                            "job {id} cannot be revived: a live job of its kind has its unique key"
                        )));
                    }
                    self.unique.insert(unique, id);
                }
                kept.stored.failures = 0;
                kept.stored.reason = None;
                kept.ended_at = None;
                self.waits(id, now);
                Ok("revived")
            }
            JobState::Completed | JobState::Cancelled => Ok("finished"),
        }
    }

    pub(super) fn purge(&mut self, id: i64) -> bool {
        let dead = self.jobs.get(&id).is_some_and(|kept| kept.stored.state == JobState::Dead);
        dead && self.jobs.remove(&id).is_some()
    }

    pub(super) fn pause(&mut self, queue: &str) {
        self.paused.insert(queue.into());
        self.signal(&Signal::Pause(queue.into()));
    }

    pub(super) fn resume(&mut self, queue: &str) {
        self.paused.remove(queue);
        self.ring(queue);
    }

    pub(super) fn set_queue(&mut self, queue: &str, settings: &QueueSettings) {
        match settings.paused {
            Some(true) => self.pause(queue),
            Some(false) => self.resume(queue),
            None => {}
        }
        self.limits.entry(queue.into()).or_default().set(settings);
        self.ring(queue);
    }

    pub(super) fn limits(&self, queue: &str) -> Option<&Limits> {
        self.limits.get(queue).filter(|limits| limits.are_set())
    }

    pub(super) fn is_limited(&self, queue: &str) -> bool {
        self.limits(queue).is_some()
    }

    pub(super) fn workers(&self) -> Vec<i64> {
        self.workers.keys().copied().collect()
    }

    pub(super) fn stop_worker(&mut self, id: i64) -> bool {
        let Some(known) = self.workers.get_mut(&id) else { return false };
        known.stop_requested = true;
        self.signal(&Signal::Stop(id));
        true
    }

    pub(super) fn confirm(&self, worker: i64, hints: &Hints) -> Hints {
        let is_asked = |id: &i64| {
            let kept = self.jobs.get(id).filter(|kept| kept.cancel_requested);
            kept.and_then(|kept| kept.reservation).is_some_and(|reservation| reservation.worker == worker)
        };
        Hints {
            cancel: hints.cancel.iter().copied().filter(is_asked).collect(),
            paused: hints.paused.iter().filter(|queue| self.paused.contains(*queue)).cloned().collect(),
            stop: hints.stop && self.workers.get(&worker).is_some_and(|known| known.stop_requested),
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let clock = &mut self.clock;
        // Far, and not where the system's time ends.
        clock.advanced = clock.advanced.saturating_add(by).min(FAR * 10_000);
        let queues: BTreeSet<Arc<str>> = self.waiting.iter().map(|place| Arc::clone(&place.queue)).collect();
        queues.iter().for_each(|queue| self.ring(queue));
        self.signal(&Signal::Schedules);
    }

    pub(super) fn prune(&mut self) {
        let now = self.clock.now();
        self.periods.forget(now);
        self.jobs.retain(|_, kept| {
            let ended_at = kept.ended_at.filter(|_| kept.stored.state != JobState::Dead);
            ended_at.is_none_or(|at| now.duration_since(at).unwrap_or_default() < RETENTION)
        });
    }
}
