//! Jobs as CSV, for spreadsheets and other programs.
//!
//! A spreadsheet takes a cell for a formula if its text begins with `=`, `+`, `-` or `@`, whether it stands in quotes
//! or not. Such a text gets an apostrophe before it. Characters that control a terminal become escapes, as in all
//! output.

use std::collections::BTreeMap;

use reveille::admin::JobRow;
use serde_json::value::RawValue;

use crate::output;

/// The columns of a job, live or ended. A job that lacks a column has an empty cell there.
const COLUMNS: [&str; 25] = [
    "id",
    "state",
    "queue",
    "kind",
    "priority",
    "attempts",
    "failures",
    "max_attempts",
    "created_at",
    "available_at",
    "reserved_at",
    "reserved_by",
    "cancel_requested_at",
    "finished_at",
    "worker",
    "wait_seconds",
    "run_seconds",
    "reason",
    "unique_key",
    "key",
    "timeout",
    "tags",
    "metadata",
    "payload",
    "last_error",
];

/// The characters with which a formula begins, also in their wide forms.
const BEGIN_FORMULAS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Returns the first record: the names of the columns.
pub fn header() -> Vec<String> {
    COLUMNS.map(str::to_owned).to_vec()
}

/// Returns a job's record.
pub fn cells(job: &JobRow) -> Vec<String> {
    let cell = |column: &&str| match *column {
        "last_error" => last_error(job).map_or_else(String::new, |error| text(error.get())),
        column => job.record().get(column).map_or_else(String::new, text),
    };
    COLUMNS.iter().map(cell).collect()
}

/// Returns the last error as JSON. A stored error need not be text.
pub fn last_error(job: &JobRow) -> Option<Box<RawValue>> {
    let last = job.record().decode::<Vec<Box<RawValue>>>("errors").ok()?.pop()?;
    serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(last.get()).ok()?.remove("error")
}

/// Returns a JSON value as the text of a cell: a string as it is, nothing for null, else the JSON.
fn text(json: &str) -> String {
    if json == "null" {
        return String::new();
    }
    let text = serde_json::from_str::<String>(json).unwrap_or_else(|_| output::compact(json));
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if !is_number && text.trim_start().starts_with(BEGIN_FORMULAS) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_a_spreadsheet_would_compute_gets_an_apostrophe() {
        for formula in ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", " =1", "\\t=1", "\\r\\n@x", "＝1"] {
            let cell = text(&format!("\"{formula}\""));
            assert!(cell.starts_with('\''), "{cell}");
        }
        for (json, expected) in [
            ("-5", "-5"),
            ("-1.5e3", "-1.5e3"),
            ("\"a=1\"", "a=1"),
            ("\"\"", ""),
            ("null", ""),
            ("\"null\"", "null"),
            ("true", "true"),
            ("[\"=1\", \"b\"]", "[\"=1\",\"b\"]"),
            ("{\"a\": \"=1\"}", "{\"a\":\"=1\"}"),
        ] {
            assert_eq!(text(json), expected);
        }
    }
}
