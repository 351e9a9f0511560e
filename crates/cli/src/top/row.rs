//! A row of a list: its columns as JSON, and the cells that show them.

use std::collections::BTreeMap;

use reveille::admin::Record;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::figures::{about, count};
use crate::output::plain;

/// The columns of a row, each with its JSON text. A value that cannot be decoded counts as missing, so that it hides
/// neither the row nor other values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row(BTreeMap<String, String>);

impl Row {
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, &'a str)>) -> Row {
        Row(columns.into_iter().map(|(column, json)| (column.to_owned(), json.to_owned())).collect())
    }

    /// Reads a row from a JSON object; `None` if it is none.
    pub fn parse(json: &str) -> Option<Row> {
        let columns: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).ok()?;
        Some(Row::new(columns.iter().map(|(column, json)| (column.as_str(), json.get()))))
    }

    /// Returns the columns that are not null, in the order of their names.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(column, json)| (column.as_str(), json.as_str())).filter(|(_, json)| *json != "null")
    }

    pub fn json(&self, column: &str) -> Option<&str> {
        self.0.get(column).map(String::as_str).filter(|json| *json != "null")
    }

    pub fn decode<T: DeserializeOwned>(&self, column: &str) -> Option<T> {
        serde_json::from_str(self.json(column)?).ok()
    }

    pub fn text(&self, column: &str) -> Option<String> {
        self.decode(column)
    }

    pub fn id(&self, column: &str) -> Option<i64> {
        self.decode(column)
    }

    pub fn number(&self, column: &str) -> Option<f64> {
        self.decode(column)
    }

    /// Returns a count; 0 if it is missing.
    pub fn count(&self, column: &str) -> u64 {
        self.number(column).unwrap_or_default().max(0.0) as u64
    }

    pub fn is(&self, column: &str) -> bool {
        self.decode(column).unwrap_or_default()
    }
}

impl From<&Record> for Row {
    fn from(record: &Record) -> Row {
        Row::new(record.iter())
    }
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The text as the terminal may show it.
    pub text: String,
    /// The figure by which the row is sorted; `None`: the row is sorted by the text.
    pub figure: Option<f64>,
    /// True if there is no value. Such a row comes last, however rows are sorted.
    pub is_missing: bool,
}

impl Cell {
    pub fn text(text: impl AsRef<str>) -> Cell {
        let text = plain(text.as_ref());
        Cell { is_missing: text.is_empty(), figure: None, text }
    }

    pub fn figure(text: impl AsRef<str>, figure: f64) -> Cell {
        Cell { text: plain(text.as_ref()), figure: Some(figure), is_missing: false }
    }

    pub fn missing() -> Cell {
        Cell { text: "-".into(), figure: None, is_missing: true }
    }
}

/// Returns a cell with the text of a column.
pub fn words(row: &Row, column: &str) -> Cell {
    Cell::text(row.text(column).unwrap_or_default())
}

/// Returns a cell with the id in a column.
pub fn id(row: &Row, column: &str) -> Cell {
    row.id(column).map_or_else(Cell::missing, |id| Cell::figure(id.to_string(), id as f64))
}

/// Returns a cell with a count.
pub fn amount(row: &Row, column: &str) -> Cell {
    let n = row.count(column);
    Cell::figure(count(n), n as f64)
}

/// Returns a cell with a count that may be an estimate.
pub fn estimate(row: &Row, column: &str) -> Cell {
    let n = row.count(column);
    Cell::figure(about(n, row.is("estimated")), n as f64)
}

/// Returns a cell with a time in seconds.
pub fn time(row: &Row, column: &str) -> Cell {
    row.number(column).map_or_else(Cell::missing, |seconds| Cell::figure(seconds_as_text(seconds), seconds))
}

/// Returns a cell with two counts, like `2/20`. The row is sorted by the first count.
pub fn ratio(row: &Row, column: &str, of: &str) -> Cell {
    let n = row.count(column);
    let of = row.number(of).map_or("-".to_owned(), |of| count(of.max(0.0) as u64));
    Cell::figure(format!("{}/{of}", count(n)), n as f64)
}

/// Returns a time in at most six characters: `0.2ms`, `12ms`, `1.2s`, `59s`, `3m05s`, `2h10m`, `4d03h`.
pub fn seconds_as_text(seconds: f64) -> String {
    let whole = seconds as u64;
    match seconds {
        s if s < 0.001 => format!("{:.1}ms", s.max(0.0) * 1e3),
        s if s < 0.9995 => format!("{:.0}ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1}s"),
        s if s < 60.0 => format!("{whole}s"),
        s if s < 3600.0 => format!("{}m{:02}s", whole / 60, whole % 60),
        s if s < 86_400.0 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        s if s < 86_400.0 * 100.0 => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
        _ => format!("{}d", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let counts = [0, 9999, 10_000, 99_999, 123_456, 1_234_567, 123_456_789];
        assert_eq!(counts.map(count), ["0", "9999", "10.0k", "100.0k", "123k", "1.2M", "0.1G"]);
        let times = [-1.0, 0.0002, 0.012, 1.25, 59.9, 185.0, 7800.0, 356_400.0, 1e9];
        assert_eq!(
            times.map(seconds_as_text),
            ["0.0ms", "0.2ms", "12ms", "1.2s", "59s", "3m05s", "2h10m", "4d03h", "11574d"]
        );
    }

    #[test]
    fn a_value_that_cannot_be_decoded_hides_no_other() {
        let row = Row::new([("id", "7"), ("queue", "3"), ("seconds", "1e400"), ("host", "null")]);
        assert_eq!((row.id("id"), row.text("queue"), row.number("seconds")), (Some(7), None, None));
        assert_eq!(row.columns().count(), 3, "null is no value");
        assert_eq!(time(&row, "seconds"), Cell::missing());
    }
}
