//! Unique keys: the time until which a job holds its unique key, and the change that a second enqueue makes to this
//! job.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::job::payload::Payload;

/// The change that an enqueue makes to the job of the same kind that already holds the unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UniqueMode {
    /// The job stays unchanged.
    #[default]
    Keep,
    /// If the job waits, the job gets the new payload, tags and metadata. A job that is running or has ended stays
    /// unchanged.
    Replace,
    /// If the job waits, the job gets the new payload, tags, metadata and due time. A job that is running or has ended
    /// stays unchanged.
    Debounce,
}

/// The time until which a job holds its unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UniqueUntil {
    /// Until the job first starts.
    Started,
    /// Until the job has ended: completed, cancelled or dead.
    #[default]
    Finished,
    /// Until the job has ended and this time has passed since the job's enqueue.
    Period(Duration),
}

impl UniqueMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            UniqueMode::Keep => "keep",
            UniqueMode::Replace => "replace",
            UniqueMode::Debounce => "debounce",
        }
    }
}

impl UniqueUntil {
    /// Returns the argument for `reveille.enqueue`: a name or an interval.
    pub(crate) fn name(self) -> Cow<'static, str> {
        match self {
            UniqueUntil::Started => "started".into(),
            UniqueUntil::Finished => "finished".into(),
            UniqueUntil::Period(period) => {
                let period = period.min(MILLENNIUM);
                // The hours are written separately, because an interval's seconds must fit an `int` before version 15
                // of Postgres.
                let (hours, seconds) = (period.as_secs() / 3600, period.as_secs() % 3600);
                format!("{hours} hours {seconds}.{:06} seconds", period.subsec_micros()).into()
            }
        }
    }
}

/// The longest period: a thousand years. A longer period is shortened to this one.
const MILLENNIUM: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// The unique key of a job that is unique by its kind.
pub(crate) const BY_KIND: &str = "kind";

/// The deepest nesting of a payload by which a job can be unique.
const DEEPEST: usize = 128;

/// Returns the unique key of a job that is unique by its payload. All layouts of the same JSON have the same unique
/// key.
pub(crate) fn by_payload(payload: &Payload) -> Result<String> {
    let mut hash = Sha256::new();
    let json = serde_json::from_slice(payload.as_bytes()).map_err(unreadable)?;
    canonical(json, DEEPEST, &mut |text| hash.update(text))?;
    let mut key = "payload:".to_owned();
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    Ok(key)
}

/// Writes JSON in a canonical layout: members in the order of their names, strings with the fewest escapes, and no
/// spaces. Numbers keep their text.
fn canonical(json: &RawValue, deepest: usize, out: &mut impl FnMut(&str)) -> Result<()> {
    let (text, deepest) = (json.get(), deepest.checked_sub(1).ok_or_else(too_deep)?);
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(unreadable)?;
            out("{");
            for (place, (name, value)) in members.into_iter().enumerate() {
                out(if place > 0 { "," } else { "" });
                out(&serde_json::to_string(&name).map_err(unreadable)?);
                out(":");
                canonical(value, deepest, out)?;
            }
            out("}");
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(unreadable)?;
            out("[");
            for (place, item) in items.into_iter().enumerate() {
                out(if place > 0 { "," } else { "" });
                canonical(item, deepest, out)?;
            }
            out("]");
        }
        Some(b'"') => {
            let string: String = serde_json::from_str(text).map_err(unreadable)?;
            out(&serde_json::to_string(&string).map_err(unreadable)?);
        }
        _ => out(text),
    }
    Ok(())
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::invalid(format!("a job cannot be unique by a payload that cannot be read: {error}; give it a unique key"))
}

fn too_deep() -> Error {
    Error::invalid(format!(
        "a job cannot be unique by a payload that is nested more than {DEEPEST} levels deep; give it a unique key"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(json: &str) -> String {
        by_payload(&Payload::parse(json).unwrap()).unwrap()
    }

    fn written(json: &str) -> String {
        let mut text = String::new();
        canonical(serde_json::from_str(json).unwrap(), DEEPEST, &mut |part| text.push_str(part)).unwrap();
        text
    }

    #[test]
    fn the_same_json_has_one_key_whatever_its_layout() {
        let plain = r#"{"a":[1,"é",null,{"c":true,"d":{}}],"b":1.50}"#;
        let other = " {\"b\": 1.50, \"a\" : [1, \"\\u00e9\", null,\n{\"d\":{ },\"c\":true}] }";
        assert_eq!(written(other), plain);
        assert_eq!(key(plain), key(other));
        assert_eq!(key(plain).len(), "payload:".len() + 64);
    }

    #[test]
    fn the_key_of_a_payload_never_changes() {
        // An update of the program must not change the unique key. Otherwise each stored job could be enqueued a second
        // time.
        let key = key(r#"{"user_id":7}"#);
        assert_eq!(key, "payload:2820d74979efad7d71d9e6fb6c5d53c7f5c8eeed822a63f19a6b01081d2d6837");
    }

    #[test]
    fn other_json_has_another_key() {
        let texts = [
            "1",
            "1.0",
            "\"1\"",
            "[1]",
            "[[1]]",
            "[1,1]",
            "{\"1\":1}",
            "null",
            "\"null\"",
            "{}",
            "[]",
            "\"\"",
            "12345678901234567890123",
            "12345678901234567890124",
        ];
        let keys: std::collections::BTreeSet<String> = texts.iter().map(|text| key(text)).collect();
        assert_eq!(keys.len(), texts.len());
    }

    #[test]
    fn a_payload_nested_too_deep_is_refused() {
        let nested = |levels| Payload::parse(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
        assert!(by_payload(&nested(128).unwrap()).is_ok());
        for levels in [129, 1000] {
            assert!(by_payload(&nested(levels).unwrap()).unwrap_err().to_string().contains("128 levels"));
        }
        assert!(nested(100_000).unwrap_err().is_invalid());
    }

    #[test]
    fn a_period_is_written_as_an_interval() {
        assert_eq!(UniqueUntil::Period(Duration::from_millis(90_500)).name(), "0 hours 90.500000 seconds");
        assert_eq!(UniqueUntil::Period(Duration::MAX).name(), "8760000 hours 0.000000 seconds");
    }
}
