//! What keeps a second job of a kind away: a key, until when it is held, and what happens to the job that holds it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::job::payload::Payload;

/// What happens when another job of the same kind holds the unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UniqueMode {
    /// It is left as it is.
    #[default]
    Keep,
    /// If it waits, it gets the new payload, tags and metadata.
    Replace,
    /// If it waits, it gets the new payload, tags, metadata and due time.
    Debounce,
}

/// Until when a job holds its unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UniqueUntil {
    /// Until it is first started.
    Started,
    /// Until it has ended: completed, cancelled or dead.
    #[default]
    Finished,
    /// Until it has ended and this long has passed since it was enqueued.
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
    /// As `reveille.enqueue` takes it.
    pub(crate) fn name(self) -> Cow<'static, str> {
        match self {
            UniqueUntil::Started => "started".into(),
            UniqueUntil::Finished => "finished".into(),
            UniqueUntil::Period(period) => {
                let period = period.min(MILLENNIUM);
                // Before version 15 an interval has no more seconds than an int holds.
                let (hours, seconds) = (period.as_secs() / 3600, period.as_secs() % 3600);
                format!("{hours} hours {seconds}.{:06} seconds", period.subsec_micros()).into()
            }
        }
    }
}

/// A longer period is as good as this one.
const MILLENNIUM: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// The unique key of a job that is to be the only one of its kind.
pub(crate) const BY_KIND: &str = "kind";

/// How deep it may be.
const DEEPEST: usize = 128;

/// The unique key of a job that is to be the only one of its kind with its payload: the same for all ways to write the
/// same JSON.
pub(crate) fn by_payload(payload: &Payload) -> Result<String> {
    let mut hash = Sha256::new();
    let json = serde_json::from_slice(payload.as_bytes()).map_err(unreadable)?;
    canonical(json, DEEPEST, &mut |text| hash.update(text))?;
    let mut key = "payload:".to_owned();
    for byte in hash.finalize() {
        // Into a string nothing fails.
        let _ = write!(key, "{byte:02x}");
    }
    Ok(key)
}

/// Objects in the order of their names, strings with the least escapes, nothing between; numbers as they are written.
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
    Error::invalid(format!("a job cannot be unique by a payload that cannot be read: {error}"))
}

fn too_deep() -> Error {
    Error::invalid(format!("a job cannot be unique by a payload of more than {DEEPEST} levels; give it a unique key"))
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
    fn the_same_json_has_one_key_however_it_is_written() {
        let plain = r#"{"a":[1,"é",null,{"c":true,"d":{}}],"b":1.50}"#;
        let other = " {\"b\": 1.50, \"a\" : [1, \"\\u00e9\", null,\n{\"d\":{ },\"c\":true}] }";
        assert_eq!(written(other), plain);
        assert_eq!(key(plain), key(other));
        assert_eq!(key(plain).len(), "payload:".len() + 64);
    }

    #[test]
    fn the_key_of_a_payload_stays_what_it_is() {
        // Another one would let a second job in beside each that is there when a program is updated.
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
    fn a_payload_without_end_is_refused() {
        let nested = |levels| Payload::parse(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
        assert!(by_payload(&nested(128).unwrap()).is_ok());
        for levels in [129, 1000] {
            assert!(by_payload(&nested(levels).unwrap()).unwrap_err().to_string().contains("128 levels"));
        }
        assert!(nested(100_000).unwrap_err().is_invalid());
    }

    #[test]
    fn a_period_is_written_as_the_server_reads_it() {
        assert_eq!(UniqueUntil::Period(Duration::from_millis(90_500)).name(), "0 hours 90.500000 seconds");
        assert_eq!(UniqueUntil::Period(Duration::MAX).name(), "8760000 hours 0.000000 seconds");
    }
}
