//! Enqueuing many jobs from a file: `reveille enqueue --from-file`.
//!
//! Each line is a JSON object whose members are arguments of `reveille.enqueue`. The lines are read, checked and
//! enqueued a thousand at a time, so that a file of any size takes little memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, SystemTime};

use reveille::Database;
use reveille::admin::Admin;
use reveille::database::EnqueueOn;
use reveille::job::{Due, NewJob, Payload, Priority, UniqueMode, UniqueUntil};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::progress::Progress;
use crate::{Failure, Outcome, output};

/// The largest number of lines, and of their bytes, that are enqueued by one statement.
const MOST_LINES: u64 = 1000;
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// The largest number of texts of times whose values are remembered.
const MOST_TEXTS: usize = 10_000;

/// How a file is enqueued.
pub struct FileOptions {
    /// The file's path; - for stdin.
    pub path: String,
    /// The number of jobs in one transaction; `None`: all.
    pub commit_every: Option<u64>,
    /// The largest payload in bytes.
    pub max_payload: usize,
    pub json: bool,
}

/// A line of the file: the arguments of `reveille.enqueue`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    kind: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    queue: Option<String>,
    delay: Option<Length>,
    available_at: Option<String>,
    priority: Option<Level>,
    max_attempts: Option<u32>,
    timeout: Option<Length>,
    unique_key: Option<String>,
    unique_mode: Option<Mode>,
    unique_until: Option<String>,
    key: Option<String>,
    tags: Option<Vec<String>>,
    metadata: Option<&'a RawValue>,
    parent_id: Option<i64>,
}

/// A length of time: seconds, or a text as Postgres reads intervals.
#[derive(Deserialize)]
#[serde(untagged)]
enum Length {
    Seconds(f64),
    Text(String),
}

/// A priority: 0 to 3, or a name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Level {
    Number(u8),
    Name(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Keep,
    Replace,
    Debounce,
}

/// Enqueues the jobs of a file, all in one transaction unless the options say otherwise.
pub async fn run(database: &Database, options: &FileOptions) -> Outcome {
    let mut reader = LineReader::open(options)?;
    let mut texts = Texts::new(database, "line");
    let (mut enqueued, mut existed, mut committed) = (0, 0, 0);
    let mut client = database.client().await?;
    let mut is_over = false;
    let progress = Progress::start("enqueuing jobs", options.json);
    while !is_over {
        let result = async {
            let tx = client.transaction().await?;
            let mut in_transaction = 0;
            while !is_over && options.commit_every.is_none_or(|every| in_transaction < every) {
                let most = options.commit_every.map_or(MOST_LINES, |every| (every - in_transaction).min(MOST_LINES));
                let lines = tokio::task::block_in_place(|| reader.read(most))?;
                is_over = lines.is_empty();
                let first = lines.first().map_or(0, |(number, _)| *number);
                let last = lines.last().map_or(0, |(number, _)| *number);
                let jobs = texts.jobs(lines, options.max_payload).await?;
                let stored = (&tx)
                    .insert(database.schema_name(), &jobs)
                    .await
                    .map_err(|error| Failure::Error(format!("lines {first} to {last} were refused: {error}")))?;
                in_transaction += stored.len() as u64;
                existed += stored.iter().filter(|job| job.existed).count() as u64;
                enqueued += stored.iter().filter(|job| !job.existed).count() as u64;
                progress.note(format_args!("{} lines{}", reader.number, reader.share()));
            }
            tx.commit().await?;
            committed += in_transaction;
            Ok::<(), Failure>(())
        };
        result.await.map_err(|failure| with_committed(failure, committed))?;
    }
    drop(progress);
    let other = if existed > 0 { format!(", {existed} existed") } else { String::new() };
    let object = json!({"enqueued": enqueued, "existed": existed});
    Ok(output::answer(options.json, object, format_args!("{enqueued} enqueued{other}"))?)
}

/// Says in an error how many jobs of the file are enqueued nevertheless.
fn with_committed(failure: Failure, committed: u64) -> Failure {
    match failure {
        Failure::Error(error) if committed == 0 => Failure::Error(format!("{error}; nothing was enqueued")),
        Failure::Error(error) => Failure::Error(format!("{error}; the first {committed} jobs were enqueued")),
        failure => failure,
    }
}

/// Reads lines with their numbers, and leaves out empty lines.
struct LineReader {
    input: Box<dyn BufRead + Send>,
    /// The number of lines that were read, and of their bytes.
    number: u64,
    bytes: u64,
    /// The file's size in bytes, if it is known.
    size: Option<u64>,
    longest: usize,
}

impl LineReader {
    fn open(options: &FileOptions) -> Result<LineReader, Failure> {
        let mut size = None;
        let input: Box<dyn Read + Send> = match options.path.as_str() {
            "-" => Box::new(std::io::stdin()),
            path => {
                let file = File::open(path).map_err(|error| format!("cannot read {path:?}: {error}"))?;
                size = file.metadata().ok().filter(|file| file.is_file()).map(|file| file.len());
                Box::new(file)
            }
        };
        // A character of a payload may be written as an escape of six characters.
        let longest = options.max_payload.saturating_mul(6).saturating_add(2 * 1024 * 1024);
        let input = Box::new(BufReader::with_capacity(256 * 1024, input));
        Ok(LineReader { input, number: 0, bytes: 0, size, longest })
    }

    /// Returns how much of the file was read, such as ` (25%)`.
    fn share(&self) -> String {
        let percent = self.size.and_then(|size| (self.bytes * 100).checked_div(size));
        percent.map(|percent| format!(" ({}%)", percent.min(100))).unwrap_or_default()
    }

