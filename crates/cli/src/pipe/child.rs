//! The life of one child: its processes, its pipes, and the steps from its start to its end.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, Command};

use super::Pipe;
use super::child_state::{Stage, Wakes};
use super::lines::{Lines, LinesEnd};
use super::message::{self, LONGEST_LINE};
use super::receive::receive;
use crate::program;
use crate::program_output::{LastLines, READ_ON};
use crate::strays::Watched;

/// The number of bytes of stderr that are read at once.
const PIECE: usize = 8 * 1024;
/// The most bytes of the end of stderr that an error holds. The library keeps 8 KiB of an error.
const LONGEST_TAIL: usize = 7 * 1024;
/// The time in which a killed keeper has to end everything. Then the keeper itself is killed.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// How the life of a child went.
pub struct Life {
    pub lived: Duration,
    /// The end of the child, for the log: how it ended, and the end of its stderr.
    pub end: String,
    /// True if the child ended as it was asked to.
    pub was_asked: bool,
}

/// The reason why the worker ends a child.
enum Ending {
    /// The child has exited.
    Exited(ExitStatus),
    /// The child broke the protocol. Its runs fail.
    Fault(String),
    /// The child is not needed any more, or has a stuck run. Its runs go back.
    Asked(String),
}

/// The next step of a child's life.
pub enum Step {
    Wait(Option<Instant>),
    CloseInput(Instant),
    Fault(String),
    Kill(String),
}

/// Starts a child, serves it, and returns after its end.
pub async fn live(pipe: &Arc<Pipe>) -> Life {
    let started = Instant::now();
    let (mut keeper, mut watched) = match start(pipe) {
        Ok(started) => started,
        Err(error) => {
            return Life { lived: Duration::ZERO, end: format!("could not be started: {error}"), was_asked: false };
        }
    };
    let (number, wakes) = pipe.fleet.add();
    tracing::debug!(name: "pipe.child_started", target: "reveille::pipe", child = number, "started a child");
    let tail = Arc::<Mutex<LastLines>>::default();
    let listening = tokio::spawn(listen(keeper.stderr.take(), Arc::clone(&tail)));
    let mut ending = serve(pipe, number, &wakes, &mut keeper, &watched).await;
    let has_exited = matches!(ending, Ending::Exited(_));
    if let Ending::Exited(status) = ending
        && pipe.fleet.with(number, |child| child.may_exit(status.success())) == Some(true)
    {
        ending = Ending::Asked(format!("has exited ({status})"));
    }
    pipe.fleet.with(number, |child| child.stage = Stage::Ended);
    pipe.fleet.changed();
    let status = if has_exited { keeper.wait().await } else { end(&mut keeper, &watched).await };
    if let Ok(status) = status {
        watched.ended(status).await;
    }
    let _ = tokio::time::timeout(READ_ON, listening).await;
    let tail = std::mem::take(&mut *tail.lock().unwrap_or_else(PoisonError::into_inner)).into_text();
    let (what, was_asked) = match ending {
        Ending::Exited(status) => (format!("ended by itself ({status})"), false),
        Ending::Fault(fault) => (format!("was killed: {fault}"), false),
        Ending::Asked(why) => (why, true),
    };
    let end = with_tail(what, &tail);
    let runs = pipe.fleet.remove(number, (!was_asked).then_some(&end));
    Pipe::log_end(number, runs, &end, was_asked);
    Life { lived: started.elapsed(), end, was_asked }
}

fn start(pipe: &Pipe) -> std::io::Result<(Child, Watched)> {
    let mut command = Command::from(program::again()?);
    command.args(["keep", "--pipe", "--"]).arg(&pipe.options.command);
    // These variables belong to the trace of the worker, not of a job.
    command.env_remove("TRACEPARENT").env_remove("TRACESTATE").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    pipe.options.passed.apply(&mut command);
    pipe.options.strays.start(command)
}

