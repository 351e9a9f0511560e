//! One attempt of a program, kept together: a process between the worker and the program.
//!
//! On Linux the keeper is a subreaper: whatever the program starts stays below the keeper, also what calls `setsid`
//! or loses its parent. When the program ends, or the worker, the keeper kills all that is left and ends as the
//! program did. Elsewhere the keeper kills the program's process group.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, setrlimit, wait,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::processes::children_of;

/// A process of a shell command's own: its payload comes on stdin, behind a line with its length, and then, if the
/// command is to be asked to end, a `t`. Where stdin ends, the worker has no more use for the command.
#[derive(Args)]
pub struct Keeper {
    command: String,
}

/// What the worker's end of the pipe says after the payload to have the program asked to end.
const TERMINATE: u8 = b't';
/// Exit status of shells for a command that could not be run.
const NOT_RUN: u8 = 127;
/// To this exit status shells add a signal's number.
const BY_SIGNAL: i32 = 128;

/// The worker's side: gives the program its payload, and asks it to end when told to. Ends with an error only; the
/// program is killed when this is dropped.
pub async fn guide(pipe: &mut (impl AsyncWrite + Unpin), payload: &[u8], told: impl Future) -> io::Error {
    let guiding = async {
        pipe.write_all(format!("{}\n", payload.len()).as_bytes()).await?;
        pipe.write_all(payload).await?;
        pipe.flush().await?;
        told.await;
        pipe.write_all(&[TERMINATE]).await?;
        pipe.flush().await?;
        std::future::pending().await
    };
    let ended: io::Result<std::convert::Infallible> = guiding.await;
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

impl Keeper {
    /// Until the program has ended, and all that it left.
    pub fn run(self) -> ExitCode {
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(Some(getpid()));
        if let Err(error) = outlive_hangups() {
            say!("a program's keeper may end before it: {error}");
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).process_group(0).stdin(Stdio::piped());
        let mut program = match command.spawn() {
            Ok(program) => program,
            Err(error) => {
                say!("cannot run the command: {error}");
                return ExitCode::from(NOT_RUN);
            }
        };
        let id = Pid::from_child(&program);
        let stdin = program.stdin.take();
        std::thread::spawn(move || listen(id, stdin));
        let status = reap(id);
        let _ = kill_process_group(id, Signal::KILL);
        end_all();
        end_as(status)
    }
}

/// Where its worker dies while this process is stopped, the kernel sends a hangup and lets it go on. It has still to
/// kill what is below it.
fn outlive_hangups() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    // From here on the signal has a handler, whatever becomes of this.
    signal(SignalKind::hangup()).map(drop)
}

/// Does what the worker says, until the worker says no more.
fn listen(group: Pid, program: Option<impl Write + Send + 'static>) {
    let mut worker = BufReader::new(io::stdin());
    if let Ok(payload) = payload(&mut worker) {
        std::thread::spawn(move || {
            // A program need not read its payload.
            program.map(|mut program| program.write_all(&payload))
        });
        while let Some(Ok(said)) = worker.by_ref().bytes().next() {
            if said == TERMINATE {
                let _ = kill_process_group(group, Signal::TERM);
            }
        }
    }
    // The main thread sees the program's end, and ends the rest.
    loop {
        let _ = kill_process_group(group, Signal::KILL);
        children_of(&[getpid()]).into_iter().for_each(kill);
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn payload(worker: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut length = String::new();
    worker.read_line(&mut length)?;
    let length = length.trim_end().parse().map_err(io::Error::other)?;
    let mut payload = vec![0; length];
    worker.read_exact(&mut payload)?;
    Ok(payload)
}

fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}

/// Waits for the program's end, and buries whatever else ends until then.
fn reap(program: Pid) -> Option<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => return Some(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Kills what has come to this process from the program, and what comes from those, until there is nothing left.
fn end_all() {
    // In nearly all cases there is nothing, which costs one call.
    while let Ok(ended) = wait(WaitOptions::NOHANG) {
        if ended.is_none() {
            let left = children_of(&[getpid()]);
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(kill);
            let _ = wait(WaitOptions::empty());
        }
    }
}

/// Ends with the exit status of the program, or by the signal that it ended by.
fn end_as(status: Option<WaitStatus>) -> ExitCode {
    let Some(status) = status else { return ExitCode::from(NOT_RUN) };
    if let Some(code) = status.exit_status() {
        return ExitCode::from(code as u8);
    }
    let number = status.terminating_signal().unwrap_or_default();
    if let Some(signal) = Signal::from_named_raw(number) {
        // The program has left its own picture, if any.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = kill_process(getpid(), signal);
    }
    ExitCode::from((BY_SIGNAL + number) as u8)
}
