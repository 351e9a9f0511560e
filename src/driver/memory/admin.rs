//! Administration, which the trait `Driver` does not include: reading jobs, and changing jobs, queues and workers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::StoredJob;
use super::entries::{FAR, JobEntry};
use super::limits::QueueLimits;
use super::links::LinkedEnd;
use super::store::Store;
use crate::driver::{Hints, Signal};
use crate::error::{Error, Result};
use crate::job::{Cancelled, JobState, NewJob, Retried};
use crate::queue::{Pause, QueueSettings};

/// The time for which completed and cancelled jobs are kept.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    pub(super) fn job(&self, id: i64) -> Option<StoredJob> {
        self.jobs.get(&id).map(|entry| self.seen_at(entry, self.now()))
    }

    pub(super) fn jobs(&self) -> Vec<StoredJob> {
        let now = self.now();
        self.jobs.values().map(|entry| self.seen_at(entry, now)).collect()
    }

    fn seen_at(&self, entry: &JobEntry, now: SystemTime) -> StoredJob {
        let mut stored = entry.seen_at(now);
        if stored.state == JobState::Ready && self.is_paused(&stored.job) {
            stored.state = JobState::Parked;
        }
        stored
    }

    pub(super) fn cancel(&mut self, id: i64) -> Cancelled {
        let Some(entry) = self.jobs.get_mut(&id) else { return Cancelled::Unknown };
        match entry.stored.state {
            JobState::Blocked | JobState::Ready | JobState::Delayed | JobState::Parked => {
                self.end(id, JobState::Cancelled);
                Cancelled::Cancelled
            }
            JobState::Running => {
                entry.cancel_requested = true;
                self.signal(&Signal::Cancel(id));
                Cancelled::Requested
            }
            JobState::Dead => Cancelled::Dead,
            JobState::Completed | JobState::Cancelled => Cancelled::Finished,
        }
    }

    pub(super) fn retry(&mut self, id: i64, forced: bool) -> Result<Retried> {
        let (now, is_compensated) = (self.now(), self.is_compensated(id));
        let Some(entry) = self.jobs.get_mut(&id) else { return Ok(Retried::Unknown) };
        match entry.stored.state {
            JobState::Ready | JobState::Delayed | JobState::Parked => {
                let due = entry.stored.available_at.min(now);
                self.put_back(id, due);
                Ok(Retried::Due)
            }
            JobState::Running => Ok(Retried::Running),
            JobState::Blocked => Ok(Retried::Blocked),
            JobState::Dead if is_compensated && !forced => Ok(Retried::Compensated),
            JobState::Dead => {
                if let Some(unique) = entry.unique() {
                    if self.unique.contains_key(&unique) {
                        return Err(Error::invalid(format!(
                            "job {id} cannot be revived: a live job of its kind has its unique key"
                        )));
                    }
                    self.unique.insert(unique, id);
                }
                (entry.stored.failures, entry.stored.reason) = (0, None);
                entry.ended_at = None;
                self.put_back(id, now);
                self.apply_end(id, LinkedEnd::Revived);
                self.cancel_revived(id);
                Ok(Retried::Revived)
            }
            JobState::Completed | JobState::Cancelled => Ok(Retried::Finished),
        }
    }

    pub(super) fn purge(&mut self, id: i64) -> bool {
        let is_dead = self.jobs.get(&id).is_some_and(|entry| entry.is_dead());
        if is_dead {
            self.jobs.remove(&id);
            self.apply_end(id, LinkedEnd::Purged);
        }
        is_dead
    }

    pub(super) fn pause(&mut self, pause: Pause) {
        self.queues_of(&pause).into_iter().for_each(|queue| self.signal(&Signal::Pause(queue)));
        self.pauses.insert(pause);
    }

    pub(super) fn resume(&mut self, pause: &Pause) {
        self.pauses.remove(pause);
        self.queues_of(pause).iter().for_each(|queue| self.ring(queue));
    }

    /// Returns the queue of a pause; if the pause covers all queues, returns the queues that have a worker.
    fn queues_of(&self, pause: &Pause) -> Vec<String> {
        match &pause.queue {
            Some(queue) => vec![queue.clone()],
            None => self.workers.values().flat_map(|worker| worker.queues.iter().cloned()).collect(),
        }
    }

    pub(super) fn is_queue_paused(&self, queue: &str) -> bool {
        self.pauses.iter().any(|pause| pause.is_of_queue() && pause.queue.as_deref() == Some(queue))
    }

    /// True if a pause of a kind or a key covers this job.
    pub(super) fn is_paused(&self, job: &NewJob) -> bool {
        let covers = |pause: &Pause| pause.covers(&job.queue, &job.kind, job.key.as_deref());
        self.pauses.iter().any(|pause| !pause.is_of_queue() && covers(pause))
    }

    pub(super) fn set_queue(&mut self, queue: &str, settings: &QueueSettings) {
        match settings.paused {
            Some(true) => self.pause(queue.into()),
            Some(false) => self.resume(&queue.into()),
            None => {}
        }
        self.limits.entry(queue.into()).or_default().set(settings);
        self.ring(queue);
    }

    pub(super) fn limits(&self, queue: &str) -> Option<&QueueLimits> {
        self.limits.get(queue).filter(|limits| limits.are_set())
    }

    pub(super) fn is_limited(&self, queue: &str) -> bool {
        self.limits(queue).is_some()
    }

    pub(super) fn workers(&self) -> Vec<i64> {
        self.workers.keys().copied().collect()
    }

    pub(super) fn stop_worker(&mut self, id: i64) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else { return false };
        worker.stop_requested = true;
        self.signal(&Signal::Stop(id));
        true
    }

    pub(super) fn confirm(&self, worker: i64, hints: &Hints) -> Hints {
        let is_to_be_cancelled = |id: &i64| {
            let entry = self.jobs.get(id).filter(|entry| entry.cancel_requested);
            entry.and_then(|entry| entry.reservation).is_some_and(|reservation| reservation.worker == worker)
        };
        let has_pause =
            |queue: &String| self.pauses.iter().any(|pause| pause.queue.as_ref().is_none_or(|paused| paused == queue));
        Hints {
            cancel: hints.cancel.iter().copied().filter(is_to_be_cancelled).collect(),
            paused: hints.paused.iter().filter(|queue| has_pause(queue)).cloned().collect(),
            stop: hints.stop && self.workers.get(&worker).is_some_and(|worker| worker.stop_requested),
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let clock = &mut self.clock;
        // The limit keeps the sum below the largest time that the system can represent.
        clock.advanced = clock.advanced.saturating_add(by).min(FAR * 10_000);
        let queues: BTreeSet<Arc<str>> = self.waiting.iter().map(|position| Arc::clone(&position.queue)).collect();
        queues.iter().for_each(|queue| self.ring(queue));
        self.signal(&Signal::Schedules);
    }

    pub(super) fn prune(&mut self) {
        let now = self.now();
        self.periods.forget(now);
        self.forget_events(now);
        self.jobs.retain(|_, entry| {
            let ended_at = entry.ended_at.filter(|_| !entry.is_dead());
            ended_at.is_none_or(|at| now.duration_since(at).unwrap_or_default() < RETENTION)
        });
        self.forget_links(now);
    }
}
