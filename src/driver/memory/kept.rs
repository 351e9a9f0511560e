//! One job as it is kept, and the clock that it goes by.

#[cfg(feature = "schedules")]
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::StoredJob;
#[cfg(feature = "schedules")]
use crate::driver::DueSchedule;
use crate::driver::Failure;
use crate::job::{JobState, Priority, Reservation, ReservedJob};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;

/// How many errors a job keeps.
const MAX_ERRORS: usize = 100;
/// As good as never.
pub(super) const FAR: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);

/// A job, live or ended.
pub(super) struct Kept {
    pub(super) stored: StoredJob,
    pub(super) reservation: Option<Reservation>,
    pub(super) cancel_requested: bool,
    pub(super) ended_at: Option<SystemTime>,
}

/// Where a waiting job stands in the order of claims.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) queue: Arc<str>,
    pub(super) priority: Priority,
    pub(super) available_at: SystemTime,
    pub(super) id: i64,
}

/// Tokio's clock, so that a test that pauses it pauses this one too, and whatever it was put forward by.
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

/// The unique keys that are held for a period: by which job, and until when.
#[derive(Default)]
pub(super) struct Periods(HashMap<(String, String), (i64, SystemTime)>);

impl Periods {
    pub(super) fn hold(&mut self, unique: (String, String), id: i64, ends_at: SystemTime) {
        self.0.insert(unique, (id, ends_at));
    }

    pub(super) fn holder(&self, unique: &(String, String), now: SystemTime) -> Option<i64> {
        self.0.get(unique).filter(|(_, ends_at)| *ends_at > now).map(|(id, _)| *id)
    }

    pub(super) fn forget(&mut self, now: SystemTime) {
        self.0.retain(|_, (_, ends_at)| *ends_at > now);
    }
}

pub(super) fn later(now: SystemTime, delay: Duration) -> SystemTime {
    now + delay.min(FAR)
}

impl Kept {
    /// The job as it is shown: a waiting one is ready or delayed, by the clock.
    pub(super) fn shown(&self, now: SystemTime) -> StoredJob {
        let mut stored = self.stored.clone();
        if stored.state.is_waiting() {
            stored.state = if stored.available_at > now { JobState::Delayed } else { JobState::Ready };
        }
        stored
    }

    pub(super) fn place(&self) -> Place {
        let StoredJob { id, job, available_at, .. } = &self.stored;
        Place { queue: job.queue.as_str().into(), priority: job.priority, available_at: *available_at, id: *id }
    }

    pub(super) fn unique(&self) -> Option<(String, String)> {
        Some((self.stored.job.kind.clone(), self.stored.job.unique_key.clone()?))
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.stored.failures += 1;
        if self.stored.errors.len() >= MAX_ERRORS {
            self.stored.errors.remove(0);
        }
        self.stored.errors.push(failure);
    }

    pub(super) fn reserved(&self, reservation: Reservation) -> ReservedJob {
        let StoredJob { job, failures, available_at, created_at, .. } = self.stored.clone();
        ReservedJob {
            reservation,
            queue: job.queue,
            kind: job.kind,
            payload: job.payload,
            priority: job.priority,
            failures,
            max_attempts: job.max_attempts,
            available_at,
            created_at,
            key: job.key,
            tags: job.tags,
            metadata: job.metadata,
            timeout: job.timeout,
            cancel_requested: self.cancel_requested,
            undecodable: None,
        }
    }
}

/// The schedules by their names.
#[cfg(feature = "schedules")]
#[derive(Default)]
pub(super) struct Schedules {
    pub(super) kept: BTreeMap<String, KeptSchedule>,
    pub(super) last_id: i64,
}

/// A schedule, with what is due of it.
#[cfg(feature = "schedules")]
pub(super) struct KeptSchedule {
    pub(super) schedule: Schedule,
    pub(super) due: DueSchedule,
    pub(super) unreadable: bool,
}
