//! A job about to be enqueued, and what is refused of it.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::job::payload::Payload;
use crate::job::unique::{BY_KIND, UniqueMode, UniqueUntil, by_payload};
use crate::job::{Job, Priority};

/// When a new job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// This long after the database's clock says now.
    In(Duration),
    /// At this time by the database's clock.
    At(SystemTime),
}

/// A job about to be enqueued. Its fields are the columns of `reveille.jobs` that a caller may set.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The queue it goes to, 1 to 128 characters.
    pub queue: String,
    /// Which handler runs it, 1 to 128 characters.
    pub kind: String,
    /// What the handler gets.
    pub payload: Payload,
    /// What runs first.
    pub priority: Priority,
    /// When it may start.
    pub due: Due,
    /// At how many failures it is dead; at least 1.
    pub max_attempts: u32,
    /// How long one attempt may take; `None`: as its kind says.
    pub timeout: Option<Duration>,
    /// At most one job of a kind holds this key, 1 to 512 bytes.
    pub unique_key: Option<String>,
    /// What happens to the one that holds it.
    pub unique_mode: UniqueMode,
    /// Until when it holds it.
    pub unique_until: UniqueUntil,
    /// What it belongs to, for limits and order per key; 1 to 512 bytes.
    pub key: Option<String>,
    /// Free labels, at most 64 of 16 KiB together.
    pub tags: Vec<String>,
    /// Free facts about the job, at most 256 KiB.
    pub metadata: Option<Map<String, Value>>,
    /// The job in whose handler it is enqueued. Left `None`, it is set where that is known, as `enqueue` says.
    pub parent_id: Option<i64>,
}

/// Payloads above this many bytes are refused unless the caller raises the limit: 1 MiB.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// However large the caller's limit is, no payload of more bytes is stored: 8 MiB.
pub(crate) const LARGEST_PAYLOAD: usize = 8 * 1024 * 1024;
/// Nor metadata of more: 256 KiB.
const LARGEST_METADATA: usize = 256 * 1024;
/// Nor tags of more bytes together: 16 KiB.
const LARGEST_TAGS: usize = 16 * 1024;

impl NewJob {
    /// A job of a kind with a payload and the defaults for everything else.
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

    /// The job that a typed value stands for, with the defaults of its kind.
    pub fn of<J: Job>(job: &J) -> Result<NewJob> {
        Ok(NewJob {
            queue: J::QUEUE.into(),
            priority: J::PRIORITY,
            max_attempts: J::MAX_ATTEMPTS,
            ..NewJob::new(J::KIND, Payload::encode(job)?)
        })
    }

    /// With a unique key made of its payload: the only one of its kind with the same JSON, however it is written.
    ///
    /// # Errors
    /// Invalid if the payload is nested more than 128 levels deep.
    pub fn unique_by_payload(mut self) -> Result<NewJob> {
        self.unique_key = Some(by_payload(&self.payload)?);
        Ok(self)
    }

    /// With a unique key that is the same for all: the only one of its kind.
    pub fn unique_by_kind(mut self) -> NewJob {
        self.unique_key = Some(BY_KIND.into());
        self
    }

