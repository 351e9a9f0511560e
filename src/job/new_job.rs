//! A job about to be enqueued, and what makes a store refuse it.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::job::payload::Payload;
use crate::job::trace_context::TraceContext;
use crate::job::unique::{BY_KIND, UniqueMode, UniqueUntil, by_payload};
use crate::job::{Job, Priority};

/// When a new job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// This long after its enqueue, by the database's clock.
    In(Duration),
    /// At this time by the database's clock.
    At(SystemTime),
}

/// A job about to be enqueued. Its fields are the columns of `reveille.jobs` that a caller may set.
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
    /// Which handler runs the job, 1 to 128 characters.
    pub kind: String,
    /// The JSON that the handler gets.
    pub payload: Payload,
    /// Whether the job starts before or after others of its queue.
    pub priority: Priority,
    /// When the job may start.
    pub due: Due,
    /// The number of failures at which the job is dead, at least 1.
    pub max_attempts: u32,
    /// How long one attempt may take, at least a microsecond. With `None`, the timeout of its kind counts.
    pub timeout: Option<Duration>,
    /// A key that at most one job of a kind holds, 1 to 512 bytes.
    pub unique_key: Option<String>,
    /// What happens to the job that holds the unique key already.
    pub unique_mode: UniqueMode,
    /// Until when the job holds its unique key.
    pub unique_until: UniqueUntil,
    /// What the job belongs to, such as a tenant: for limits and order per key; 1 to 512 bytes.
    pub key: Option<String>,
    /// Labels, at most 64, of 16 KiB together.
    pub tags: Vec<String>,
    /// Further facts about the job: a JSON object of at most 256 KiB.
    pub metadata: Option<Payload>,
    /// The id of the job in whose handler this one is enqueued. [`enqueue`](crate::enqueue()) sets it where it can.
    pub parent_id: Option<i64>,
}

/// The default limit of a payload in bytes: 1 MiB. [`Enqueue::max_payload`](crate::enqueue::Enqueue::max_payload) raises
/// it.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// The largest payload that the table stores, in bytes: 8 MiB.
pub(crate) const LARGEST_PAYLOAD: usize = 8 * 1024 * 1024;
/// The largest metadata that the table stores, in bytes: 256 KiB.
const LARGEST_METADATA: usize = 256 * 1024;
const MOST_TAGS: usize = 64;
/// The largest tags that the table stores, in bytes together: 16 KiB.
const LARGEST_TAGS: usize = 16 * 1024;

impl NewJob {
    /// A job of a kind with a payload, and with the default for everything else.
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

    /// The job for a typed value, with the defaults of its kind.
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

    /// Sends the job to this queue; default `default`, or the queue of its kind.
    #[must_use]
    pub fn queue(self, queue: impl Into<String>) -> NewJob {
        NewJob { queue: queue.into(), ..self }
    }

    /// Starts the job before or after others of its queue.
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

