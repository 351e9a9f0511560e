//! A process between the worker and the program of one attempt, which keeps the attempt's processes together.
//!
//! On Linux the keeper is a subreaper: every process that the program starts stays below the keeper, even a process
//! that calls `setsid` or loses its parent. When the program or the worker ends, the keeper kills all processes that
//! are left and ends as the program did. On other systems, the keeper kills only the program's process group.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, setrlimit, wait,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::processes::children_of;

/// Runs one shell command. Stdin has a line with the payload's length, then the payload, then a `t` if the command is
/// asked to end. When stdin ends, the keeper kills the command.
#[derive(Args)]
pub struct KeepCommand {
    /// Leave stdin and stdout to the command. When the reader of stdout is gone, the keeper kills the command.
    #[arg(long)]
    pipe: bool,
    command: String,
}

/// The byte after the payload that asks the program to end.
const TERMINATE: u8 = b't';
/// The exit status of shells for a command that could not be run.
const NOT_RUN: u8 = 127;
/// Shells exit with this number plus a signal's number if the signal has ended the command.
const BY_SIGNAL: i32 = 128;

/// The worker's side of the pipe: sends the payload, and asks the program to end once `cancelled` completes.
///
/// This returns only on an error. Dropping the pipe kills the program.
pub async fn guide(pipe: &mut (impl AsyncWrite + Unpin), payload: &[u8], cancelled: impl Future) -> io::Error {
    let guiding = async {
        pipe.write_all(format!("{}\n", payload.len()).as_bytes()).await?;
        pipe.write_all(payload).await?;
        pipe.flush().await?;
        cancelled.await;
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

impl KeepCommand {
    /// Runs the program until the program and all its descendants have ended.
    pub fn run(self) -> ExitCode {
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(Some(getpid()));
        if let Err(error) = outlive_hangups() {
            say!("cannot ignore hangups, so a program may outlive its keeper: {error}");
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).process_group(0);
        if !self.pipe {
            command.stdin(Stdio::piped());
        }
        let mut program = match command.spawn() {
            Ok(program) => program,
            Err(error) => {
                say!("cannot run the command: {error}");
                return ExitCode::from(NOT_RUN);
            }
        };
        let id = Pid::from_child(&program);
        let stdin = program.stdin.take();
        if self.pipe {
            release_stdin();
            std::thread::spawn(move || follow_reader(id));
        } else {
            std::thread::spawn(move || follow_worker(id, stdin));
        }
        let status = reap(id);
        let _ = kill_process_group(id, Signal::KILL);
        end_all();
        end_as(status)
    }
}

/// Keeps this process alive at a hangup.
///
/// If the worker dies while this process is stopped, the kernel sends a hangup to this process and continues it. This
/// process must then still kill the processes below it.
fn outlive_hangups() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    // The signal's handler stays after the runtime is dropped.
    signal(SignalKind::hangup()).map(drop)
}

/// Obeys the worker's commands on stdin. Once stdin ends, kills all processes below this process.
fn follow_worker(group: Pid, program: Option<impl Write + Send + 'static>) {
    let mut worker = BufReader::new(io::stdin());
    if let Ok(payload) = payload(&mut worker) {
        std::thread::spawn(move || {
            // Ignores an error, because a program need not read its payload.
            program.map(|mut program| program.write_all(&payload))
        });
        while let Some(Ok(command)) = worker.by_ref().bytes().next() {
            if command == TERMINATE {
                let _ = kill_process_group(group, Signal::TERM);
            }
        }
    }
    kill_all(group)
}

/// Waits until the worker no longer reads stdout: it has closed the pipe, or is dead. Then kills all processes below
/// this process.
fn follow_reader(group: Pid) {
    let stdout = io::stdout();
    loop {
        // Without events to wait for, only the end of the reader is reported.
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut polled, None) {
            Ok(0) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(_) | Err(_) => break,
        }
    }
    kill_all(group)
}

/// Gives up this process's end of the pipe to the program, so that the worker notices when the program has closed its
/// own.
fn release_stdin() {
    if let Ok(nothing) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(nothing);
    }
}

/// Kills all processes below this process. This loop has no end: the main thread notices the program's end, and ends
/// this process.
fn kill_all(group: Pid) {
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

/// Waits for the program's end, and reaps all other processes that end before it.
fn reap(program: Pid) -> Option<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => return Some(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Kills all remaining descendants of the program. By now, they are children of this process.
fn end_all() {
    // Nearly always, no descendant is left, and the loop ends after one call.
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

/// Ends with the program's exit status, or by the signal that ended the program.
fn end_as(status: Option<WaitStatus>) -> ExitCode {
    let Some(status) = status else { return ExitCode::from(NOT_RUN) };
    if let Some(code) = status.exit_status() {
        return ExitCode::from(code as u8);
    }
    let number = status.terminating_signal().unwrap_or_default();
    if let Some(signal) = Signal::from_named_raw(number) {
        // Prevents a core dump of this process. The useful core is the program's, which the program has dumped itself.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = kill_process(getpid(), signal);
    }
    ExitCode::from((BY_SIGNAL + number) as u8)
}
