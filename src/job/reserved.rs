//! A job that a worker has reserved.

use std::time::{Duration, SystemTime};

use super::{NewJob, Payload, Priority};
use crate::job::trace_context::TraceContext;

/// The record that a worker holds a job, since a time and for an attempt.
///
/// The fence compares reservations: the ending of an attempt counts only while this reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reservation {
    /// The id of the job.
    pub id: i64,
    /// The id of the worker.
    pub worker: i64,
    /// The number of the attempt, from 1.
    pub attempt: i32,
    /// The time at which the worker reserved the job, by the store's clock.
    pub reserved_at: SystemTime,
    /// The number of the job's queue and the probable tuple id of the job's row. Postgres finds the row quickly by
    /// these. 0 if both are unknown. The fence ignores this value.
    pub(crate) hint: u64,
}

impl Reservation {
    /// Makes a reservation of the job `id` by the worker `worker`. The job's first attempt has the number 1.
    pub fn new(id: i64, worker: i64, attempt: i32, reserved_at: SystemTime) -> Reservation {
        Reservation { id, worker, attempt, reserved_at, hint: 0 }
    }
}

/// A job that a worker has reserved.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReservedJob {
    /// The job's reservation, by which the attempt is settled.
    pub reservation: Reservation,
    /// The job's queue.
    pub queue: String,
    /// The kind, which decides which handler runs the job.
    pub kind: String,
    /// The JSON that the handler gets.
    pub payload: Payload,
    /// The job's priority.
    pub priority: Priority,
    /// The number of attempts that have failed so far.
    pub failures: u32,
    /// The number of failures at which the job is dead.
    pub max_attempts: u32,
    /// The due time.
    pub available_at: SystemTime,
    /// The time at which the job was enqueued.
    pub created_at: SystemTime,
    /// The key: the tenant or other thing that the job belongs to.
    pub key: Option<String>,
    /// The job's tags.
    pub tags: Vec<String>,
    /// Further facts about the job: a JSON object.
    pub metadata: Option<Payload>,
    /// The time that this attempt may take. With `None`, the timeout of the job's kind applies.
    pub timeout: Option<Duration>,
    /// True if a cancel was requested during an earlier attempt, so that the job must not run again.
    pub cancel_requested: bool,
    /// The error, if the store could not read a part of the job. In this case, the worker makes the job a dead job
    /// without calling the handler.
    pub undecodable: Option<String>,
}

impl ReservedJob {
    /// Makes a reserved job of a new job. The reserved job has no failures, and the time of the reservation as its due
    /// time and its time of enqueue. A store that knows other values sets these fields afterwards.
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

    /// The time from the job's due time to its reservation, by the store's clock.
    pub fn waited(&self) -> Duration {
        self.reservation.reserved_at.duration_since(self.available_at).unwrap_or_default()
    }

    /// The trace in which the job was enqueued, if the job's metadata holds a trace.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::of(self.metadata.as_ref()?)
    }
}