    /// Checks that a store can keep the job, and that its payload has at most `max_payload` bytes.
    ///
    /// # Errors
    /// Invalid, with the reason.
    pub fn check(&self, max_payload: usize) -> Result<()> {
        let size = self.payload.as_bytes().len();
        if size > max_payload {
            return Err(Error::invalid(format!(
                "payload of {size} bytes is larger than the limit of {max_payload}; keep large data elsewhere and pass a reference, or raise the limit"
            )));
        }
        // As the database measures it, which takes a look at each byte.
        if size > LARGEST_PAYLOAD / 2 && self.payload.written_len() > LARGEST_PAYLOAD {
            return Err(Error::invalid(format!(
                "payload of {size} bytes is larger than can be stored (payload_is_at_most_8_mib); pass a reference instead"
            )));
        }
        check_name("queue", &self.queue)?;
        check_name("kind", &self.kind)?;
        check_key("unique_key", self.unique_key.as_deref())?;
        check_key("key", self.key.as_deref())?;
        if let UniqueUntil::Period(period) = self.unique_until {
            if self.unique_key.is_none() {
                return Err(Error::invalid("a job is unique for a period only by something: give it a unique key"));
            }
            if period < Duration::from_micros(1) {
                return Err(Error::invalid("the period in which a job is unique must be a microsecond or longer"));
            }
        }
        if self.max_attempts == 0 || self.max_attempts > i32::MAX as u32 {
            return Err(Error::invalid(format!("max_attempts must be 1 to {}", i32::MAX)));
        }
        self.timeout.map_or(Ok(()), check_timeout)?;
        if let Due::At(time) = self.due {
            check_time(time)?;
        }
        if self.tags.len() > 64 {
            return Err(Error::invalid(format!("a job has at most 64 tags, not {}", self.tags.len())));
        }
        if self.tags.iter().any(|tag| tag.contains('\0')) {
            return Err(Error::invalid("a tag holds a NUL character, which Postgres cannot store"));
        }
        if self.tags.iter().map(String::len).sum::<usize>() > LARGEST_TAGS {
            return Err(Error::invalid("the tags of a job have at most 16 KiB together (tags_are_at_most_16_kib)"));
        }
        if let Some(metadata) = &self.metadata {
            let metadata = Payload::encode_as("metadata", metadata)?;
            if metadata.written_len() > LARGEST_METADATA {
                return Err(Error::invalid("metadata is at most 256 KiB (metadata_is_at_most_256_kib)"));
            }
        }
        Ok(())
    }
}

/// What can be enqueued: a value of a [`Job`] type, or a [`NewJob`] for kinds that have no type here.
pub trait Enqueueable {
    #[doc(hidden)]
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

/// Refuses a queue's or kind's name that the table's constraints would refuse.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if !(1..=128).contains(&name.chars().count()) {
        return Err(Error::invalid(format!("{what} must have 1 to 128 characters, not {}", name.chars().count())));
    }
    if name.contains('\0') {
        return Err(Error::invalid(format!("{what} holds a NUL character, which Postgres cannot store")));
    }
    Ok(())
}

/// Refuses a timeout that is over before its attempt begins.
pub(crate) fn check_timeout(timeout: Duration) -> Result<()> {
    if timeout < Duration::from_micros(1) {
        return Err(Error::invalid("timeout must be a microsecond or longer"));
    }
    Ok(())
}

/// Refuses a time that Postgres cannot store: it knows the years from 4713 BC to 294276.
fn check_time(time: SystemTime) -> Result<()> {
    const YEAR: u64 = 31_557_600;
    let (earliest, latest) = (Duration::from_secs(6_600 * YEAR), Duration::from_secs(290_000 * YEAR));
    let is_storable = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after <= latest,
        Err(before) => before.duration() <= earliest,
    };
    if is_storable { Ok(()) } else { Err(Error::invalid("a job cannot be due at a time that Postgres cannot store")) }
}

fn check_key(what: &str, key: Option<&str>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    if !(1..=512).contains(&key.len()) {
        return Err(Error::invalid(format!("{what} must have 1 to 512 bytes, not {}", key.len())));
    }
    if key.contains('\0') {
        return Err(Error::invalid(format!("{what} holds a NUL character, which Postgres cannot store")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> NewJob {
        NewJob::new("kind", Payload::encode(&()).unwrap())
    }

    #[test]
    fn what_the_table_would_refuse_is_refused_before() {
        type Spoil = fn(&mut NewJob);
        let spoils: [Spoil; 16] = [
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
            |job| job.metadata = Some(Map::from_iter([("m".into(), "x".repeat(262_144).into())])),
            |job| job.metadata = Some(Map::from_iter([("m".into(), vec![1; 88_000].into())])),
        ];
        assert!(job().check(MAX_PAYLOAD).is_ok());
        for spoil in spoils {
            let mut job = job();
            spoil(&mut job);
            assert!(job.check(MAX_PAYLOAD).unwrap_err().is_invalid(), "{job:?}");
        }
    }

    #[test]
    fn a_name_is_measured_in_characters_as_the_table_does() {
        let mut job = job();
        job.queue = "é".repeat(128);
        assert!(job.check(MAX_PAYLOAD).is_ok());
    }

    #[test]
    fn a_payload_above_the_limit_is_refused_with_both_sizes() {
        let job = NewJob::new("kind", Payload::encode(&"x".repeat(100)).unwrap());
        let error = job.check(50).unwrap_err().to_string();
        assert!(error.contains("102") && error.contains("50"), "{error}");
    }
}
