//! The entries that the store keeps for jobs, workers and schedules, and the store's clock.

#[cfg(feature = "schedules")]
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::StoredJob;
#[cfg(feature = "schedules")]
use crate::driver::DueSchedule;
use crate::driver::{Failure, Step};
use crate::job::{Due, JobState, NewJob, Payload, Priority, Reservation, ReservedJob};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;

/// The largest number of failures that a job keeps.
const MOST_ERRORS: usize = 100;
/// The longest delay: a thousand years. Longer delays are cut to it.
pub(super) const FAR: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);

/// A job, live or ended.
pub(super) struct JobEntry {
    /// The job as users see it, with one exception: the state of a waiting job is `Ready` here even if the job is
    /// delayed. [`JobEntry::seen_at`] returns the right state.
    pub(super) stored: StoredJob,
    pub(super) reservation: Option<Reservation>,
    pub(super) cancel_requested: bool,
    pub(super) ended_at: Option<SystemTime>,
    /// The steps of the job by their names, until the job is completed or cancelled.
    pub(super) steps: HashMap<String, StepEntry>,
}

/// A step of a job. `until`: the time at which a sleep or a wait ends at the latest.
pub(super) struct StepEntry {
    pub(super) step: Step,
    pub(super) until: SystemTime,
}

/// An event that was emitted, and is kept until this time.
pub(super) struct EventEntry {
    pub(super) payload: Payload,
    pub(super) until: SystemTime,
}

/// The place of a waiting job in the order of claims, with its queue.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClaimPosition {
    pub(super) queue: Arc<str>,
    pub(super) priority: Priority,
    pub(super) available_at: SystemTime,
    pub(super) id: i64,
}

/// A registered worker.
pub(super) struct WorkerEntry {
    pub(super) queues: Vec<String>,
    pub(super) last_seen_at: SystemTime,
    pub(super) stop_requested: bool,
}

/// Tokio's clock, put forward by `advanced`. A test that pauses Tokio's clock pauses the store's clock too.
pub(super) struct Clock {
    began: Instant,
    began_at: SystemTime,
    pub(super) advanced: Duration,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { began: Instant::now(), began_at: SystemTime::now(), advanced: Duration::ZERO }
    }
}

impl Clock {
    pub(super) fn now(&self) -> SystemTime {
        self.began_at + self.began.elapsed() + self.advanced
    }
}

/// The kind and unique key of a job.
pub(super) type Unique = (String, String);

/// The unique keys that are held for a period.
#[derive(Default)]
pub(super) struct Periods(HashMap<Unique, Period>);

/// The job that holds a unique key, and the end of its period.
struct Period {
    id: i64,
    ends_at: SystemTime,
}

impl Periods {
    pub(super) fn hold(&mut self, unique: Unique, id: i64, ends_at: SystemTime) {
        self.0.insert(unique, Period { id, ends_at });
    }

    pub(super) fn holder(&self, unique: &Unique, now: SystemTime) -> Option<i64> {
        self.0.get(unique).filter(|period| period.ends_at > now).map(|period| period.id)
    }

    pub(super) fn forget(&mut self, now: SystemTime) {
        self.0.retain(|_, period| period.ends_at > now);
    }
}

pub(super) fn later(now: SystemTime, delay: Duration) -> SystemTime {
    now + delay.min(FAR)
}

/// Returns the time at which a job is due that is enqueued now.
pub(super) fn due_at(job: &NewJob, now: SystemTime) -> SystemTime {
    match job.due {
        Due::In(delay) => later(now, delay),
        Due::At(at) => at,
    }
}

impl JobEntry {
    /// True if the job waits in its queue or runs.
    pub(super) fn is_live(&self) -> bool {
        self.stored.state.is_waiting() || self.stored.state == JobState::Running
    }

    pub(super) fn is_dead(&self) -> bool {
        self.stored.state == JobState::Dead
    }

    /// Returns the job as users see it at the time `now`.
    pub(super) fn seen_at(&self, now: SystemTime) -> StoredJob {
        let mut stored = self.stored.clone();
        if stored.state == JobState::Ready && stored.available_at > now {
            stored.state = JobState::Delayed;
        }
        stored
    }

    pub(super) fn position(&self) -> ClaimPosition {
        let StoredJob { id, job, available_at, .. } = &self.stored;
        ClaimPosition { queue: job.queue.as_str().into(), priority: job.priority, available_at: *available_at, id: *id }
    }

    pub(super) fn unique(&self) -> Option<Unique> {
        Some((self.stored.job.kind.clone(), self.stored.job.unique_key.clone()?))
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.stored.failures += 1;
        if self.stored.errors.len() >= MOST_ERRORS {
            self.stored.errors.remove(0);
        }
        self.stored.errors.push(failure);
    }

    pub(super) fn reserved(&self, reservation: Reservation) -> ReservedJob {
        let StoredJob { job, failures, available_at, created_at, .. } = self.stored.clone();
        let cancel_requested = self.cancel_requested;
        ReservedJob { failures, available_at, created_at, cancel_requested, ..ReservedJob::new(reservation, job) }
    }
}

/// The schedules by their names.
#[cfg(feature = "schedules")]
#[derive(Default)]
pub(super) struct Schedules {
    pub(super) entries: BTreeMap<String, ScheduleEntry>,
    pub(super) last_id: i64,
}

/// A declared schedule.
#[cfg(feature = "schedules")]
pub(super) struct ScheduleEntry {
    pub(super) schedule: Schedule,
    pub(super) due: DueSchedule,
    /// True if the next tick could not be computed.
    pub(super) unreadable: bool,
}
