//! The text that shows everything about one job, worker or schedule.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::layout::wrap;
use super::list::List;
use super::model::Detail;
use super::page::Subject;
use super::row::Row;
use crate::output::{cell, plain};

/// A line of the text, as the terminal may show it.
#[derive(Debug, PartialEq, Eq)]
pub struct TextLine {
    pub text: String,
    pub is_title: bool,
}

/// The columns that a job shows first, in this order. The other columns follow.
const FIRST: [&str; 26] = [
    "id",
    "state",
    "queue",
    "kind",
    "priority",
    "attempts",
    "failures",
    "max_attempts",
    "reason",
    "available_at",
    "created_at",
    "reserved_at",
    "reserved_by",
    "cancel_requested_at",
    "stuck_since",
    "finished_at",
    "worker",
    "wait_seconds",
    "run_seconds",
    "timeout",
    "key",
    "unique_key",
    "unique_until",
    "tags",
    "parent_id",
    "schedule_id",
];
/// The columns of a job whose JSON has lines of its own.
const JSON: [&str; 4] = ["progress", "result", "payload", "metadata"];
/// The longest JSON, in characters, that is shown.
const LONGEST_JSON: usize = 64 * 1024;
/// The levels of JSON that are indented. Deeper levels begin where this level does.
const DEEPEST_INDENT: usize = 20;

/// Returns the text in lines of at most this width.
pub fn lines(list: &List, detail: &Detail, width: usize) -> Vec<TextLine> {
    let note = |text: &str| text_lines(&[text.to_owned()], width, 0);
    match (&detail.subject, &detail.job) {
        (Subject::Job(_), None) => note("reading the database …"),
        (Subject::Job(_), Some(Err(why))) => text_lines(&[plain(why)], width, 0),
        (Subject::Job(_), Some(Ok(None))) => note("This job is gone, and so is its history."),
        (Subject::Job(id), Some(Ok(Some(job)))) => job_lines(*id, job, width),
        (subject, _) => match list.find(subject) {
            // The list adds times in seconds to the columns of its view.
            Some(row) => fields(row.row.columns().filter(|(column, _)| !column.ends_with("_seconds")), width),
            None => note("It is gone."),
        },
    }
}

fn job_lines(id: i64, job: &Row, width: usize) -> Vec<TextLine> {
    let first = FIRST.iter().filter_map(|column| Some((*column, job.json(column)?)));
    let is_other = |column: &str| !FIRST.contains(&column) && !JSON.contains(&column) && column != "errors";
    let mut lines = fields(first.chain(job.columns().filter(|(column, _)| is_other(column))), width);
    let title = |text: &str| TextLine { text: text.to_owned(), is_title: true };
    for column in JSON {
        let Some(json) = job.json(column) else { continue };
        lines.push(title(column));
        lines.extend(text_lines(&pretty(json), width, 4));
        let more = json.chars().count().saturating_sub(LONGEST_JSON);
        if more > 0 {
            let rest = format!("… and {more} characters: `reveille job {id} --json` prints all");
            lines.extend(text_lines(&[rest], width, 0));
        }
    }
    let errors = job.decode::<Vec<Box<RawValue>>>("errors").unwrap_or_default();
    if !errors.is_empty() {
        lines.push(title("errors, the latest first"));
    }
    for error in errors.iter().rev() {
        lines.extend(error_lines(error.get(), width));
    }
    lines
}

/// Returns a failed attempt: one line with its time, and the lines of its error.
fn error_lines(error: &str, width: usize) -> Vec<TextLine> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(error).unwrap_or_default();
    let member = |name| cell(members.get(name).map(|value| value.get()));
    let head =
        format!("{} attempt {}, {}, worker {}", member("at"), member("attempt"), member("reason"), member("worker"));
    let message = members.get("error").map_or(error, |value| value.get());
    let message = serde_json::from_str(message).unwrap_or_else(|_| message.to_owned());
    let mut lines = text_lines(&[head], width, 2);
    let message: Vec<String> = message.lines().map(|line| format!("  {}", plain(line))).collect();
    lines.extend(text_lines(&message, width, 4));
    lines
}

/// Returns one or more lines for each column: its name, and its value.
fn fields<'a>(columns: impl Iterator<Item = (&'a str, &'a str)>, width: usize) -> Vec<TextLine> {
    let columns: Vec<(&str, &str)> = columns.collect();
    let longest = columns.iter().map(|(column, _)| column.len()).max().unwrap_or_default();
    // In a narrow terminal, the values begin right after the names.
    let label = if width < 60 { 0 } else { longest };
    let shown = columns.iter().flat_map(|(column, json)| {
        let line = format!("{:label$}  {}", column.replace('_', " "), value(json));
        wrap(&line, width, if label == 0 { 2 } else { label + 2 })
    });
    shown.map(|text| TextLine { text, is_title: false }).collect()
}

