//! Tables for people, one JSON object a line for machines.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use reveille::admin::Record;

/// Prints records: a JSON object a line, or a table of the named columns (all, if none is named).
pub fn print(records: &[Record], columns: &[&str], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        for record in records {
            writeln!(out, "{}", Value::Object(record.clone()))?;
        }
        return out.flush();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.replace('_', " ")));
    for record in records {
        table.add_row(columns.iter().map(|column| cell(record.get(*column))));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    out.flush()
}

/// Prints one record, a field a line.
pub fn print_one(record: &Record, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", Value::Object(record.clone()))?;
        return out.flush();
    }
    let width = record.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in record.iter().filter(|(name, value)| !value.is_null() && *name != "errors") {
        writeln!(out, "{name:width$}  {}", cell(Some(value)))?;
    }
    for error in record.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let field = |name| cell(error.get(name));
        let (at, attempt, reason) = (field("at"), field("attempt"), field("reason"));
        writeln!(out, "{:width$}  {at} attempt {attempt}, {reason}: {}", "error", field("error"))?;
    }
    out.flush()
}

/// Prints one line of text.
pub fn line(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// A text with nothing in it that a terminal would obey.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A value as a person reads it; nothing that a terminal would obey.
fn cell(value: Option<&Value>) -> String {
    const WIDEST: usize = 100;
    let text = match value {
        None | Some(Value::Null) => return "-".into(),
        Some(Value::String(text)) => short_time(text).unwrap_or_else(|| text.clone()),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Some(value) => value.to_string(),
    };
    let mut shown: String = plain(&text).chars().take(WIDEST).collect();
    if text.chars().nth(WIDEST).is_some() {
        shown.push('…');
    }
    shown
}

/// `2026-11-23 08:59:58+01:00`, in the reader's time zone, of an ISO time with a zone; `None` if it is none.
fn short_time(text: &str) -> Option<String> {
    // What only begins like a time is not worth a try.
    let is_likely = text.len() >= 20 && text.as_bytes().get(10) == Some(&b'T');
    let time: Timestamp = is_likely.then(|| text.parse().ok())??;
    let here = time.to_zoned(TimeZone::system());
    Some(here.strftime("%Y-%m-%d %H:%M:%S%:z").to_string())
}
