//! A handler that is a program.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reveille::job::Payload;
use reveille::{Context, Outcome};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdout, Command};

use crate::watchdog::Watchdog;

/// Exit status for "try again later": `EX_TEMPFAIL` of sysexits.h.
const TRY_LATER: i32 = 75;
/// Exit status for "the data is wrong, do not try again": `EX_DATAERR` of sysexits.h.
const PERMANENT: i32 = 65;
/// How many lines of stderr are kept as the error.
const LAST_LINES: usize = 20;
/// How much of one of them, in bytes.
const LONGEST_LINE: usize = 1000;
/// How many bytes of stdout can be a result.
const LONGEST_RESULT: usize = 1 << 20;

/// A shell command that works jobs of any kind.
pub struct Program {
    pub command: String,
    pub later: Duration,
    /// Whether what it prints is the job's result; else it goes where the worker's own output goes.
    pub keeps_output: bool,
    pub watchdog: Watchdog,
}

/// How a command ended, and what it said.
struct Ended {
    status: ExitStatus,
    error: String,
    output: Vec<u8>,
}

impl Program {
    /// One attempt. If it is dropped before its end, the command and all that it started are killed.
    pub async fn run(self: Arc<Self>, context: Context) -> Outcome {
        match self.attempt(&context).await {
            Ok(ended) => self.judge(ended),
            // Nor will it be shorter at the next attempt.
            Err(error) if error.kind() == ErrorKind::ArgumentListTooLong => {
                Outcome::Dead("the job's metadata and tags are too long for a command's environment".into())
            }
            Err(error) => Outcome::Fail(format!("cannot run the command: {error}")),
        }
    }

    async fn attempt(&self, context: &Context) -> std::io::Result<Ended> {
        let mut child = self.command(context).spawn()?;
        let group = child.id().and_then(|id| Group::watched(id, &self.watchdog));
        let payload = context.job().payload.as_bytes().to_vec();
        let stdin = child.stdin.take();
        let feeding = async {
            if let Some(mut stdin) = stdin {
                // A command need not read its payload.
                let _ = stdin.write_all(&payload).await;
            }
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let cancellation = context.cancellation();
        let ending = async {
            let (status, ()) = tokio::join!(child.wait(), feeding);
            // What it left running in the background is not waited for.
            status
        };
        let (mut error, mut output) = (VecDeque::new(), Vec::new());
        let status = {
            let listening = async { tokio::join!(last_lines(stderr, &mut error), result(stdout, &mut output)) };
            tokio::pin!(ending, listening);
            let mut has_said_all = false;
            let status = loop {
                tokio::select! {
                    status = &mut ending => break status?,
                    _ = &mut listening, if !has_said_all => has_said_all = true,
                    () = cancellation.cancelled(), if group.as_ref().is_some_and(Group::untold) => {
                        if let Some(group) = &group { group.terminate() }
                    }
                }
            };
            if !has_said_all {
                // Something in the background may hold stdout or stderr open: take what comes at once.
                let _ = tokio::time::timeout(Duration::from_millis(200), listening).await;
            }
            status
        };
        Ok(Ended { status, error: Vec::from(error).join("\n"), output })
    }

    fn command(&self, context: &Context) -> Command {
        let job = context.job();
        let attempt = context.attempt();
        let metadata = job.metadata.as_ref().map_or(&b"{}"[..], |metadata| metadata.as_bytes());
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(&self.command)
            .env("REVEILLE_JOB_ID", context.id().to_string())
            .env("REVEILLE_JOB_KIND", &job.kind)
            .env("REVEILLE_JOB_QUEUE", &job.queue)
            .env("REVEILLE_JOB_ATTEMPT", attempt.number.to_string())
            .env("REVEILLE_JOB_FAILURES", attempt.failures.to_string())
            .env("REVEILLE_JOB_MAX_ATTEMPTS", attempt.max_attempts.to_string())
            .env("REVEILLE_JOB_KEY", job.key.as_deref().unwrap_or_default())
            .env("REVEILLE_JOB_TAGS", job.tags.join(","))
            .env("REVEILLE_JOB_METADATA", String::from_utf8_lossy(metadata).as_ref())
            // The worker's own surroundings are another trace.
            .env_remove("TRACEPARENT")
            .env_remove("TRACESTATE")
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(if self.keeps_output { Stdio::piped() } else { Stdio::inherit() })
            .stderr(Stdio::piped());
        if let Some(trace) = context.trace() {
            command.env("TRACEPARENT", trace.traceparent()).envs(trace.tracestate().map(|state| ("TRACESTATE", state)));
        }
        command
    }

    fn judge(&self, Ended { status, error, output }: Ended) -> Outcome {
        let error = |what: String| if error.is_empty() { what } else { format!("{what}: {error}") };
        match status.code() {
            Some(0) if output.len() > LONGEST_RESULT => {
                tracing::warn!(name: "job.result_dropped", target: "reveille::job", error = "it is larger than 1 MiB", "the result cannot be kept");
                Outcome::Complete
            }
            Some(0) if output.is_empty() => Outcome::Complete,
            Some(0) => json_or_text(&output).map_or_else(
                |error| {
                    tracing::warn!(name: "job.result_dropped", target: "reveille::job", %error, "the result cannot be kept");
                    Outcome::Complete
                },
                Outcome::CompleteWith,
            ),
            Some(TRY_LATER) => Outcome::Snooze(self.later),
            Some(PERMANENT) => Outcome::Dead(error("exit status 65".into())),
            _ => Outcome::Fail(error(status.to_string())),
        }
    }
}

/// The process group of one command.
struct Group<'a> {
    id: Pid,
    told: std::cell::Cell<bool>,
    watchdog: &'a Watchdog,
}

impl<'a> Group<'a> {
    fn watched(id: u32, watchdog: &'a Watchdog) -> Option<Group<'a>> {
        let id = Pid::from_raw(i32::try_from(id).ok()?)?;
        watchdog.watch(id);
        Some(Group { id, told: false.into(), watchdog })
    }

    /// Whether it has not been asked to end yet.
    fn untold(&self) -> bool {
        !self.told.get()
    }

    fn terminate(&self) {
        self.told.set(true);
        let _ = kill_process_group(self.id, Signal::TERM);
    }
}

impl Drop for Group<'_> {
    /// Nothing of an attempt outlives it.
    fn drop(&mut self) {
        let _ = kill_process_group(self.id, Signal::KILL);
        self.watchdog.unwatch(self.id);
    }
}

/// The end of what it says on stderr, which is passed on as well.
async fn last_lines(stderr: Option<ChildStderr>, last: &mut VecDeque<String>) {
    let Some(stderr) = stderr else { return };
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).into_owned();
        say!("{line}");
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.chars().take(LONGEST_LINE).collect::<String>());
    }
}

/// What it prints on stdout, but no more than tells that it is too much.
async fn result(stdout: Option<ChildStdout>, output: &mut Vec<u8>) {
    let Some(mut stdout) = stdout else { return };
    let most = LONGEST_RESULT as u64 + 1;
    let _ = (&mut stdout).take(most).read_to_end(output).await;
    // It is not to wait for somebody who reads.
    let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
}

/// JSON as it was printed, if it is some that Postgres can store; else text.
fn json_or_text(output: &[u8]) -> reveille::Result<Payload> {
    let text = String::from_utf8_lossy(output);
    let json = std::str::from_utf8(output).ok().and_then(|json| Payload::parse(json).ok());
    json.map_or_else(|| Payload::encode(text.trim_end_matches('\n')), Ok)
}
