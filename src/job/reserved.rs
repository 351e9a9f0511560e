//! A job as a worker has reserved it.

use std::time::{Duration, SystemTime};

use super::{NewJob, Payload, Priority};
use crate::job::trace_context::TraceContext;

/// A worker's hold on a job, since a time and for an attempt. A settlement counts only while its reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reservation {
    /// The job.
    pub id: i64,
    /// The worker that reserved it.
    pub worker: i64,
    /// Which attempt this is, from 1.
    pub attempt: i32,
    /// Since when, by the database's clock.
    pub reserved_at: SystemTime,
    /// Helps Postgres to find the row again; 0 for no hint. It is no part of the fence.
    pub(crate) hint: u64,
}

impl Reservation {
    /// A worker's reservation of a job for an attempt, counted from 1, since a time by the store's clock.
    pub fn new(id: i64, worker: i64, attempt: i32, reserved_at: SystemTime) -> Reservation {
        Reservation { id, worker, attempt, reserved_at, hint: 0 }
    }
}

/// A job that a worker has reserved.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReservedJob {
    /// The reservation under which it runs and is settled.
    pub reservation: Reservation,
    /// The queue it came from.
    pub queue: String,
    /// Which handler runs it.
    pub kind: String,
    /// What the handler gets.
    pub payload: Payload,
    /// Its level of urgency.
    pub priority: Priority,
    /// How many attempts have failed so far.
    pub failures: u32,
    /// At how many failures it is dead.
    pub max_attempts: u32,
    /// When it was due.
    pub available_at: SystemTime,
    /// When it was enqueued.
    pub created_at: SystemTime,
    /// What it belongs to.
    pub key: Option<String>,
    /// Free labels.
    pub tags: Vec<String>,
    /// Free facts about the job, as JSON.
    pub metadata: Option<Payload>,
    /// How long this attempt may take; `None`: as its kind says.
    pub timeout: Option<Duration>,
    /// Its cancelling was asked for before it could be stopped: it must not run again.
    pub cancel_requested: bool,
    /// What of it the store could not read, if anything: the job is dead then, and its handler does not see it.
    pub undecodable: Option<String>,
}

impl ReservedJob {
    /// A job as it was enqueued, under this reservation. It has not failed, and was due and enqueued when it was
    /// reserved; set the fields that differ.
    pub fn new(reservation: Reservation, job: NewJob) -> ReservedJob {
        ReservedJob {
            reservation,
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
            metadata: job.metadata.and_then(|metadata| Payload::encode(&metadata).ok()),
            timeout: job.timeout,
            cancel_requested: false,
            undecodable: None,
        }
    }

    /// How long it waited, from being due to being reserved, by the database's clock.
    pub fn waited(&self) -> Duration {
        self.reservation.reserved_at.duration_since(self.available_at).unwrap_or_default()
    }

    /// The trace that it was enqueued in, if its metadata says one.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::stored_in(self.metadata.as_ref()?)
    }
}
