//! Programs end with their worker, however it dies: a process beside the worker knows the keepers of all attempts,
//! and ends those that have not ended by themselves when the pipe from the worker closes.

use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};

use crate::processes::kill_tree;
use crate::{Failure, Outcome, program};

/// How long a keeper has to end by itself after its worker has ended.
const BY_ITSELF: Duration = Duration::from_secs(1);
/// How soon a watchdog is started again that has ended.
const ANEW: Duration = Duration::from_millis(100);

/// The worker's side.
#[derive(Clone)]
pub struct Watchdog(Arc<Mutex<Kept>>);

struct Kept {
    id: Pid,
    /// The worker's end of the pipe.
    pipe: ChildStdin,
    keepers: HashSet<Pid>,
}

impl Watchdog {
    /// Starts the process beside this one, and starts it again whenever it ends.
    pub fn start() -> Result<Watchdog, Failure> {
        let (mut process, pipe) = start()?;
        let kept = Kept { id: Pid::from_child(&process), pipe, keepers: HashSet::new() };
        let watchdog = Watchdog(Arc::new(Mutex::new(kept)));
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
            std::thread::sleep(ANEW);
            match start() {
                Ok((process, pipe)) => {
                    let mut kept = self.kept();
                    (kept.id, kept.pipe) = (Pid::from_child(&process), pipe);
                    let keepers: Vec<Pid> = kept.keepers.iter().copied().collect();
                    keepers.into_iter().for_each(|keeper| kept.say('+', keeper));
                    return process;
                }
                Err(error) => {
                    tracing::error!(
                        name: "watchdog.start_failed", target: "reveille::worker", %error, "cannot start the watchdog"
                    );
                }
            }
        }
    }

    pub fn watch(&self, keeper: Pid) {
        let mut kept = self.kept();
        kept.keepers.insert(keeper);
        kept.say('+', keeper);
    }

    pub fn unwatch(&self, keeper: Pid) {
        let mut kept = self.kept();
        kept.keepers.remove(&keeper);
        kept.say('-', keeper);
    }

    /// Whether a child of this process is one of those that it has started itself.
    pub fn knows(&self, child: Pid) -> bool {
        let kept = self.kept();
        kept.id == child || kept.keepers.contains(&child)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn say(&mut self, sign: char, keeper: Pid) {
        // One that has just ended learns it when it is started again.
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

/// The process beside: reads which keepers there are until the worker is gone, then ends those that are left.
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
    let deadline = std::time::Instant::now() + BY_ITSELF;
    while keepers.iter().any(lives) && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    keepers.into_iter().filter(lives).for_each(kill_tree);
    Ok(())
}
