//! Checks that refuse a job before the table's constraints would refuse it.

use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::job::payload::Payload;
use crate::job::unique::UniqueUntil;
use crate::job::{Due, NewJob};

/// The largest payload that the table stores, in bytes: 8 MiB.
const LARGEST_PAYLOAD: usize = 8 * 1024 * 1024;
/// The largest metadata that the table stores, in bytes: 256 KiB.
const LARGEST_METADATA: usize = 256 * 1024;
/// The refusal of an event's name. The SQL function `emit` has the same text.
const RESERVED_EVENTS: &str = "names of events that begin with \"reveille:\" are reserved";
const MOST_TAGS: usize = 64;
/// The largest total size of a job's tags that the table stores, in bytes: 16 KiB.
const LARGEST_TAGS: usize = 16 * 1024;

impl NewJob {
    /// Checks that a store can keep the job, and that the payload has at most `max_payload` bytes.
    ///
    /// # Errors
    /// Invalid if a store cannot keep the job; the error says why. The database would refuse the job too, but its error
    /// would abort the caller's transaction.
    pub fn check(&self, max_payload: usize) -> Result<()> {
        self.check_payload(max_payload)?;
        check_name("queue", &self.queue)?;
        check_name("kind", &self.kind)?;
        check_key("unique_key", self.unique_key.as_deref())?;
        check_key("key", self.key.as_deref())?;
        if let UniqueUntil::Period(period) = self.unique_until {
            if self.unique_key.is_none() {
                return Err(Error::invalid("a job that is unique for a period must have a unique key; give it one"));
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
                    "a job's metadata must have at most 256 KiB (metadata_is_at_most_256_kib); keep large data \
                     elsewhere",
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
                 a reference, or raise the limit (max_payload)"
            )));
        }
        // Postgres writes JSON with spaces, which at most double a text. Counting the spaces means reading each byte,
        // so this is done only for payloads above half the limit.
        if size > LARGEST_PAYLOAD / 2 && self.payload.written_len() > LARGEST_PAYLOAD {
            return Err(Error::invalid(format!(
                "payload of {size} bytes is larger than 8 MiB as Postgres writes it (payload_is_at_most_8_mib); keep \
                 large data elsewhere and pass a reference"
            )));
        }
        Ok(())
    }
}

/// Refuses a name of a queue, a kind or a schedule that the table's constraints would refuse.
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

/// Refuses a time that Postgres cannot store. Postgres stores the years 4713 BC to AD 294276; the limits here are a
/// little narrower.
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
    Err(Error::invalid(
        "a job cannot be due at a time that Postgres cannot store; use a year from 4600 BC to AD 290000",
    ))
}

pub(crate) fn check_key(what: &str, key: Option<&str>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    if !(1..=512).contains(&key.len()) {
        return Err(Error::invalid(format!("{what} must have 1 to 512 bytes, not {}", key.len())));
    }
    check_has_no_nul(what, key)
}

/// Refuses a name of an event that a program may not use. The table would refuse it, too.
pub(crate) fn check_event(name: &str) -> Result<()> {
    check_key("an event's name", Some(name))?;
    if name.starts_with("reveille:") {
        return Err(Error::invalid(format!("{RESERVED_EVENTS}; give the event another name")));
    }
    Ok(())
}

fn check_tags(tags: &[String]) -> Result<()> {
    if tags.len() > MOST_TAGS {
        return Err(Error::invalid(format!("a job has at most {MOST_TAGS} tags, not {}", tags.len())));
    }
    tags.iter().try_for_each(|tag| check_has_no_nul("a tag", tag))?;
    if tags.iter().map(String::len).sum::<usize>() > LARGEST_TAGS {
        return Err(Error::invalid("a job's tags must have at most 16 KiB together (tags_are_at_most_16_kib)"));
    }
    Ok(())
}

pub(super) fn check_is_object(metadata: &Payload) -> Result<()> {
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
    use crate::job::MAX_PAYLOAD;

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
}