    /// Reads at most this many lines. Returns none at the end of the file.
    fn read(&mut self, most: u64) -> Result<Vec<(u64, String)>, Failure> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while (lines.len() as u64) < most && bytes < MOST_BYTES {
            let mut line = Vec::new();
            let limit = self.longest as u64 + 1;
            if (&mut self.input).take(limit).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            self.number += 1;
            self.bytes += line.len() as u64;
            if line.len() > self.longest {
                return Err(
                    format!("line {} is longer than {} bytes; raise --max-payload", self.number, self.longest).into()
                );
            }
            let line = String::from_utf8(line).map_err(|_| format!("line {} is not UTF-8", self.number))?;
            let line = if self.number == 1 { line.trim_start_matches('\u{feff}') } else { &line };
            if !line.trim().is_empty() {
                bytes += line.len();
                lines.push((self.number, line.trim().to_owned()));
            }
        }
        Ok(lines)
    }
}

/// Reads the texts of times as the database does, and remembers their values.
pub struct Texts {
    /// What an error calls one of the texts of jobs.
    what: &'static str,
    admin: Admin,
    lengths: HashMap<String, Duration>,
    times: HashMap<String, SystemTime>,
}

impl Texts {
    /// `what`: what an error calls one of the texts of jobs.
    pub fn new(database: &Database, what: &'static str) -> Texts {
        Texts { what, admin: database.admin(), lengths: HashMap::new(), times: HashMap::new() }
    }

    /// Reads and checks lines. An error names its line.
    pub async fn jobs(&mut self, lines: Vec<(u64, String)>, max_payload: usize) -> Result<Vec<NewJob>, Failure> {
        let mut jobs = Vec::with_capacity(lines.len());
        for (number, line) in lines {
            let what = self.what;
            let at_line = |error: String| Failure::Error(format!("{what} {number}: {error}"));
            if !line.starts_with('{') {
                return Err(at_line("expected a JSON object".to_owned()));
            }
            let read: Line<'_> = serde_json::from_str(&line).map_err(|error| at_line(without_line(&error)))?;
            let job = self.job(read).await.map_err(|error| at_line(error.to_string()))?;
            job.check(max_payload).map_err(|error| at_line(error.to_string()))?;
            jobs.push(job);
        }
        Ok(jobs)
    }

    async fn job(&mut self, line: Line<'_>) -> reveille::Result<NewJob> {
        let invalid = |text: &str| reveille::Error::invalid(text);
        let mut job = NewJob::new(line.kind, Payload::parse(line.payload.map_or("{}", RawValue::get))?);
        job.queue = line.queue.unwrap_or(job.queue);
        job.max_attempts = line.max_attempts.unwrap_or(job.max_attempts);
        job.priority = match line.priority {
            Some(Level::Number(level)) => level.to_string().parse::<Priority>()?,
            Some(Level::Name(name)) => name.parse::<Priority>()?,
            None => job.priority,
        };
        job.due = match (line.delay, line.available_at) {
            (Some(_), Some(_)) => return Err(invalid("a job takes delay or available_at, not both")),
            (Some(delay), None) => Due::In(self.length("delay", delay).await?),
            (None, Some(at)) => Due::At(self.time(at).await?),
            (None, None) => job.due,
        };
        if let Some(timeout) = line.timeout {
            job.timeout = Some(self.length("timeout", timeout).await?);
        }
        job.unique_key = line.unique_key;
        job.unique_mode = match line.unique_mode {
            Some(Mode::Replace) => UniqueMode::Replace,
            Some(Mode::Debounce) => UniqueMode::Debounce,
            Some(Mode::Keep) | None => UniqueMode::Keep,
        };
        job.unique_until = match line.unique_until.as_deref() {
            Some("started") => UniqueUntil::Started,
            Some("finished") | None => UniqueUntil::Finished,
            Some(period) => UniqueUntil::Period(self.length("unique_until", Length::Text(period.to_owned())).await?),
        };
        job.key = line.key;
        job.tags = line.tags.unwrap_or_default();
        job.metadata = line.metadata.map(|metadata| Payload::parse(metadata.get())).transpose()?;
        job.parent_id = line.parent_id;
        Ok(job)
    }

    async fn length(&mut self, column: &str, length: Length) -> reveille::Result<Duration> {
        let text = match length {
            Length::Seconds(seconds) => {
                return Duration::try_from_secs_f64(seconds).map_err(|_| {
                    reveille::Error::invalid(format!("{column} must be a number of seconds from 0 on, not {seconds}"))
                });
            }
            Length::Text(text) => text,
        };
        if let Some(known) = self.lengths.get(&text) {
            return Ok(*known);
        }
        let length = self.admin.read_duration(&text).await?;
        if self.lengths.len() < MOST_TEXTS {
            self.lengths.insert(text, length);
        }
        Ok(length)
    }

    async fn time(&mut self, text: String) -> reveille::Result<SystemTime> {
        // A time with its offset has the same meaning everywhere, so the database need not be asked.
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(time.into());
        }
        if let Some(known) = self.times.get(&text) {
            return Ok(*known);
        }
        let time = self.admin.read_time(&text).await?;
        if self.times.len() < MOST_TEXTS {
            self.times.insert(text, time);
        }
        Ok(time)
    }
}

/// Returns an error about JSON with the column, but without the line: each line was read by itself.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} (column {})", error.column()),
        None => text,
    }
}
