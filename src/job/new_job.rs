//! A job about to be enqueued.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::error::Result;
use crate::job::check::check_is_object;
use crate::job::payload::Payload;
use crate::job::trace_context::TraceContext;
use crate::job::unique::{BY_KIND, UniqueMode, UniqueUntil, by_payload};
use crate::job::{Job, Priority};

/// The due time of a new job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The job is due this long after its enqueue, by the database's clock.
    In(Duration),
    /// The job is due at this time, by the database's clock.
    At(SystemTime),
}

/// A job about to be enqueued. The fields are the columns of `reveille.jobs` that a caller may set.
///
/// ```
/// use reveille::job::{NewJob, Payload};
/// use std::time::Duration;
///
/// # fn example() -> reveille::Result<()> {
/// let job = NewJob::new("send_welcome", Payload::parse(r#"{"user_id": 7}"#)?)
///     .queue("mail")
///     .delay(Duration::from_secs(3600))
///     .tag("signup")
///     .metadata(&serde_json::json!({ "source": "import" }))?;
/// assert_eq!(job.queue, "mail");
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewJob {
    /// The queue, 1 to 128 characters.
    pub queue: String,
    /// The kind, which decides which handler runs the job, 1 to 128 characters.
    pub kind: String,
    /// The JSON that the handler gets.
    pub payload: Payload,
    /// The priority, which decides whether the job starts before or after other jobs of its queue.
    pub priority: Priority,
    /// The due time: the job may start from then on.
    pub due: Due,
    /// The number of failures at which the job is dead, at least 1.
    pub max_attempts: u32,
    /// The time that one attempt may take, at least a microsecond. With `None`, the timeout of the job's kind applies.
    pub timeout: Option<Duration>,
    /// The unique key, which at most one job of a kind holds, 1 to 512 bytes.
    pub unique_key: Option<String>,
    /// The change that the enqueue makes to a job that already holds the unique key.
    pub unique_mode: UniqueMode,
    /// The time until which the job holds its unique key.
    pub unique_until: UniqueUntil,
    /// The key: the tenant or other thing that the job belongs to, for limits and order, 1 to 512 bytes.
    pub key: Option<String>,
    /// The tags: at most 64, with at most 16 KiB together.
    pub tags: Vec<String>,
    /// Further facts about the job: a JSON object of at most 256 KiB.
    pub metadata: Option<Payload>,
    /// The id of the parent: the job in whose handler this job is enqueued. [`enqueue`](crate::enqueue()) sets the id
    /// if it is called in a handler.
    pub parent_id: Option<i64>,
}

/// The default limit of a payload in bytes: 1 MiB. [`Enqueue::max_payload`](crate::enqueue::Enqueue::max_payload)
/// changes the limit for one job, and [`Enqueuer::max_payload`](crate::enqueue::Enqueuer::max_payload) for all jobs of
/// an enqueuer.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

impl NewJob {
    /// Makes a job of a kind with a payload. Everything else has its default.
    pub fn new(kind: impl Into<String>, payload: Payload) -> NewJob {
        NewJob {
            queue: "default".into(),
            kind: kind.into(),
            payload,
            priority: Priority::Normal,
            due: Due::In(Duration::ZERO),
            max_attempts: 20,
            timeout: None,
            unique_key: None,
            unique_mode: UniqueMode::Keep,
            unique_until: UniqueUntil::Finished,
            key: None,
            tags: Vec::new(),
            metadata: None,
            parent_id: None,
        }
    }

    /// Makes the job for a typed value, with the defaults of the value's kind.
    ///
    /// # Errors
    /// Invalid if the value does not serialize to JSON that Postgres can store.
    pub fn of<J: Job>(job: &J) -> Result<NewJob> {
        Ok(NewJob {
            queue: J::QUEUE.into(),
            priority: J::PRIORITY,
            max_attempts: J::MAX_ATTEMPTS,
            ..NewJob::new(J::KIND, Payload::encode(job)?)
        })
    }

    /// Sends the job to this queue. Default: the queue of the job's kind, or else `default`.
    #[must_use]
    pub fn queue(self, queue: impl Into<String>) -> NewJob {
        NewJob { queue: queue.into(), ..self }
    }

    /// Sets the priority, which decides whether the job starts before or after other jobs of its queue.
    #[must_use]
    pub fn priority(self, priority: Priority) -> NewJob {
        NewJob { priority, ..self }
    }

    /// Makes the job due this long after its enqueue.
    #[must_use]
    pub fn delay(self, delay: Duration) -> NewJob {
        NewJob { due: Due::In(delay), ..self }
    }

    /// Makes the job due at this time, by the database's clock.
    #[must_use]
    pub fn at(self, time: SystemTime) -> NewJob {
        NewJob { due: Due::At(time), ..self }
    }

    /// Makes the job dead after this many failures, at least 1.
    #[must_use]
    pub fn max_attempts(self, max_attempts: u32) -> NewJob {
        NewJob { max_attempts, ..self }
    }