/// Returns a value for people. A long text is shown in full, unlike in the cell of a table.
fn value(json: &str) -> String {
    match serde_json::from_str::<String>(json) {
        Ok(text) if text.chars().count() > 100 => plain(&text),
        _ => cell(Some(json)),
    }
}

fn text_lines(texts: &[String], width: usize, indent: usize) -> Vec<TextLine> {
    let wrapped = texts.iter().flat_map(|text| wrap(text, width, indent));
    wrapped.map(|text| TextLine { text, is_title: false }).collect()
}

/// Writes JSON on lines, two blanks a level. Numbers and strings stay as they are stored.
///
/// This reads characters and not values, since no parser reads every JSON that a table can hold.
fn pretty(json: &str) -> Vec<String> {
    let mut lines = vec!["  ".to_owned()];
    let (mut depth, mut is_string, mut is_escaped) = (1usize, false, false);
    let mut chars = json.chars().take(LONGEST_JSON).filter(|c| !matches!(c, '\n' | '\r' | '\t')).peekable();
    while let Some(c) = chars.next() {
        let opens = !is_string && matches!(c, '{' | '[');
        let closes = !is_string && matches!(c, '}' | ']');
        if !is_string && c == ' ' {
            continue;
        }
        is_string ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped && is_string;
        if closes {
            depth = depth.saturating_sub(1);
            lines.push(indent(depth));
        }
        if let Some(line) = lines.last_mut() {
            line.push(c);
            if !is_string && c == ':' {
                line.push(' ');
            }
            if opens && let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                line.push(end);
                continue;
            }
        }
        depth += usize::from(opens);
        if opens || !is_string && c == ',' {
            lines.push(indent(depth));
        }
    }
    lines.iter().map(|line| plain(line)).collect()
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth.min(DEEPEST_INDENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: Vec<TextLine>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn json_is_shown_on_lines_and_unchanged() {
        let json = r#"{"a": [1, {"b": "x, {\"y\": [\\"}], "c": {}, "d": [], "e": 12345678901234567890123}"#;
        let shown = pretty(json);
        let expected = [
            "  {",
            "    \"a\": [",
            "      1,",
            "      {",
            r#"        "b": "x, {\"y\": [\\""#,
            "      }",
            "    ],",
            "    \"c\": {},",
            "    \"d\": [],",
            "    \"e\": 12345678901234567890123",
            "  }",
        ];
        assert_eq!(shown, expected);
        assert_eq!(pretty("\"\u{202e}\""), ["  \"\\u202e\""]);
        let deep = pretty(&format!("{}{}", "[".repeat(5000), "]".repeat(5000)));
        assert!(deep.iter().all(|line| line.len() < 60) && deep.len() > 5000);
    }

    #[test]
    fn a_job_is_shown_with_its_errors_the_latest_first() {
        let job = Row::new([
            ("id", "7"),
            ("state", "\"dead\""),
            ("key", "null"),
            ("payload", "{\"to\": \"a\"}"),
            (
                "errors",
                r#"[{"at": "x", "attempt": 1, "error": "first"}, {"attempt": 2, "error": "\u001b[2J\nsecond"}]"#,
            ),
            ("odd", "1"),
        ]);
        let shown = texts(job_lines(7, &job, 40)).join("\n");
        assert!(
            shown.starts_with("id  7\nstate  dead\nodd  1\npayload\n  {\n    \"to\": \"a\"\n  }\nerrors"),
            "{shown}"
        );
        let errors =
            "latest first\n- attempt 2, -, worker -\n  \\u001b[2J\n  second\nx attempt 1, -, worker -\n  first";
        assert!(shown.ends_with(errors), "{shown}");
        assert!(texts(job_lines(7, &job, 80))[1].starts_with("state  dead"));
    }

    #[test]
    fn a_long_value_is_wrapped_and_not_cut() {
        let key = format!("\"{}\"", "k".repeat(300));
        let shown = texts(fields([("unique_key", key.as_str())].into_iter(), 40));
        assert_eq!(shown.iter().map(|line| line.matches('k').count()).sum::<usize>(), 301, "{shown:?}");
        assert!(shown.iter().all(|line| line.len() <= 40));
    }
}
