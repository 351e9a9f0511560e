//! Process 1 of a container: runs the worker as a child, passes signals on to it, and buries orphans.
//!
//! The kernel gives orphans to process 1, which has to wait for them; else each stays as a zombie. A worker cannot do
//! both: waiting for any child takes away the exit statuses of the programs that it runs.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use clap::ValueEnum;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Failure, Outcome, program};

/// Whether to be such a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Init {
    /// If this is process 1.
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

/// Runs this very command in a child, and ends as it does.
pub async fn run() -> Outcome {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
    let mut ended = signal(SignalKind::child())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    // In a group of its own, so that a terminal's Ctrl-C reaches it once, by way of this process.
    let worker = program::again()?
        .args(std::env::args_os().skip(1))
        .args(["--init", "never"].map(OsString::from))
        .process_group(0)
        .spawn()?;
    let worker = Pid::from_child(&worker);
    // What this process was given before it heard of such ends.
    let mut over = bury(worker);
    loop {
        if let Some(status) = over {
            return end_as(status);
        }
        let told = tokio::select! {
            _ = ended.recv() => {
                over = bury(worker);
                continue;
            }
            _ = interrupt.recv() => Signal::INT,
            _ = terminate.recv() => Signal::TERM,
            _ = hangup.recv() => Signal::HUP,
            _ = quit.recv() => Signal::QUIT,
        };
        let _ = kill_process(worker, told);
    }
}

/// Waits for all children that have ended; how the worker did, if it is one of them.
fn bury(worker: Pid) -> Option<WaitStatus> {
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
        // What there was to say, the worker has said.
        (Some(code), _) => std::process::exit(code),
        (None, signal) => Err(Failure::Error(format!("the worker ended by signal {}", signal.unwrap_or_default()))),
    }
}
