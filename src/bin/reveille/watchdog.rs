//! Children of a worker end with it, however it dies: a process beside it knows their process groups, and kills them when
//! the pipe from the worker closes.

use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{Failure, Outcome, program};

/// The worker's end of the pipe.
pub struct Watchdog(Mutex<ChildStdin>);

impl Watchdog {
    /// Starts the process beside this one.
    pub fn start() -> Result<Watchdog, Failure> {
        let mut child = program::again()?
            .arg("watchdog")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take().ok_or_else(|| "the watchdog has no stdin".to_owned())?;
        Ok(Watchdog(Mutex::new(stdin)))
    }

    pub fn watch(&self, group: Pid) {
        self.say('+', group);
    }

    pub fn unwatch(&self, group: Pid) {
        self.say('-', group);
    }

    fn say(&self, sign: char, group: Pid) {
        let mut stdin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(stdin, "{sign}{}", group.as_raw_nonzero()) {
            tracing::debug!(%error, "the watchdog is gone");
        }
    }
}

/// The process beside: reads groups until the worker is gone, then kills those that are left.
pub fn run() -> Outcome {
    let mut groups = HashSet::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let group = line.get(1..).and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        match (line.as_bytes().first(), group) {
            (Some(b'+'), Some(group)) => groups.insert(group),
            (Some(b'-'), Some(group)) => groups.remove(&group),
            _ => false,
        };
    }
    for group in groups {
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(())
}
