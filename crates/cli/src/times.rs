//! Times: in the reader's zone for people, in UTC for machines.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Turns an ISO time with a zone into the reader's zone: `2026-11-23 08:59:58+01:00`. Returns `None` for other texts.
///
/// The variable TZ or the system sets the reader's zone.
pub fn here(text: &str) -> Option<String> {
    Some(parse(text)?.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string())
}

/// Turns the JSON of a time into UTC, in the server's form: `"2026-11-23T07:59:58.5+00:00"`. Returns `None` for other
/// JSON.
///
/// The server writes a time in the zone of its session, and the database or the role may set any zone.
pub fn in_utc(json: &str) -> Option<String> {
    let time = parse(json.strip_prefix('"')?.strip_suffix('"')?)?;
    Some(format!("\"{}\"", time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.f%:z")))
}

/// Returns true if a column with this name holds times. Other columns may hold any text of a user.
pub fn is_time(column: &str) -> bool {
    column.ends_with("_at") || column.ends_with("_since") || column == "last_seen"
}

fn parse(text: &str) -> Option<Timestamp> {
    // This quick test avoids the parsing of most texts.
    let is_likely = text.len() >= 20 && text.as_bytes().get(10) == Some(&b'T');
    is_likely.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_times_in_utc() {
        let utc = |text: &str| in_utc(&format!("\"{text}\""));
        assert_eq!(utc("2026-11-23T08:59:58.1+05:30").unwrap(), "\"2026-11-23T03:29:58.1+00:00\"");
        assert_eq!(utc("2026-11-23T08:59:58+00:00").unwrap(), "\"2026-11-23T08:59:58+00:00\"");
        assert_eq!([utc("infinity"), utc("2026-11-23T08:59:58 is early"), in_utc("7")], [None, None, None]);
    }
}
