//! The W3C's trace context: a position in a distributed trace.

use std::fmt;

use crate::error::{Error, Result};
use crate::job::payload::Payload;

/// The members of a job's metadata that hold the trace context. They are named like the W3C's headers.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// A position in a distributed trace, in the [W3C's format](https://www.w3.org/TR/trace-context/): `traceparent`, and
/// optionally `tracestate`, which holds further values of tracing systems.
///
/// A job's metadata holds the trace context under these two names, so a caller in any language can set them: `select
/// reveille.enqueue(kind => 'hello', metadata => '{"traceparent": "00-…"}')`. In a handler,
/// [`Context::trace`](crate::Context::trace) reads the trace context.
///
/// ```
/// use reveille::job::TraceContext;
///
/// let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("shop=7"))?;
/// assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
/// assert_eq!(trace.parent_id(), "b7ad6b7169203331");
/// assert!(trace.is_sampled());
/// # Ok::<(), reveille::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// Reads the values of the two headers. A malformed `tracestate` is left out, as the W3C demands.
    ///
    /// # Errors
    /// Invalid if `traceparent` is malformed, or has an id of zeros only, which names no trace.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Result<TraceContext> {
        if !is_traceparent(traceparent.as_bytes()) {
            return Err(Error::invalid(format!(
                "traceparent {:?} must be 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, with no id of zeros",
                traceparent.chars().take(80).collect::<String>()
            )));
        }
        let tracestate = tracestate.filter(|state| is_tracestate(state)).map(str::to_owned);
        Ok(TraceContext { traceparent: traceparent.to_owned(), tracestate })
    }

    /// Reads the trace context in a job's metadata; `None` if there is no trace context, or if it is malformed.
    ///
    /// Only the two members of the trace context are decoded, so the other members may be any JSON.
    pub fn of(metadata: &Payload) -> Option<TraceContext> {
        let text = |key| metadata.member::<String>(key).ok().flatten();
        TraceContext::parse(&text(TRACEPARENT)?, text(TRACESTATE).as_deref()).ok()
    }

    /// Returns the two members of a job's metadata that hold the trace context.
    pub(super) fn members(&self) -> Result<[(&'static str, Option<Payload>); 2]> {
        let state = self.tracestate.as_ref().map(Payload::encode).transpose()?;
        Ok([(TRACEPARENT, Some(Payload::encode(&self.traceparent)?)), (TRACESTATE, state)])
    }

    /// The id of the trace: 32 hex digits.
    pub fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }

    /// The id of the span that is the parent of the work: 16 hex digits.
    pub fn parent_id(&self) -> &str {
        self.traceparent.get(36..52).unwrap_or_default()
    }

    /// True if the program that began the trace records the trace.
    pub fn is_sampled(&self) -> bool {
        let flags = self.traceparent.get(53..55).and_then(|flags| u8::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & 1 == 1)
    }

    /// The text of the header `traceparent`.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// The text of the header `tracestate`.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent)
    }
}

/// True if the text is `version-traceid-parentid-flags` in lower-case hex. Versions after 00 may have more text behind
/// another dash.
fn is_traceparent(text: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        text.get(range).is_some_and(|digits| digits.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
    };
    let zero = |range: std::ops::Range<usize>| text.get(range).is_some_and(|id| id.iter().all(|&c| c == b'0'));
    let dash = |at: usize| text.get(at) == Some(&b'-');
    let long_enough = if text.starts_with(b"00") { text.len() == 55 } else { text.len() == 55 || dash(55) };
    let fields = hex(0..2) && dash(2) && hex(3..35) && dash(35) && hex(36..52) && dash(52) && hex(53..55);
    long_enough && fields && !text.starts_with(b"ff") && !zero(3..35) && !zero(36..52)
}

/// True if the text is 1 to 32 members `name=value` with commas between, and no name occurs twice.
fn is_tracestate(text: &str) -> bool {
    let members: Vec<&str> = text.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    let keys: Option<Vec<&str>> =
        members.iter().filter(|member| !member.is_empty()).map(|member| key_of(member)).collect();
    keys.is_some_and(|mut keys| {
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        (1..=32).contains(&count) && keys.len() == count
    })
}

/// Returns the name of a well-formed member: `vendor` or `tenant@vendor`.
fn key_of(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let rest = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-*/".contains(&c);
    let name = |text: &str, most: usize, digit_first: bool| {
        let first = text.bytes().next();
        let begins = first.is_some_and(|c| c.is_ascii_lowercase() || (digit_first && c.is_ascii_digit()));
        begins && text.len() <= most && text.bytes().all(rest)
    };
    let named = match key.split_once('@') {
        Some((tenant, vendor)) => name(tenant, 241, true) && name(vendor, 14, false),
        None => name(key, 256, false),
    };
    let printable = |c: u8| matches!(c, 0x20..=0x7e) && c != b',' && c != b'=';
    let valued = (1..=256).contains(&value.len()) && value.bytes().all(printable) && !value.ends_with(' ');
    (named && valued).then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn is_accepted(traceparent: &str) -> bool {
        TraceContext::parse(traceparent, None).is_ok()
    }

    #[test]
    fn a_traceparent_is_accepted_as_the_w3c_defines_it() {
        assert!(is_accepted(PARENT));
        assert!(is_accepted(&PARENT.replace("-01", "-00")));
        assert!(is_accepted(&PARENT.replace("00-", "cc-")), "a later version of the same length");
        assert!(is_accepted(&format!("cc{}-what-the-future-brings", &PARENT[2..])));
        for malformed in [
            String::new(),
            PARENT.to_uppercase(),
            format!("{PARENT}-more"),
            format!("cc{}.more", &PARENT[2..]),
            PARENT.replace("00-", "ff-"),
            PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            PARENT.replace("-01", "-0g"),
            PARENT.replacen('-', "_", 1),
            PARENT[1..].to_owned(),
            "é".repeat(30),
        ] {
            assert!(!is_accepted(&malformed), "{malformed}");
        }
    }

    #[test]
    fn a_malformed_tracestate_is_left_out_and_the_parent_stays() {
        let state = |text: &str| TraceContext::parse(PARENT, Some(text)).unwrap().tracestate().map(str::to_owned);
        for valid in ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1,, b=2 , ", "7t@v=x y", "a_-*/9=!"] {
            assert_eq!(state(valid).as_deref(), Some(valid));
        }
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long = format!("a={}", "x".repeat(257));
        for bad in ["", ",", "a", "A=1", "=1", "a=", "a=1,a=2", "a=b=c", "9a=1", "t@9=1", "a=é", &many, &long] {
            assert_eq!(state(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(parent in ".{0,80}", state in ".*") {
            let _ = TraceContext::parse(&parent, Some(&state));
            prop_assert!(TraceContext::parse(PARENT, Some(&state)).is_ok());
        }
    }
}
