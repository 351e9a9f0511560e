//! Process 1 of a container: runs the worker as a child process, passes signals on to it, and reaps orphans.
//!
//! The kernel makes orphans children of process 1, and a dead orphan stays a zombie until process 1 waits for it. A
//! worker cannot be process 1 itself: waiting for any child would take away the exit statuses of the worker's programs.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use clap::ValueEnum;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Failure, Outcome, program};

/// The choice whether the worker runs as a child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Init {
    /// Only as process 1.
    Auto,
    Always,
    Never,
}

impl Init {
    pub fn is_wanted(self) -> bool {
        match self {
            Init::Auto => getpid().is_init(),
            Init::Always => true,
            Init::Never => false,
        }
    }
}

/// Runs this command again as a child process, and ends as the child does.
pub async fn run() -> Outcome {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
    let mut ended = signal(SignalKind::child())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    // The child has a separate process group. A terminal's Ctrl-C then reaches only this process, which passes it on to
    // the child once.
    let worker = program::again()?
        .args(std::env::args_os().skip(1))
        .args(["--init", "never"].map(OsString::from))
        .process_group(0)
        .spawn()?;
    let worker = Pid::from_child(&worker);
    // Children may have ended before this process began to wait for SIGCHLD.
    let mut ended_as = reap(worker);
    loop {
        if let Some(status) = ended_as {
            return end_as(status);
        }
        let received = tokio::select! {
            _ = ended.recv() => {
                ended_as = reap(worker);
                continue;
            }
            _ = interrupt.recv() => Signal::INT,
            _ = terminate.recv() => Signal::TERM,
            _ = hangup.recv() => Signal::HUP,
            _ = quit.recv() => Signal::QUIT,
        };
        let _ = kill_process(worker, received);
    }
}

/// Reaps all children that have ended. Returns the worker's exit status if the worker is one of these children.
fn reap(worker: Pid) -> Option<WaitStatus> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == worker {
            return Some(status);
        }
    }
    None
}

fn end_as(status: WaitStatus) -> Outcome {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => Ok(()),
        // The worker has printed its error itself, so this process only exits.
        (Some(code), _) => std::process::exit(code),
        (None, signal) => Err(Failure::Error(format!("the worker ended by signal {}", signal.unwrap_or_default()))),
    }
}