    /// Gives each attempt at most this long, at least a microsecond.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> NewJob {
        NewJob { timeout: Some(timeout), ..self }
    }

    /// Adds the job only if no other job of its kind holds this key, 1 to 512 bytes.
    #[must_use]
    pub fn unique_key(self, key: impl Into<String>) -> NewJob {
        NewJob { unique_key: Some(key.into()), ..self }
    }

    /// Adds the job only if no other job of its kind has the same payload: the same JSON, whatever its layout.
    ///
    /// The unique key is a hash of the payload, so set the payload before.
    ///
    /// # Errors
    /// Invalid if the payload is nested more than 128 levels deep.
    pub fn unique_by_payload(mut self) -> Result<NewJob> {
        self.unique_key = Some(by_payload(&self.payload)?);
        Ok(self)
    }

    /// Adds the job only if there is no other job of its kind that is unique in this way.
    #[must_use]
    pub fn unique_by_kind(self) -> NewJob {
        self.unique_key(BY_KIND)
    }

    /// Says what happens to the job that holds the unique key already; default [`UniqueMode::Keep`].
    #[must_use]
    pub fn unique_mode(self, mode: UniqueMode) -> NewJob {
        NewJob { unique_mode: mode, ..self }
    }

    /// Says until when the job holds its unique key; default [`UniqueUntil::Finished`].
    #[must_use]
    pub fn unique_until(self, until: UniqueUntil) -> NewJob {
        NewJob { unique_until: until, ..self }
    }

    /// Says what the job belongs to, such as a tenant, 1 to 512 bytes.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> NewJob {
        NewJob { key: Some(key.into()), ..self }
    }

    /// Adds a label; a job has at most 64.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> NewJob {
        self.tags.push(tag.into());
        self
    }

    /// Replaces the job's metadata, by anything that serializes to a JSON object.
    ///
    /// # Errors
    /// Invalid if it serializes to something else, or to JSON that Postgres cannot store.
    pub fn metadata(self, metadata: &(impl Serialize + ?Sized)) -> Result<NewJob> {
        let metadata = Payload::encode_as("metadata", metadata)?;
        check_is_object(&metadata)?;
        Ok(NewJob { metadata: Some(metadata), ..self })
    }

    /// Says in whose handler the job is enqueued, by that job's id.
    #[must_use]
    pub fn parent(self, id: i64) -> NewJob {
        NewJob { parent_id: Some(id), ..self }
    }

    /// Sets one member of the job's metadata and leaves the others as they are stored: for a middleware.
    ///
    /// # Errors
    /// Invalid if the value does not serialize to JSON that Postgres can store, or the metadata is not a JSON object.
    pub fn set_metadata_member(&mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<()> {
        let value = Payload::encode_as("metadata", value)?;
        self.change_metadata(&[(name, Some(&value))])
    }

    /// The trace in which the job is enqueued, if its metadata holds one.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::of(self.metadata.as_ref()?)
    }

    /// Writes a trace context into the job's metadata, in place of the one that is there.
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

    /// Checks that a store can keep the job, and that its payload has at most `max_payload` bytes.
    ///
    /// # Errors
    /// Invalid, with the reason. The database would refuse such a job too, but that would end the caller's transaction.
    pub fn check(&self, max_payload: usize) -> Result<()> {
        self.check_payload(max_payload)?;
        check_name("queue", &self.queue)?;
        check_name("kind", &self.kind)?;
        check_key("unique_key", self.unique_key.as_deref())?;
        check_key("key", self.key.as_deref())?;
        if let UniqueUntil::Period(period) = self.unique_until {
            if self.unique_key.is_none() {
                return Err(Error::invalid("a job that is unique for a period needs a unique key; give it one"));
            }
            if period < Duration::from_micros(1) {
                return Err(Error::invalid(format!(
                    "the period in which a job is unique must be a microsecond or longer, not {period:?}"
                )));
            }
        }
        if self.max_attempts == 0 || self.max_attempts > i32::MAX as u32 {
            return Err(Error::invalid(format!("max_attempts must be 1 to {}, not {}", i32::MAX, self.max_attempts)));
        }
        self.timeout.map_or(Ok(()), check_timeout)?;
        if let Due::At(time) = self.due {
            check_time(time)?;
        }
        check_tags(&self.tags)?;
        if let Some(metadata) = &self.metadata {
            check_is_object(metadata)?;
            if metadata.written_len() > LARGEST_METADATA {
                return Err(Error::invalid(
                    "metadata is larger than 256 KiB (metadata_is_at_most_256_kib); keep large data elsewhere",
                ));
            }
        }
        Ok(())
    }

    fn check_payload(&self, max_payload: usize) -> Result<()> {
        let size = self.payload.as_bytes().len();
        if size > max_payload {
            return Err(Error::invalid(format!(
                "payload of {size} bytes is larger than the limit of {max_payload}; keep large data elsewhere and pass \
                 a reference, or raise the limit"
            )));
        }
        // The database's spaces at most double a text. To count them takes a look at each byte.
        if size > LARGEST_PAYLOAD / 2 && self.payload.written_len() > LARGEST_PAYLOAD {
            return Err(Error::invalid(format!(
                "payload of {size} bytes is larger than 8 MiB as Postgres writes it (payload_is_at_most_8_mib); keep \
                 large data elsewhere and pass a reference"
            )));
        }
        Ok(())
    }
}

/// Something that can be enqueued: a value of a [`Job`] type, or a [`NewJob`] for a kind that has no type here.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be enqueued",
    label = "neither a `Job` nor a `NewJob`",
    note = "implement `reveille::Job` for `{Self}`, or build a `reveille::job::NewJob` of a kind and a payload"
)]
pub trait Enqueueable {
    /// The job to enqueue.
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

/// Refuses the name of a queue or kind that the table's constraints would refuse.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if !(1..=128).contains(&name.chars().count()) {
        return Err(Error::invalid(format!("{what} must have 1 to 128 characters, not {}", name.chars().count())));
    }
    check_has_no_nul(what, name)
}

