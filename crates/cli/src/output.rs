//! All output of the command: tables for people, one JSON object per line for machines. No other module writes to
//! stdout or stderr, so that no text from jobs, servers or arguments can control a terminal (see
//! `docs/design/output.md`).

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use reveille::admin::Record;
use serde_json::value::RawValue;
use tracing::field::Field;
use tracing_subscriber::fmt::format::Writer;

/// Prints records: with `json` one JSON object per line, else a table of the named columns.
pub fn print<'a>(records: impl IntoIterator<Item = &'a Record>, columns: &[&str], json: bool) -> io::Result<()> {
    let mut records = records.into_iter();
    if json {
        return records.try_for_each(json_line);
    }
    print_rows(columns, records.map(|record| columns.iter().map(|column| cell(record.get(column))).collect()))
}

/// Prints a table of cells.
pub fn print_rows(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.replace('_', " ")));
    for row in rows {
        table.add_row(row);
    }
    table.lines().try_for_each(|row| line(row.trim_end()))
}

/// Prints one record, with one line per column and one line per failed attempt.
pub fn print_one(record: &Record, json: bool) -> io::Result<()> {
    if json {
        return json_line(record);
    }
    let width = record.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in record.iter().filter(|(name, value)| *value != "null" && *name != "errors") {
        line(format_args!("{name:width$}  {}", cell(Some(value))))?;
    }
    for error in record.decode::<Vec<Box<RawValue>>>("errors").unwrap_or_default() {
        let error: BTreeMap<String, Box<RawValue>> = serde_json::from_str(error.get()).unwrap_or_default();
        let field = |name| cell(error.get(name).map(|value| value.get()));
        let (at, attempt, reason) = (field("at"), field("attempt"), field("reason"));
        line(format_args!("{:width$}  {at} attempt {attempt}, {reason}: {}", "error", field("error")))?;
    }
    Ok(())
}

/// Prints one line of text or JSON on stdout.
pub fn line(text: impl Display) -> io::Result<()> {
    to_stdout(&plain(&text.to_string()))
}

/// Prints JSON on one line of stdout, without blanks. Numbers and strings stay unchanged.
pub fn json_line(json: impl Display) -> io::Result<()> {
    line(compact(&json.to_string()))
}

fn compact(json: &str) -> String {
    let (mut is_string, mut is_escaped) = (false, false);
    let is_kept = |c: &char| {
        let is_blank = !is_string && matches!(c, ' ' | '\t' | '\n' | '\r');
        is_string ^= *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        !is_blank
    };
    json.chars().filter(is_kept).collect()
}

/// Prints several lines on stdout. The caller must have passed all text from jobs, servers and arguments through
/// [`plain`].
pub fn lines(text: impl Display) -> io::Result<()> {
    let text = text.to_string();
    to_stdout(&text.split('\n').map(plain).collect::<Vec<_>>().join("\n"))
}

/// Prints text that other programs read, such as metrics. On a terminal, control characters become escapes. Elsewhere
/// the text stays unchanged, because its format has its own escapes.
pub fn page(text: &str) -> io::Result<()> {
    if io::stdout().is_terminal() { lines(text) } else { to_stdout(text) }
}

fn to_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints one line on stderr. Call it as `say!`.
pub fn say(text: fmt::Arguments<'_>) {
    // If stderr is closed, the error cannot be reported anywhere.
    let _ = writeln!(io::stderr().lock(), "{}", plain(&text.to_string()));
}

/// Prints a line of progress on stderr. On a terminal, the line replaces the previous line.
pub fn progress(text: &str) {
    let mut err = io::stderr().lock();
    let end = if err.is_terminal() { "\x1b[K\r" } else { "\n" };
    let _ = write!(err, "{}{end}", plain(text)).and_then(|()| err.flush());
}

/// Prints one line on stderr, formatted as by `eprintln!`.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::say(format_args!($($text)*)) };
}

/// Writes a field of a span or an event into a log line.
pub fn field(log: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = plain(&format!("{value:?}"));
    if field.name() == "message" { log.write_str(&value) } else { write!(log, "{}={value}", field.name()) }
}

/// Returns a text on one line, without characters that control a terminal or change the direction of writing.
///
/// White space becomes a blank. Any other control character becomes its JSON escape, so that JSON text keeps its value.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' => plain.push(' '),
            c if is_control(c) => plain.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => plain.push(c),
        }
    }
    plain
}

/// True if a terminal or a log viewer may obey the character instead of showing it.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns a JSON value as text for a person, cut off after 100 characters.
pub fn cell(json: Option<&str>) -> String {
    const WIDEST: usize = 100;
    let json = json.unwrap_or("null");
    let text = match json.as_bytes().first() {
        Some(b'n') => return "-".into(),
        Some(b'"') => serde_json::from_str(json).ok().map(|text: String| short_time(&text).unwrap_or(text)),
        Some(b'[') => serde_json::from_str(json).ok().map(|items: Vec<String>| items.join(", ")),
        _ => None,
    };
    let text = text.unwrap_or_else(|| compact(json));
    let mut shown = plain(&text.chars().take(WIDEST).collect::<String>());
    if text.chars().nth(WIDEST).is_some() {
        shown.push('…');
    }
    shown
}

/// Turns an ISO time with a zone into the reader's zone: `2026-11-23 08:59:58+01:00`. Returns `None` for other texts.
fn short_time(text: &str) -> Option<String> {
    // This quick test avoids the parsing of most texts.
    let is_likely = text.len() >= 20 && text.as_bytes().get(10) == Some(&b'T');
    let time: Timestamp = is_likely.then(|| text.parse().ok())??;
    let here = time.to_zoned(TimeZone::system());
    Some(here.strftime("%Y-%m-%d %H:%M:%S%:z").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_loses_everything_that_a_terminal_obeys() {
        let odd = "a\x1b]0;x\x07b\u{9b}31m\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{7f}\r\n\tö🔔";
        let shown = plain(odd);
        assert!(!shown.contains(is_control), "{shown:?}");
        assert!(shown.starts_with("a\\u001b]0;x\\u0007b\\u009b31m\\u202e") && shown.ends_with("ö🔔"), "{shown}");
    }

    #[test]
    fn json_made_plain_keeps_its_value() {
        let json = "{\"a\":\"\u{9b}\u{202e}\u{7f}ü\\n\"}";
        let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(read(&plain(json)), read(json));
    }

    #[test]
    fn a_cell_shows_any_json_up_to_100_characters() {
        assert_eq!(cell(None), "-");
        assert_eq!(cell(Some("12345678901234567890123")), "12345678901234567890123");
        assert_eq!(cell(Some(r#"["a", "b"]"#)), "a, b");
        assert_eq!(cell(Some(r#"[1, {"a b": "c \"d\\"} ]"#)), r#"[1,{"a b":"c \"d\\"}]"#);
        let time: Timestamp = cell(Some(r#""2026-11-23T08:59:58.1+00:00""#)).parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-23T08:59:58Z", "in the reader's zone");
        assert_eq!(cell(Some(&"[".repeat(5000))).chars().count(), 101);
    }
}