/// Serves a child until it has exited or has to be ended. When this returns, its pipes are closed.
async fn serve(pipe: &Pipe, number: u64, wakes: &Wakes, keeper: &mut Child, watched: &Watched) -> Ending {
    let (Some(stdin), Some(stdout)) = (keeper.stdin.take(), keeper.stdout.take()) else {
        return Ending::Fault("it has no pipes".into());
    };
    let reading = read(pipe, number, stdout);
    tokio::pin!(reading);
    let mut writing = Some(Box::pin(write(pipe, number, wakes, stdin)));
    let mut is_read = false;
    loop {
        let until = match pipe.next_step(number) {
            Step::Wait(until) => until,
            Step::CloseInput(until) => {
                writing = None;
                Some(until)
            }
            Step::Fault(fault) => return Ending::Fault(fault),
            Step::Kill(why) => return Ending::Asked(why),
        };
        tokio::select! {
            status = keeper.wait() => {
                // All that the child wrote before its end counts.
                if !is_read
                    && let Ok(Some(fault)) = tokio::time::timeout(READ_ON, &mut reading).await
                {
                    return Ending::Fault(fault);
                }
                return match status {
                    Ok(status) => Ending::Exited(status),
                    Err(error) => Ending::Fault(format!("cannot wait for its end: {error}")),
                };
            }
            end = &mut reading, if !is_read => match end {
                Some(fault) => return Ending::Fault(fault),
                None => is_read = true,
            },
            end = async { match &mut writing {
                Some(writing) => writing.await,
                None => std::future::pending().await,
            } } => {
                writing = None;
                if let WritingEnd::Stalled = end {
                    watched.wake();
                    return Ending::Fault(format!("it took nothing for {:?}", pipe.waits.stalled));
                }
                pipe.fleet.with(number, |child| child.input_closed = Some(Instant::now()));
            }
            () = wakes.life.notified() => {}
            () = sleep_until(until) => {}
        }
    }
}

/// Waits for the end of a keeper whose pipes are closed.
async fn end(keeper: &mut Child, watched: &Watched) -> std::io::Result<ExitStatus> {
    if let Some(status) = keeper.try_wait()? {
        return Ok(status);
    }
    // The child may have stopped its keeper by a signal.
    watched.wake();
    if let Ok(status) = tokio::time::timeout(KILLED_WITHIN, keeper.wait()).await {
        return status;
    }
    watched.kill();
    keeper.wait().await
}

/// Reads messages. Returns what was wrong with a message; `None` at the end of the output.
async fn read(pipe: &Pipe, number: u64, stdout: impl AsyncRead + Unpin) -> Option<String> {
    let mut lines = Lines::new(stdout, LONGEST_LINE);
    loop {
        match lines.next().await {
            Ok(line) => {
                if let Err(fault) = message::parse(line).and_then(|message| receive(pipe, number, message)) {
                    return Some(fault);
                }
            }
            Err(LinesEnd::TooLong) => return Some(format!("it wrote a line of more than {LONGEST_LINE} bytes")),
            Err(LinesEnd::Input) => return None,
        }
    }
}

enum WritingEnd {
    /// The child takes no more input.
    Closed,
    /// The child has taken nothing for too long.
    Stalled,
}

/// Writes the lines to a child.
async fn write(pipe: &Pipe, number: u64, wakes: &Wakes, mut stdin: impl AsyncWrite + Unpin) -> WritingEnd {
    loop {
        let lines = pipe.fleet.with(number, |child| child.take_lines()).unwrap_or_default();
        if lines.is_empty() {
            wakes.writer.notified().await;
            continue;
        }
        let mut rest = &lines[..];
        while !rest.is_empty() {
            match tokio::time::timeout(pipe.waits.stalled, stdin.write(rest)).await {
                Err(_) => return WritingEnd::Stalled,
                Ok(Ok(0) | Err(_)) => return WritingEnd::Closed,
                Ok(Ok(written)) => rest = &rest[written..],
            }
        }
    }
}

/// Reads stderr, passes it on to the worker's stderr, and keeps its end.
async fn listen(stderr: Option<ChildStderr>, tail: Arc<Mutex<LastLines>>) {
    let Some(mut stderr) = stderr else { return };
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        tail.lock().unwrap_or_else(PoisonError::into_inner).add(&piece[..length]);
    }
}

fn with_tail(what: String, tail: &str) -> String {
    if tail.is_empty() {
        return format!("{what}; it wrote nothing to stderr");
    }
    let from = (tail.len().saturating_sub(LONGEST_TAIL)..=tail.len()).find(|&at| tail.is_char_boundary(at));
    format!("{what}; the end of the stderr of all its jobs:\n{}", &tail[from.unwrap_or_default()..])
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
