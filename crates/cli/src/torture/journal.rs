//! The journals of workers: files with the start and the end of each attempt, by the machine's monotonic clock. All
//! processes share this clock, and no fault shifts it.

use std::collections::HashMap;
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
        self.write('b', job, attempt);
        OpenEntry { journal: self, job, attempt }
    }

    /// Appends a line in a single write, so that a killed process leaves only whole lines.
    fn write(&self, sign: char, job: u64, attempt: i32) {
        if let Err(error) = (&self.0).write_all(format!("{sign} {job} {attempt} {}\n", now().as_nanos()).as_bytes()) {
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

impl Drop for OpenEntry<'_> {
    fn drop(&mut self) {
        self.journal.write('e', self.job, self.attempt);
    }
}

/// An attempt in a journal. Its end is missing if its worker was killed during the attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub job: u64,
    pub began: Duration,
    pub ended: Option<Duration>,
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
                attempts.push(Attempt { job, began: at, ended: None });
            }
            _ => {
                if let Some(place) = open.remove(&(job, attempt)) {
                    attempts[place].ended = Some(at);
                }
            }
        }
    }
    attempts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_an_end_unless_its_worker_was_killed() {
        let attempts = read("b 7 1 1000\nb 8 1 2000\ne 7 1 3000\nb 7 2 4000\n");
        let at = Duration::from_nanos;
        assert_eq!(attempts[0], Attempt { job: 7, began: at(1000), ended: Some(at(3000)) });
        assert_eq!((attempts[1].ended, attempts[2].ended, attempts.len()), (None, None, 3));
    }
}
