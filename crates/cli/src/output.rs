//! All output of the command: tables for people, one JSON object per line for machines. No other module writes to
//! stdout or stderr, so that no text from jobs, servers or arguments can control a terminal (see
//! `docs/design/output.md`).

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use reveille::admin::Record;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::field::Field;
use tracing_subscriber::fmt::format::Writer;
use unicode_width::UnicodeWidthChar;

use crate::{encryption, times};

/// Prints records: with `json` one JSON object per line, else a table of the named columns.
pub fn print<'a>(records: impl IntoIterator<Item = &'a Record>, columns: &[&str], json: bool) -> io::Result<()> {
    let mut records = records.into_iter();
    if json {
        return records.try_for_each(json_record);
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
        return json_record(record);
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

/// Prints a record as JSON with one further member: a list of records.
pub fn print_with_list<'a>(record: &Record, name: &str, list: impl Iterator<Item = &'a Record>) -> io::Result<()> {
    let list = list.map(object).collect::<Vec<_>>().join(",");
    let object = object(record);
    let members = object.strip_suffix('}').unwrap_or(&object);
    json_line(format_args!("{members},{}:[{list}]}}", Value::from(name)))
}

/// Prints a record as JSON, with its times in UTC.
fn json_record(record: &Record) -> io::Result<()> {
    json_line(object(record))
}

/// Returns a record as JSON, with its times in UTC.
fn object(record: &Record) -> String {
    let member = |(column, value): (&str, &str)| {
        let time = times::is_time(column).then(|| times::in_utc(value)).flatten();
        format!("{}:{}", Value::from(column), time.as_deref().unwrap_or(value))
    };
    format!("{{{}}}", record.iter().map(member).collect::<Vec<_>>().join(","))
}

/// Prints the answer to a request: with `json` the object, else the text.
///
/// If the reader of the output has closed the pipe, this is no error, so that the command makes its further changes.
pub fn answer(json: bool, object: Value, text: impl Display) -> io::Result<()> {
    match if json { line(object) } else { line(text) } {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints one line of text or JSON on stdout.
pub fn line(text: impl Display) -> io::Result<()> {
    to_stdout(&plain(&text.to_string()))
}

/// Prints JSON on one line of stdout, without blanks. Numbers and strings stay unchanged.
pub fn json_line(json: impl Display) -> io::Result<()> {
    line(compact(&json.to_string()))
}

/// Returns JSON without blanks between its parts.
pub fn compact(json: &str) -> String {
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

/// Returns stdout for messages to a program: those of a child to the worker that has started it.
pub fn messages() -> impl Write {
    io::stdout().lock()
}

/// The time between two looks at whether stdout has a reader.
const LOOK_FOR_READER_EVERY: Duration = Duration::from_millis(500);

/// Waits until the reader of stdout has closed the pipe. A command that prints rarely then ends, as `tail -f` does.
pub async fn closed() -> io::Error {
    loop {
        tokio::time::sleep(LOOK_FOR_READER_EVERY).await;
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        let looked = poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        if looked.is_ok() && watched[0].revents().contains(PollFlags::ERR) {
            return ErrorKind::BrokenPipe.into();
        }
    }
}

fn to_stdout(text: &str) -> io::Result<()> {
    // Into a pipe, whose reader may be slow, this writes without the lock.
    let _alone = io::stdout().is_terminal().then(remove_progress);
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints one line on stderr. Call it as `say!`.
pub fn say(text: fmt::Arguments<'_>) {
    let _alone = remove_progress();
    // If stderr is closed, the error cannot be reported anywhere.
    let _ = writeln!(io::stderr().lock(), "{}", plain(&text.to_string()));
}

/// Asks a question on the terminal. Returns `None` if there is no terminal to ask on.
///
/// While the question stands, no progress line is drawn.
pub fn ask(question: &str) -> io::Result<Option<bool>> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let _alone = remove_progress();
    write!(io::stderr().lock(), "{} ", plain(question))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")))
}

/// Prints one record of a CSV file, as RFC 4180 has it. See [`csv`](crate::csv) for the cells.
pub fn csv_record(cells: &[String]) -> io::Result<()> {
    let quoted = |cell: &String| {
        let cell = plain(cell);
        let is_bare = !cell.contains(['"', ',']) && cell.trim() == cell;
        if is_bare { cell } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
    };
    to_stdout(&(cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r"))
}

/// True while a progress line stands on the terminal. Other output removes the line first, and holds this lock.
static PROGRESS: Mutex<bool> = Mutex::new(false);
/// The width of a terminal that does not tell its width.
const USUAL_WIDTH: usize = 80;

/// Draws the progress line on the terminal at stderr, in place of the previous one. An empty text removes the line.
///
/// While another thread prints, this does nothing, since that thread may wait for its reader.
pub fn progress(text: &str) {
    let mut is_shown = match PROGRESS.try_lock() {
        Ok(is_shown) => is_shown,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    let columns = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    // A terminal may wrap a line that fills its last column.
    let width = if columns == 0 { USUAL_WIDTH } else { columns } - 1;
    draw(&mut is_shown, fitting(&plain(text), width));
}

/// Removes the progress line. No progress line is drawn while the returned guard lives.
pub fn remove_progress() -> MutexGuard<'static, bool> {
    let mut is_shown = PROGRESS.lock().unwrap_or_else(PoisonError::into_inner);
    draw(&mut is_shown, "");
    is_shown
}

fn draw(is_shown: &mut bool, text: &str) {
    if *is_shown || !text.is_empty() {
        let mut err = io::stderr().lock();
        let _ = write!(err, "\r{text}\x1b[K\r").and_then(|()| err.flush());
        *is_shown = !text.is_empty();
    }
}

/// Returns the beginning of a text that fits into this number of columns.
fn fitting(text: &str, columns: usize) -> &str {
    let mut width = 0;
    let end = text.char_indices().find(|(_, c)| {
        width += c.width().unwrap_or(0);
        width > columns
    });
    &text[..end.map_or(text.len(), |(place, _)| place)]
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

/// Returns a JSON value as text for a person, cut off after 100 characters. An encrypted value is named as one.
pub fn cell(json: Option<&str>) -> String {
    const WIDEST: usize = 100;
    let json = json.unwrap_or("null");
    let text = match json.as_bytes().first() {
        Some(b'n') => return "-".into(),
        Some(b'"') => serde_json::from_str(json).ok().map(|text: String| times::here(&text).unwrap_or(text)),
        Some(b'[') => serde_json::from_str(json).ok().map(|items: Vec<String>| items.join(", ")),
        _ => None,
    };
    let text = text.unwrap_or_else(|| compact(json));
    if let Some(key) = encryption::key_of(&text) {
        return plain(&format!("(encrypted with the key {key})"));
    }
    let mut shown = plain(&text.chars().take(WIDEST).collect::<String>());
    if text.chars().nth(WIDEST).is_some() {
        shown.push('…');
    }
    shown
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
    fn a_text_is_cut_to_the_columns_of_a_narrow_terminal() {
        assert_eq!([9, 4, 3, 2, 0].map(|columns| fitting("a🔔bü", columns)), ["a🔔bü", "a🔔b", "a🔔", "a", ""]);
    }

    #[test]
    fn a_cell_shows_any_json_up_to_100_characters() {
        assert_eq!(cell(None), "-");
        assert_eq!(cell(Some("12345678901234567890123")), "12345678901234567890123");
        assert_eq!(cell(Some(r#"["a", "b"]"#)), "a, b");
        assert_eq!(cell(Some(r#"[1, {"a b": "c \"d\\"} ]"#)), r#"[1,{"a b":"c \"d\\"}]"#);
        let time: jiff::Timestamp = cell(Some(r#""2026-11-23T08:59:58.1+00:00""#)).parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-23T08:59:58Z", "in the reader's zone");
        assert_eq!(cell(Some(&"[".repeat(5000))).chars().count(), 101);
    }
}