    /// Sets the timeout of each attempt; at least a microsecond.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> NewJob {
        NewJob { timeout: Some(timeout), ..self }
    }

    /// Adds the job only if no other job of its kind holds this unique key, 1 to 512 bytes. If another job holds the
    /// unique key, the enqueue returns that job's id.
    #[must_use]
    pub fn unique_key(self, key: impl Into<String>) -> NewJob {
        NewJob { unique_key: Some(key.into()), ..self }
    }

    /// Adds the job only if no other job of its kind is unique by the same payload. The layout of the JSON does not
    /// matter.
    ///
    /// The unique key is a hash of the payload, so set the payload before you call this.
    ///
    /// # Errors
    /// Invalid if the payload is nested more than 128 levels deep.
    pub fn unique_by_payload(mut self) -> Result<NewJob> {
        self.unique_key = Some(by_payload(&self.payload)?);
        Ok(self)
    }

    /// Adds the job only if no other job of its kind is unique by its kind.
    #[must_use]
    pub fn unique_by_kind(self) -> NewJob {
        self.unique_key(BY_KIND)
    }

    /// Sets the change that the enqueue makes to a job that already holds the unique key; default [`UniqueMode::Keep`].
    #[must_use]
    pub fn unique_mode(self, mode: UniqueMode) -> NewJob {
        NewJob { unique_mode: mode, ..self }
    }

    /// Sets the time until which the job holds its unique key; default [`UniqueUntil::Finished`].
    #[must_use]
    pub fn unique_until(self, until: UniqueUntil) -> NewJob {
        NewJob { unique_until: until, ..self }
    }

    /// Sets the key: the tenant or other thing that the job belongs to, 1 to 512 bytes.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> NewJob {
        NewJob { key: Some(key.into()), ..self }
    }

    /// Adds a tag; a job has at most 64 tags.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> NewJob {
        self.tags.push(tag.into());
        self
    }

    /// Replaces the job's metadata with anything that serializes to a JSON object.
    ///
    /// # Errors
    /// Invalid if the value serializes to something else, or to JSON that Postgres cannot store.
    pub fn metadata(self, metadata: &(impl Serialize + ?Sized)) -> Result<NewJob> {
        let metadata = Payload::encode_as("metadata", metadata)?;
        check_is_object(&metadata)?;
        Ok(NewJob { metadata: Some(metadata), ..self })
    }

    /// Sets the parent: the id of the job in whose handler this job is enqueued.
    #[must_use]
    pub fn parent(self, id: i64) -> NewJob {
        NewJob { parent_id: Some(id), ..self }
    }

    /// Sets one member of the job's metadata, and leaves the text of the other members unchanged. This is for
    /// middlewares.
    ///
    /// # Errors
    /// Invalid if the value does not serialize to JSON that Postgres can store, or the metadata is not a JSON object.
    pub fn set_metadata_member(&mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<()> {
        let value = Payload::encode_as("metadata", value)?;
        self.change_metadata(&[(name, Some(&value))])
    }

    /// The trace in which the job is enqueued, if the job's metadata holds a trace.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::of(self.metadata.as_ref()?)
    }

    /// Writes a trace context into the job's metadata. A trace context that the metadata already holds is replaced.
    ///
    /// # Errors
    /// Invalid if the metadata is not a JSON object.
    pub fn set_trace(&mut self, trace: &TraceContext) -> Result<()> {
        let members = trace.members()?;
        self.change_metadata(&members.each_ref().map(|(name, value)| (*name, value.as_ref())))
    }

    fn change_metadata(&mut self, changes: &[(&str, Option<&Payload>)]) -> Result<()> {
        let metadata = match &self.metadata {
            Some(metadata) => metadata.with_members("metadata", changes)?,
            None => Payload::encode(&serde_json::Map::new())?.with_members("metadata", changes)?,
        };
        self.metadata = Some(metadata);
        Ok(())
    }
}

/// Something that can be enqueued: a value of a [`Job`] type, a [`NewJob`] for a kind without a type in this program,
/// or a [`Workflow`](crate::enqueue::Workflow), which the job then starts.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be enqueued",
    label = "neither a `Job` nor a `NewJob`",
    note = "implement `reveille::Job` for `{Self}`, or build a `reveille::job::NewJob` of a kind and a payload"
)]
pub trait Enqueueable {
    /// Makes the job to enqueue.
    ///
    /// # Errors
    /// Invalid if the value does not serialize to JSON that Postgres can store.
    fn to_new_job(&self) -> Result<NewJob>;
}

impl<J: Job> Enqueueable for J {
    fn to_new_job(&self) -> Result<NewJob> {
        NewJob::of(self)
    }
}

impl Enqueueable for NewJob {
    fn to_new_job(&self) -> Result<NewJob> {
        Ok(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> NewJob {
        NewJob::new("kind", Payload::encode(&()).unwrap())
    }

    fn json(json: &str) -> Payload {
        Payload::parse(json).unwrap()
    }

    #[test]
    fn metadata_is_an_object_and_its_other_members_stay_as_they_are() {
        for (other, shape) in [("[]", "an array"), ("\"a\"", "a string"), ("7", "a number"), ("null", "null")] {
            let error = job().metadata(&json(other)).unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains(&format!("not {shape}")), "{error}");
        }
        let long = "12345678901234567890.12345678901234567890";
        let mut job = job().metadata(&json(&format!(r#" {{ "long": {long} }}"#))).unwrap();
        job.set_metadata_member("added", &7).unwrap();
        let metadata = job.metadata.unwrap();
        assert_eq!(metadata.as_bytes(), format!(r#"{{"added":7,"long":{long}}}"#).as_bytes());
        assert_eq!(metadata.member::<i32>("added").unwrap(), Some(7));
    }

    #[test]
    fn a_trace_replaces_the_one_before() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut job = job().metadata(&json(r#"{"mine":1}"#)).unwrap();
        let trace = TraceContext::parse(PARENT, Some("a=1")).unwrap();
        job.set_trace(&trace).unwrap();
        assert_eq!(job.trace(), Some(trace));
        let other = TraceContext::parse(&PARENT.replace("-01", "-00"), None).unwrap();
        job.set_trace(&other).unwrap();
        assert_eq!(job.trace(), Some(other), "nothing stays of the one before");
        assert_eq!(job.metadata.as_ref().unwrap().member::<i32>("mine").unwrap(), Some(1));
        job.set_metadata_member("traceparent", &7).unwrap();
        assert_eq!(job.trace(), None);
    }
}
