//! A job as read from its row.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Record, iso_time};
use crate::driver::FailureReason;
use crate::error::{Error, Result};
use crate::job::{JobState, Payload, Priority};

/// A live, blocked, dead or finished job, as read from its row. Each field has the name of its column.
///
/// Every row can be read, even an odd row: if a field cannot hold the stored value, the field has the nearest value, or
/// `None`. [`JobRow::record`] has all columns as stored, including columns without a field here, such as `timeout`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobRow {
    /// The id, which the job keeps when it dies or finishes.
    pub id: i64,
    /// The queue.
    pub queue: String,
    /// The kind, which decides which handler runs the job.
    pub kind: String,
    /// The job's state. For a finished job, this is the column `outcome`.
    pub state: JobState,
    /// The level within the queue.
    pub priority: Priority,
    /// The number of attempts so far: each reservation counts.
    pub attempts: u32,
    /// The number of attempts that failed.
    pub failures: u32,
    /// The number of failures at which the job is dead.
    pub max_attempts: u32,
    /// The key: the tenant or other thing that the job belongs to.
    pub key: Option<String>,
    /// The unique key.
    pub unique_key: Option<String>,
    /// The labels.
    pub tags: Vec<String>,
    /// The time at which the job was enqueued.
    pub created_at: Option<SystemTime>,
    /// The due time.
    pub available_at: Option<SystemTime>,
    /// The time at which a worker reserved the job.
    pub reserved_at: Option<SystemTime>,
    /// The worker that holds the job.
    pub reserved_by: Option<i64>,
    /// The time at which a cancel of the running job was requested.
    pub cancel_requested_at: Option<SystemTime>,
    /// The time at which the handler was asked to stop, if the job is stuck.
    pub stuck_since: Option<SystemTime>,
    /// The time at which the job ended.
    pub finished_at: Option<SystemTime>,
    /// The worker of the last attempt, once the job has ended.
    pub worker: Option<i64>,
    /// The time from the job's due time to the start of its last attempt, once the job has ended.
    pub wait_seconds: Option<f64>,
    /// The duration of the last attempt, once the job has ended.
    pub run_seconds: Option<f64>,
    /// The reason for which the job is dead.
    pub reason: Option<FailureReason>,
    /// The job whose handler enqueued this job.
    pub parent_id: Option<i64>,
    /// The schedule that enqueued this job.
    pub schedule_id: Option<i64>,
    record: Record,
}

/// A failed attempt of a job. A part that cannot be read is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The time at which the attempt failed.
    pub at: Option<SystemTime>,
    /// The number of the attempt, from 1.
    pub attempt: Option<u32>,
    /// The worker that ran the attempt.
    pub worker: Option<i64>,
    /// The reason of the failure.
    pub reason: Option<FailureReason>,
    /// The error. If the stored error is not text, this is its JSON.
    pub error: String,
}

impl JobRow {
    /// # Errors
    /// Unavailable if the record lacks a column that every job has.
    pub(super) fn from_record(record: Record) -> Result<JobRow> {
        let no_job =
            |error: Error| Error::unavailable(format!("cannot read a job: the server's answer is not a job: {error}"));
        let state: String = record.decode("state").map_err(no_job)?;
        let state = state.parse().map_err(|_| {
            Error::unavailable(format!("cannot read a job: the server answered the unknown state {state:?}"))
        })?;
        let count = |column| any::<i64>(&record, column).unwrap_or_default().clamp(0, u32::MAX.into()) as u32;
        Ok(JobRow {
            id: record.decode("id").map_err(no_job)?,
            queue: record.decode("queue").map_err(no_job)?,
            kind: record.decode("kind").map_err(no_job)?,
            state,
            priority: Priority::from_level(any(&record, "priority").unwrap_or_default()),
            attempts: count("attempts"),
            failures: count("failures"),
            max_attempts: count("max_attempts"),
            key: any(&record, "key"),
            unique_key: any(&record, "unique_key"),
            tags: any(&record, "tags").unwrap_or_default(),
            created_at: record.time("created_at"),
            available_at: record.time("available_at"),
            reserved_at: record.time("reserved_at"),
            reserved_by: any(&record, "reserved_by"),
            cancel_requested_at: record.time("cancel_requested_at"),
            stuck_since: record.time("stuck_since"),
            finished_at: record.time("finished_at"),
            worker: any(&record, "worker"),
            wait_seconds: any(&record, "wait_seconds"),
            run_seconds: any(&record, "run_seconds"),
            reason: any::<String>(&record, "reason").as_deref().and_then(FailureReason::from_name),
            parent_id: any(&record, "parent_id"),
            schedule_id: any(&record, "schedule_id"),
            record,
        })
    }

