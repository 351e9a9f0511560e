//! The journals of workers: files with the start and the end of each attempt, by the machine's monotonic clock. All
//! processes share this clock, and no fault shifts it.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Failure;

/// Returns the time since the machine was started.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// The journal of one worker process.
pub struct Journal(File);

impl Journal {
    pub fn open(path: &Path) -> Result<Journal, Failure> {
        Ok(Journal(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// Writes that an attempt begins. When the caller drops the returned entry, the entry writes that the attempt has
    /// ended.
    pub fn attempt(&self, job: u64, attempt: i32) -> OpenEntry<'_> {
        self.write('b', job, attempt, "");
        OpenEntry { journal: self, job, attempt }
    }

    /// Writes a note about an attempt: something of this name, with a value. Both are single words.
    pub fn note(&self, sign: char, job: u64, attempt: i32, name: &str, value: impl Display) {
        self.write(sign, job, attempt, &format!(" {name} {value}"));
    }

    /// Appends a line in a single write, so that a killed process leaves only whole lines.
    fn write(&self, sign: char, job: u64, attempt: i32, note: &str) {
        let line = format!("{sign} {job} {attempt} {}{note}\n", now().as_nanos());
        if let Err(error) = (&self.0).write_all(line.as_bytes()) {
            tracing::error!(%error, "cannot write to the journal");
        }
    }
}

/// An attempt that has begun. Dropping this writes that the attempt has ended.
pub struct OpenEntry<'a> {
    journal: &'a Journal,
    job: u64,
    attempt: i32,
}

impl OpenEntry<'_> {
    /// Writes that the attempt succeeds, as far as the handler knows.
    pub fn succeeds(&mut self) {
        self.journal.write('s', self.job, self.attempt, "");
    }
}

impl Drop for OpenEntry<'_> {
    fn drop(&mut self) {
        self.journal.write('e', self.job, self.attempt, "");
    }
}

/// An attempt in a journal. Its end is missing if its worker was killed during the attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub job: u64,
    pub began: Duration,
    /// The time at which the handler noted that the attempt succeeds.
    pub succeeded: Option<Duration>,
    pub ended: Option<Duration>,
}

/// A note about an attempt in a journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    pub sign: char,
    pub job: u64,
    pub attempt: u64,
    pub at: Duration,
    pub name: String,
    pub value: String,
}

/// Reads the attempts of one worker process from its journal.
pub fn read(text: &str) -> Vec<Attempt> {
    let (mut attempts, mut open) = (Vec::new(), HashMap::new());
    for line in text.lines() {
        let mut fields = line.split(' ');
        let sign = fields.next();
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (Some(job), Some(attempt), Some(at)) = (number(), number(), number()) else { continue };
        let at = Duration::from_nanos(at);
        match sign {
            Some("b") => {
                open.insert((job, attempt), attempts.len());
                attempts.push(Attempt { job, began: at, succeeded: None, ended: None });
            }
            Some("s") => {
                if let Some(&place) = open.get(&(job, attempt)) {
                    attempts[place].succeeded = Some(at);
                }
            }
            Some("e") => {
                if let Some(place) = open.remove(&(job, attempt)) {
                    attempts[place].ended = Some(at);
                }
            }
            // A note.
            _ => {}
        }
    }
    attempts
}

/// Reads the notes of one worker process from its journal.
pub fn notes(text: &str) -> Vec<Note> {
    let note = |line: &str| {
        let mut fields = line.split(' ');
        let sign = fields.next()?.chars().next()?;
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (job, attempt, at) = (number()?, number()?, Duration::from_nanos(number()?));
        Some(Note { sign, job, attempt, at, name: fields.next()?.to_owned(), value: fields.next()?.to_owned() })
    };
    text.lines().filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_an_end_unless_its_worker_was_killed() {
        let attempts = read("b 7 1 1000\nb 8 1 2000\ns 7 1 2500\nc 8 1 2600 first 0\ne 7 1 3000\nb 7 2 4000\n");
        let at = Duration::from_nanos;
        let first = Attempt { job: 7, began: at(1000), succeeded: Some(at(2500)), ended: Some(at(3000)) };
        assert_eq!(attempts[0], first);
        assert_eq!((attempts[1].ended, attempts[2].ended, attempts.len()), (None, None, 3));
        assert_eq!(attempts[2].succeeded, None);
    }

    #[test]
    fn a_note_stands_beside_the_attempts() {
        let notes = notes("b 8 1 2000\nr 8 1 2600 first 17\ne 8 1 3000\n");
        let (name, value) = ("first".to_owned(), "17".to_owned());
        assert_eq!(notes, [Note { sign: 'r', job: 8, attempt: 1, at: Duration::from_nanos(2600), name, value }]);
    }
}
