//! Rows with any columns. Each value is kept as the JSON text in the database's answer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio_postgres::Row;

use super::iso_time;
use crate::error::{Error, Result};

/// A row of a view or table: its columns by name, with times in ISO 8601 and intervals as Postgres prints them.
///
/// Each value is JSON text, which is parsed only when a caller reads the column. Therefore a row can be listed even if
/// no parser can read one of its values, such as a number that is too large. A SQL_ASCII database also stores text that
/// is not UTF-8; each byte that is not UTF-8 becomes U+FFFD.
#[derive(Debug, Clone, Default)]
pub struct Record(BTreeMap<String, Box<RawValue>>);

impl Record {
    /// The JSON text of a column; `None` if the row has no such column.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.get(column).map(|value| value.get())
    }

    /// Decodes a column's value. If the row has no such column, this decodes `null`.
    ///
    /// # Errors
    /// Invalid if the JSON does not fit the type.
    pub fn decode<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        serde_json::from_str(self.get(column).unwrap_or("null"))
            .map_err(|error| Error::invalid(format!("column {column:?} cannot be decoded: {error}")))
    }

    /// The time in a column; `None` if the value is null, an infinite time, or no time.
    pub fn time(&self, column: &str) -> Option<SystemTime> {
        iso_time::parse(&self.decode::<String>(column).ok()?)
    }

    /// Returns the JSON object in a column as a row of its own.
    pub(super) fn part(&self, column: &str) -> Result<Record> {
        of_json(self.get(column).unwrap_or("null"))
    }

    /// The columns with their JSON texts, in the order of the columns' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(column, value)| (column.as_str(), value.get()))
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.0)
    }
}

impl fmt::Display for Record {
    /// Writes the row as a JSON object on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (column, value)) in self.iter().enumerate() {
            write!(f, "{}{}:{value}", if place == 0 { "{" } else { "," }, serde_json::Value::from(column))?;
        }
        f.write_str(if self.0.is_empty() { "{}" } else { "}" })
    }
}

/// Changes a statement whose only column is `record`, a `jsonb`: the statement returns the bytes of the JSON text
/// instead.
///
/// A SQL_ASCII server checks the text that it sends to a client with the encoding UTF-8. If the text is not UTF-8, the
/// whole statement fails. The server does not check a `bytea`.
///
/// The text is a static. A program would contain a constant once for each crate that calls the function around the
/// constant.
macro_rules! as_bytes {
    ($($sql:tt)*) => {{
        static SQL: &str = concat!(
            "select case when pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'SQL_ASCII' ",
            "then pg_catalog.convert_to(record::pg_catalog.text, 'SQL_ASCII') ",
            "else pg_catalog.convert_to(record::pg_catalog.text, 'UTF8') end as record from (\n",
            $($sql)*,
            "\n) as answered"
        );
        SQL
    }};
}
pub(crate) use as_bytes;

/// Reads the rows of a statement that [`as_bytes`] made.
pub(crate) fn records(rows: &[Row]) -> Result<Vec<Record>> {
    rows.iter().map(record).collect()
}

fn record(row: &Row) -> Result<Record> {
    let json: &[u8] = row.try_get("record").map_err(|error| Error::database("read a record", error))?;
    of_json(&String::from_utf8_lossy(json))
}

pub(super) fn of_json(json: &str) -> Result<Record> {
    let columns = serde_json::from_str(json).map_err(|error| {
        Error::unavailable(format!("cannot read a record: the server's answer is not a JSON object: {error}"))
    })?;
    Ok(Record(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_printed_with_the_digits_it_was_read_with() {
        let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
        let json = format!(r#"{{"deep":{deep},"large":1e400,"long":12345678901234567890123,"q\"":"x"}}"#);
        let record = of_json(&json).unwrap();
        assert_eq!(record.to_string(), json);
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
        assert_eq!(of_json("{}").unwrap().to_string(), "{}");
    }

    #[test]
    fn a_column_that_cannot_be_decoded_leaves_the_others_readable() {
        let record = of_json(r#"{"a": 1e400, "b": [1, 2], "c": null}"#).unwrap();
        assert!(record.decode::<f64>("a").unwrap_err().is_invalid());
        assert_eq!(record.decode::<Vec<u8>>("b").unwrap(), [1, 2]);
        assert_eq!(record.decode::<Option<u8>>("c").unwrap(), None);
        assert_eq!(record.decode::<Option<u8>>("none").unwrap(), None);
    }
}
