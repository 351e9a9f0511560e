//! A job that a worker has reserved.

use std::time::{Duration, SystemTime};

use super::{NewJob, Payload, Priority};
use crate::job::trace_context::TraceContext;

/// Which worker holds a job, since when, and for which attempt.
///
/// It is the fence: the ending of an attempt counts only while this reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reservation {
    /// The id of the job.
    pub id: i64,
    /// The id of the worker.
    pub worker: i64,
    /// The number of the attempt, from 1.
    pub attempt: i32,
    /// When the worker reserved the job, by the store's clock.
    pub reserved_at: SystemTime,
    /// Helps Postgres to find the job's row again; 0 for no hint. It is no part of the fence.
    pub(crate) hint: u64,
}

impl Reservation {
    /// A reservation of the job `id` by a worker, for an attempt that is counted from 1.
    pub fn new(id: i64, worker: i64, attempt: i32, reserved_at: SystemTime) -> Reservation {
        Reservation { id, worker, attempt, reserved_at, hint: 0 }
    }
}

/// A job that a worker has reserved.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReservedJob {
    /// The reservation under which the job runs and is settled.
    pub reservation: Reservation,
    /// The job's queue.
    pub queue: String,
    /// Which handler runs the job.
    pub kind: String,
    /// The JSON that the handler gets.
    pub payload: Payload,
    /// The job's priority.
    pub priority: Priority,
    /// How many attempts have failed so far.
    pub failures: u32,
    /// The number of failures at which the job is dead.
    pub max_attempts: u32,
    /// When the job was due.
    pub available_at: SystemTime,
    /// When the job was enqueued.
    pub created_at: SystemTime,
    /// What the job belongs to, such as a tenant.
    pub key: Option<String>,
    /// The job's labels.
    pub tags: Vec<String>,
    /// Further facts about the job: a JSON object.
    pub metadata: Option<Payload>,
    /// How long this attempt may take. With `None`, the timeout of its kind counts.
    pub timeout: Option<Duration>,
    /// Whether a cancel was requested while the job ran before, so that the job must not run again.
    pub cancel_requested: bool,
    /// What the store could not read of the job, if anything. The job is dead then, and its handler does not see it.
    pub undecodable: Option<String>,
}

impl ReservedJob {
    /// A job as it was enqueued, under this reservation. It has not failed, and was due and enqueued at the time of the
    /// reservation. A store sets the fields that differ.
    pub fn new(reservation: Reservation, job: NewJob) -> ReservedJob {
        ReservedJob {
            queue: job.queue,
            kind: job.kind,
            payload: job.payload,
            priority: job.priority,
            failures: 0,
            max_attempts: job.max_attempts,
            available_at: reservation.reserved_at,
            created_at: reservation.reserved_at,
            key: job.key,
            tags: job.tags,
            metadata: job.metadata,
            timeout: job.timeout,
            cancel_requested: false,
            undecodable: None,
            reservation,
        }
    }

    /// How long the job waited, from its due time to its reservation, by the store's clock.
    pub fn waited(&self) -> Duration {
        self.reservation.reserved_at.duration_since(self.available_at).unwrap_or_default()
    }

    /// The trace in which the job was enqueued, if its metadata holds one.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::of(self.metadata.as_ref()?)
    }
}
