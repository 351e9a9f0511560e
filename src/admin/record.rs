//! Rows of any columns, each value kept as the JSON that the database holds.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio_postgres::Row;

use crate::error::{Error, Result};

/// A row of one of the views or tables: its columns by name, times in ISO 8601, intervals as Postgres prints them.
///
/// Each value is the JSON text that is stored, and is parsed when it is asked for. So a row is listed whatever it
/// holds: nesting of any depth, numbers of any size. Text that is no UTF-8, which a SQL_ASCII database takes, has
/// U+FFFD in the places of the bytes that are none.
#[derive(Debug, Clone, Default)]
pub struct Record(BTreeMap<String, Box<RawValue>>);

impl Record {
    /// The JSON text of a column; `None` if the row has no such column.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.get(column).map(|value| value.get())
    }

    /// A column's value; that of `null` if the row has no such column.
    ///
    /// # Errors
    /// Invalid if the JSON is no such value.
    pub fn decode<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        serde_json::from_str(self.get(column).unwrap_or("null"))
            .map_err(|error| Error::invalid(format!("column {column:?} is not as expected: {error}")))
    }

    /// The columns with the JSON text of each, in the order of their names.
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
    /// A JSON object, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (column, value)) in self.iter().enumerate() {
            write!(f, "{}{}:{value}", if place == 0 { "{" } else { "," }, serde_json::Value::from(column))?;
        }
        f.write_str(if self.0.is_empty() { "{}" } else { "}" })
    }
}

/// A statement whose one column `record` is of type `jsonb`, answering the bytes of its text instead.
///
/// A SQL_ASCII server refuses to send text that is no UTF-8 to a client that wants UTF-8, and the whole statement
/// fails. Bytes it sends as they are.
macro_rules! as_bytes {
    ($($sql:tt)*) => {
        concat!(
            "select case when pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'SQL_ASCII' ",
            "then pg_catalog.convert_to(record::pg_catalog.text, 'SQL_ASCII') ",
            "else pg_catalog.convert_to(record::pg_catalog.text, 'UTF8') end as record from (\n",
            $($sql)*,
            "\n) as answered"
        )
    };
}
pub(crate) use as_bytes;

/// The rows of a statement made by [`as_bytes`].
pub(crate) fn records(rows: &[Row]) -> Result<Vec<Record>> {
    rows.iter().map(record).collect()
}

fn record(row: &Row) -> Result<Record> {
    let json: &[u8] = row.try_get("record").map_err(|error| Error::database("read a record", error))?;
    of_json(&String::from_utf8_lossy(json))
}

fn of_json(json: &str) -> Result<Record> {
    let columns = serde_json::from_str(json)
        .map_err(|error| Error::unavailable(format!("the server's answer is no record: {error}")))?;
    Ok(Record(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_printed_with_the_very_digits_that_it_was_read_with() {
        let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
        let json = format!(r#"{{"deep":{deep},"large":1e400,"long":12345678901234567890123,"q\"":"x"}}"#);
        let record = of_json(&json).unwrap();
        assert_eq!(record.to_string(), json);
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
        assert_eq!(of_json("{}").unwrap().to_string(), "{}");
    }

    #[test]
    fn a_column_that_cannot_be_parsed_leaves_the_others_readable() {
        let record = of_json(r#"{"a": 1e400, "b": [1, 2], "c": null}"#).unwrap();
        assert!(record.decode::<f64>("a").unwrap_err().is_invalid());
        assert_eq!(record.decode::<Vec<u8>>("b").unwrap(), [1, 2]);
        assert_eq!(record.decode::<Option<u8>>("c").unwrap(), None);
        assert_eq!(record.decode::<Option<u8>>("none").unwrap(), None);
    }
}
