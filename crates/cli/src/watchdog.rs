//! A process beside the worker that ends all programs once the worker has ended in any way.
//!
//! The watchdog learns of the keepers of all attempts by a pipe from the worker. When the pipe closes, the watchdog
//! kills the keepers that do not end by themselves.

use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};

use crate::processes::kill_tree;
use crate::{Failure, Outcome, program};

/// The time in which a keeper has to end by itself after its worker has ended.
const TIME_TO_END: Duration = Duration::from_secs(1);
/// The delay after which a watchdog that has ended is started again.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// The worker's side of the watchdog.
#[derive(Clone)]
pub struct Watchdog(Arc<Mutex<WatchdogProcess>>);

struct WatchdogProcess {
    id: Pid,
    /// The worker's end of the pipe to the watchdog.
    pipe: ChildStdin,
    keepers: HashSet<Pid>,
}

impl Watchdog {
    /// Starts the watchdog's process, and starts it again whenever it ends.
    pub fn start() -> Result<Watchdog, Failure> {
        let (mut process, pipe) = start()?;
        let state = WatchdogProcess { id: Pid::from_child(&process), pipe, keepers: HashSet::new() };
        let watchdog = Watchdog(Arc::new(Mutex::new(state)));
        let started = watchdog.clone();
        std::thread::spawn(move || {
            loop {
                let ended = process.wait();
                tracing::warn!(
                    name: "watchdog.ended", target: "reveille::worker", ?ended,
                    "the watchdog has ended; starting it again"
                );
                process = started.start_again();
            }
        });
        Ok(watchdog)
    }

    fn start_again(&self) -> Child {
        loop {
            std::thread::sleep(RESTART_DELAY);
            match start() {
                Ok((process, pipe)) => {
                    let mut watchdog = self.lock();
                    (watchdog.id, watchdog.pipe) = (Pid::from_child(&process), pipe);
                    let keepers: Vec<Pid> = watchdog.keepers.iter().copied().collect();
                    keepers.into_iter().for_each(|keeper| watchdog.send('+', keeper));
                    return process;
                }
                Err(error) => {
                    tracing::error!(
                        name: "watchdog.start_failed", target: "reveille::worker", %error,
                        "cannot start the watchdog; trying again"
                    );
                }
            }
        }
    }

    pub fn watch(&self, keeper: Pid) {
        let mut watchdog = self.lock();
        watchdog.keepers.insert(keeper);
        watchdog.send('+', keeper);
    }

    pub fn unwatch(&self, keeper: Pid) {
        let mut watchdog = self.lock();
        watchdog.keepers.remove(&keeper);
        watchdog.send('-', keeper);
    }

    /// Returns true if this process started the child itself: as a keeper, or as the watchdog.
    pub fn knows(&self, child: Pid) -> bool {
        let watchdog = self.lock();
        watchdog.id == child || watchdog.keepers.contains(&child)
    }

    fn lock(&self) -> MutexGuard<'_, WatchdogProcess> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchdogProcess {
    fn send(&mut self, sign: char, keeper: Pid) {
        // Ignores an error: if the watchdog has just ended, it learns of all keepers when it is started again.
        let _ = writeln!(self.pipe, "{sign}{}", keeper.as_raw_nonzero());
    }
}

fn start() -> std::io::Result<(Child, ChildStdin)> {
    let mut process = program::again()?
        .arg("watchdog")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pipe = process.stdin.take().ok_or_else(|| std::io::Error::other("the watchdog has no stdin"))?;
    Ok((process, pipe))
}

/// The watchdog's side: learns of keepers until the worker has ended, then kills the keepers that are left.
pub fn run() -> Outcome {
    let mut keepers = HashSet::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let keeper = line.get(1..).and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        match (line.as_bytes().first(), keeper) {
            (Some(b'+'), Some(keeper)) => keepers.insert(keeper),
            (Some(b'-'), Some(keeper)) => keepers.remove(&keeper),
            _ => false,
        };
    }
    let lives = |keeper: &Pid| test_kill_process(*keeper).is_ok();
    let deadline = std::time::Instant::now() + TIME_TO_END;
    while keepers.iter().any(lives) && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    keepers.into_iter().filter(lives).for_each(kill_tree);
    Ok(())
}