    /// The payload.
    pub fn payload(&self) -> Payload {
        self.json("payload").unwrap_or_else(|| Payload::from_stored("null"))
    }

    /// The metadata.
    pub fn metadata(&self) -> Option<Payload> {
        self.json("metadata")
    }

    /// The progress that the handler last reported.
    pub fn progress(&self) -> Option<Payload> {
        self.json("progress")
    }

    /// The result that the handler returned, if the job is completed and has a result.
    pub fn result(&self) -> Option<Payload> {
        self.json("result")
    }

    /// The last 100 failed attempts, oldest first.
    pub fn errors(&self) -> Vec<FailedAttempt> {
        let errors: Vec<Box<RawValue>> = any(&self.record, "errors").unwrap_or_default();
        errors.iter().map(|error| FailedAttempt::read(error)).collect()
    }

    /// All columns, as they are stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    fn json(&self, column: &str) -> Option<Payload> {
        self.record.get(column).filter(|json| *json != "null").map(Payload::from_stored)
    }
}

impl FailedAttempt {
    fn read(error: &RawValue) -> FailedAttempt {
        let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(error.get()).unwrap_or_default();
        FailedAttempt {
            at: member::<String>(&members, "at").and_then(|at| iso_time::parse(&at)),
            attempt: member(&members, "attempt"),
            worker: member(&members, "worker"),
            reason: member::<String>(&members, "reason").as_deref().and_then(FailureReason::from_name),
            error: member(&members, "error")
                .unwrap_or_else(|| members.get("error").map_or(error.get(), |error| error.get()).to_owned()),
        }
    }
}

/// Returns a column's value, or `None` if the value is null or does not fit the type.
fn any<T: DeserializeOwned>(record: &Record, column: &str) -> Option<T> {
    record.decode(column).ok().flatten()
}

fn member<T: DeserializeOwned>(members: &BTreeMap<String, Box<RawValue>>, name: &str) -> Option<T> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::record::of_json;
    use super::*;

    fn row(json: &str) -> JobRow {
        JobRow::from_record(of_json(json).unwrap()).unwrap()
    }

    #[test]
    fn a_dead_job_is_read_with_its_reason_and_its_failed_attempts() {
        let job = row(r#"{"id": 7, "queue": "mail", "kind": "welcome", "state": "dead", "priority": 1, "attempts": 2,
            "failures": 2, "max_attempts": 2, "tags": ["a"], "payload": {"n": 1}, "metadata": null, "reason": "lost",
            "created_at": "1970-01-01T00:00:01+00:00", "errors": [{"at": "1970-01-01T00:00:02+00:00", "attempt": 2,
            "worker": 3, "reason": "lost", "error": "its worker died"}]}"#);
        assert_eq!((job.id, &*job.queue, &*job.kind, job.state), (7, "mail", "welcome", JobState::Dead));
        assert_eq!((job.priority, job.attempts, job.reason), (Priority::High, 2, Some(FailureReason::Lost)));
        assert_eq!((job.tags.as_slice(), job.reserved_by), (&["a".to_owned()][..], None));
        assert_eq!(job.payload().member::<u8>("n").unwrap(), Some(1));
        assert_eq!(job.metadata(), None);
        let after = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(job.created_at, after(1));
        let error = "its worker died".to_owned();
        let failed =
            FailedAttempt { at: after(2), attempt: Some(2), worker: Some(3), reason: Some(FailureReason::Lost), error };
        assert_eq!(job.errors(), [failed]);
    }

    #[test]
    fn an_odd_row_is_read_as_far_as_it_can_be() {
        let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
        let json = format!(
            r#"{{"id":1,"queue":"q","kind":"k","state":"running","priority":9,"attempts":-5,"failures":2147483647,
            "tags":[["a"],["b"]],"payload":{deep},"available_at":"infinity","errors":[7,{{"error":{deep}}}]}}"#
        );
        let job = row(&json);
        assert_eq!((job.priority, job.attempts, job.failures), (Priority::Low, 0, 2_147_483_647));
        assert_eq!((job.tags.len(), job.available_at), (0, None));
        assert_eq!(job.payload().as_bytes(), deep.as_bytes());
        assert_eq!(job.errors().into_iter().map(|failed| failed.error).collect::<Vec<_>>(), ["7", &deep]);
        assert_eq!(job.record().get("attempts"), Some("-5"));
    }
}