pub(crate) fn check_timeout(timeout: Duration) -> Result<()> {
    if timeout < Duration::from_micros(1) {
        return Err(Error::invalid(format!("timeout must be a microsecond or longer, not {timeout:?}")));
    }
    Ok(())
}

/// Refuses a time that Postgres cannot store. Its years are 4713 BC to 294276.
fn check_time(time: SystemTime) -> Result<()> {
    const YEAR: u64 = 31_557_600;
    let (earliest, latest) = (Duration::from_secs(6_600 * YEAR), Duration::from_secs(290_000 * YEAR));
    let is_storable = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after <= latest,
        Err(before) => before.duration() <= earliest,
    };
    if is_storable {
        return Ok(());
    }
    Err(Error::invalid("a job cannot be due at a time that Postgres cannot store; use a year of 4600 BC to 290000"))
}

fn check_key(what: &str, key: Option<&str>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    if !(1..=512).contains(&key.len()) {
        return Err(Error::invalid(format!("{what} must have 1 to 512 bytes, not {}", key.len())));
    }
    check_has_no_nul(what, key)
}

fn check_tags(tags: &[String]) -> Result<()> {
    if tags.len() > MOST_TAGS {
        return Err(Error::invalid(format!("a job has at most {MOST_TAGS} tags, not {}", tags.len())));
    }
    tags.iter().try_for_each(|tag| check_has_no_nul("a tag", tag))?;
    if tags.iter().map(String::len).sum::<usize>() > LARGEST_TAGS {
        return Err(Error::invalid("the tags of a job have at most 16 KiB together (tags_are_at_most_16_kib)"));
    }
    Ok(())
}

fn check_is_object(metadata: &Payload) -> Result<()> {
    match metadata.shape() {
        "an object" => Ok(()),
        shape => Err(Error::invalid(format!("metadata must be a JSON object, not {shape} (metadata_is_an_object)"))),
    }
}

fn check_has_no_nul(what: &str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::invalid(format!("{what} holds a NUL character, which Postgres cannot store; remove it")));
    }
    Ok(())
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
    fn a_job_that_the_table_would_refuse_is_refused_before() {
        type Break = fn(&mut NewJob);
        let breaks: [Break; 17] = [
            |job| job.queue.clear(),
            |job| job.kind = "k".repeat(129),
            |job| job.kind = "a\0b".into(),
            |job| job.unique_key = Some(String::new()),
            |job| job.unique_until = UniqueUntil::Period(Duration::from_secs(1)),
            |job| {
                (job.unique_key, job.unique_until) = (Some("k".into()), UniqueUntil::Period(Duration::from_nanos(999)))
            },
            |job| job.key = Some("k".repeat(513)),
            |job| job.max_attempts = 0,
            |job| job.timeout = Some(Duration::from_nanos(999)),
            |job| job.due = Due::At(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 62)),
            |job| job.due = Due::At(SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 62)),
            |job| job.tags = vec![String::new(); 65],
            |job| job.tags = vec!["\0".into()],
            |job| job.tags = vec!["t".repeat(257); 64],
            |job| job.metadata = Some(json("[1]")),
            |job| job.metadata = Some(json(&format!(r#"{{"m":"{}"}}"#, "x".repeat(262_144)))),
            |job| job.metadata = Some(json(&format!(r#"{{"m":[1{}]}}"#, ",1".repeat(88_000)))),
        ];
        assert!(job().check(MAX_PAYLOAD).is_ok());
        for break_it in breaks {
            let mut job = job();
            break_it(&mut job);
            assert!(job.check(MAX_PAYLOAD).unwrap_err().is_invalid(), "{job:?}");
        }
    }

    #[test]
    fn a_name_is_measured_in_characters_as_the_table_does() {
        assert!(job().queue("é".repeat(128)).check(MAX_PAYLOAD).is_ok());
    }

    #[test]
    fn a_payload_above_the_limit_is_refused_with_both_sizes() {
        let job = NewJob::new("kind", Payload::encode(&"x".repeat(100)).unwrap());
        let error = job.check(50).unwrap_err().to_string();
        assert!(error.contains("102") && error.contains("50"), "{error}");
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
