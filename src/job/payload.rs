//! Payloads: JSON text, which is decoded only where its value is needed.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::error::{Error, Result};

/// A job's payload: JSON text, which is decoded when the job's handler runs.
///
/// A claim decodes no payload. A payload that cannot be decoded therefore fails only its own job, and the payload of a
/// kind without a handler is never decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Box<[u8]>);

impl Payload {
    /// Encodes a value as JSON.
    ///
    /// # Errors
    /// Invalid if the value does not serialize to JSON, or holds a NUL character, which Postgres cannot store.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload> {
        Payload::encode_as("payload", value)
    }

    /// Encodes a value as JSON. Errors call the value `name`.
    pub(crate) fn encode_as<T: Serialize + ?Sized>(name: &str, value: &T) -> Result<Payload> {
        let json = serde_json::to_vec(value).map_err(|error| Error::invalid(format!("{name} is not JSON: {error}")))?;
        Payload::from_json(name, json)
    }

    /// Makes a payload of JSON text, which is kept byte for byte.
    ///
    /// # Errors
    /// Invalid if the text is not JSON, or is JSON that Postgres cannot store: with a NUL character, with half of a
    /// surrogate pair, with a number of more than 131,072 digits, or nested more than 1,000 levels deep.
    pub fn parse(json: &str) -> Result<Payload> {
        serde_json::from_str::<serde::de::IgnoredAny>(json)
            .map_err(|error| Error::invalid(format!("payload is not JSON: {error}")))?;
        if let Some(why) = crate::job::storable::refusal(json.as_bytes()) {
            return Err(Error::invalid(format!("payload {why}, which Postgres cannot store; change it")));
        }
        Payload::from_json("payload", json.as_bytes().to_vec())
    }

    fn from_json(name: &str, json: Vec<u8>) -> Result<Payload> {
        if holds_nul(&json) {
            return Err(Error::invalid(format!(
                "{name} holds a NUL character (\\u0000), which Postgres cannot store; remove it"
            )));
        }
        Ok(Payload(json.into()))
    }

    /// Makes a payload of JSON that this crate has written from checked parts.
    pub(crate) fn from_written(json: Vec<u8>) -> Payload {
        Payload(json.into())
    }

    /// Makes a payload of JSON text from the database, which needs no check.
    pub(crate) fn from_stored(json: &str) -> Payload {
        Payload(json.as_bytes().into())
    }

    /// Decodes the JSON to a value.
    pub fn decode<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.0)
    }

    /// Decodes one member of a JSON object; `None` if the object has no member of this name.
    ///
    /// Only this member is decoded, so the call succeeds even if another member is nested too deep or holds too large a
    /// number.
    ///
    /// # Errors
    /// Fails if the JSON is not an object, or if the member does not decode to the type.
    pub fn member<T: DeserializeOwned>(&self, name: &str) -> serde_json::Result<Option<T>> {
        let members: BTreeMap<String, &RawValue> = serde_json::from_slice(&self.0)?;
        members.get(name).map(|member| serde_json::from_str(member.get())).transpose()
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the JSON object with changed members: a member whose new value is `None` is removed. The other members
    /// keep their text.
    ///
    /// # Errors
    /// Invalid if the JSON is not an object. The error calls the JSON `what`.
    pub(crate) fn with_members(&self, what: &str, changes: &[(&str, Option<&Payload>)]) -> Result<Payload> {
        let unreadable = |error| Error::invalid(format!("{what} must be a JSON object to get a member: {error}"));
        let mut members: BTreeMap<String, &RawValue> = serde_json::from_slice(&self.0).map_err(unreadable)?;
        for (name, value) in changes {
            match value {
                Some(value) => {
                    let value = serde_json::from_slice(&value.0).map_err(unreadable)?;
                    members.insert((*name).to_owned(), value);
                }
                None => drop(members.remove(*name)),
            }
        }
        Payload::encode_as(what, &members)
    }

    /// Returns the type of the JSON value for an error, such as `an object`.
    pub(crate) fn shape(&self) -> &'static str {
        match self.0.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    /// Returns the approximate number of bytes of the text that Postgres writes for this JSON. Postgres writes a space
    /// after each comma and colon, and no other spaces.
    pub(crate) fn written_len(&self) -> usize {
        let (mut written, mut in_string, mut escaped) = (0, false, false);
        for &byte in &self.0 {
            written += match byte {
                _ if in_string => 1,
                b',' | b':' => 2,
                b' ' | b'\n' | b'\r' | b'\t' => 0,
                _ => 1,
            };
            in_string = if escaped { in_string } else { in_string != (byte == b'"') };
            escaped = in_string && byte == b'\\' && !escaped;
        }
        written
    }
}

/// True if the JSON text has the escape `\u0000`. An escaped backslash before `u0000` is not this escape.
fn holds_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        if rest[at..].starts_with(b"\\u0000") {
            return true;
        }
        rest = &rest[(at + 2).min(rest.len())..];
    }
    false
}

impl Serialize for Payload {
    /// Writes the JSON text unchanged. Only the serializers of `serde_json` can do this.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_slice(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl fmt::Debug for Payload {
    /// Writes only the length, since payloads stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// The first byte of a `jsonb` on the wire: the version of its format. In version 1 the rest is text.
const JSONB_VERSION: u8 = 1;

impl<'a> FromSql<'a> for Payload {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Payload, Box<dyn std::error::Error + Sync + Send>> {
        match raw.split_first() {
            Some((&JSONB_VERSION, json)) => Ok(Payload(json.into())),
            _ => Err("the server sent jsonb in an unknown format; only version 1 can be read".into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }
}

impl ToSql for Payload {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&[JSONB_VERSION]);
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_refused_and_an_escaped_backslash_is_not() {
        assert!(Payload::encode("a\0b").unwrap_err().is_invalid());
        assert!(Payload::parse(r#""\u0000""#).unwrap_err().is_invalid());
        assert!(Payload::parse(r#""\\u0000""#).is_ok());
        assert!(Payload::parse(r#""\\\u0000""#).is_err());
    }

    #[test]
    fn the_written_length_is_that_of_the_databases_text() {
        for (json, written) in [
            (r#"{"a":[1,2,{}],"b":null}"#, r#"{"a": [1, 2, {}], "b": null}"#),
            ("[ 1 ,\n2 ]", "[1, 2]"),
            (r#"{"a,:\" ,":"\\","c":" : "}"#, r#"{"a,:\" ,": "\\", "c": " : "}"#),
        ] {
            assert_eq!(Payload::parse(json).unwrap().written_len(), written.len(), "{json}");
        }
    }

    #[test]
    fn malformed_json_is_refused_with_its_line_and_column() {
        let error = Payload::parse(r#"{"a": }"#).unwrap_err();
        assert!(error.to_string().contains("line 1 column 7"), "{error}");
    }

    #[test]
    fn a_payload_stays_out_of_debug_output() {
        assert_eq!(format!("{:?}", Payload::encode("secret").unwrap()), "Payload(8 bytes)");
    }
}
