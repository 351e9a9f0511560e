//! A handler that runs a shell command for each job.

use std::io::ErrorKind;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reveille::job::Payload;
use reveille::{Context, Outcome};
use tokio::process::Command;

use crate::passed_variables::PassedVariables;
use crate::program_output::{LONGEST_RESULT, LastLines, READ_ON, read_result};
use crate::strays::Strays;
use crate::{keeper, program};

/// The exit status for "try again later": `EX_TEMPFAIL` of sysexits.h.
const TRY_LATER: i32 = 75;
/// The exit status for "the data is wrong, do not try again": `EX_DATAERR` of sysexits.h.
const PERMANENT: i32 = 65;
/// A shell command that works jobs of any kind.
pub struct Program {
    pub command: String,
    /// The time that a job waits after exit status 75.
    pub later: Duration,
    /// True if stdout is the job's result. Otherwise, stdout goes to the worker's stdout.
    pub keeps_output: bool,
    pub passed: PassedVariables,
    pub strays: Arc<Strays>,
}

/// The end of a command, and its output.
struct ProgramEnd {
    status: ExitStatus,
    stderr: String,
    stdout: Vec<u8>,
}

impl Program {
    /// Makes one attempt. Dropping the future kills the command and all processes that the command has started.
    pub async fn run(self: Arc<Self>, context: Context) -> Outcome {
        match self.attempt(&context).await {
            Ok(end) => self.outcome(end),
            // The next attempt would fail too, because its argument list would be as long.
            Err(error) if error.kind() == ErrorKind::ArgumentListTooLong => {
                Outcome::Dead("the job's metadata and tags are too long for a command's environment".into())
            }
            Err(error) => Outcome::Fail(format!("cannot run the command: {error}")),
        }
    }

    async fn attempt(&self, context: &Context) -> std::io::Result<ProgramEnd> {
        let (mut keeper, mut watched) = self.strays.start(self.command(context)?)?;
        let (pipe, stdout, stderr) = (keeper.stdin.take(), keeper.stdout.take(), keeper.stderr.take());
        let cancellation = context.cancellation();
        // When this future is dropped, the pipe closes, and the keeper kills all processes that are left.
        let guiding = async {
            if let Some(mut pipe) = pipe {
                keeper::guide(&mut pipe, context.job().payload.as_bytes(), cancellation.cancelled()).await;
            }
            std::future::pending::<()>().await
        };
        let (mut last_lines, mut output) = (LastLines::default(), Vec::new());
        let status = {
            let reading = async { tokio::join!(last_lines.read(stderr), read_result(stdout, &mut output)) };
            tokio::pin!(guiding, reading);
            let mut has_read_all = false;
            let status = loop {
                tokio::select! {
                    status = keeper.wait() => break status?,
                    _ = &mut reading, if !has_read_all => has_read_all = true,
                    () = &mut guiding => {}
                }
            };
            if !has_read_all {
                let _ = tokio::time::timeout(READ_ON, reading).await;
            }
            status
        };
        watched.ended(status).await;
        Ok(ProgramEnd { status, stderr: last_lines.into_text(), stdout: output })
    }

    fn command(&self, context: &Context) -> std::io::Result<Command> {
        let job = context.job();
        let attempt = context.attempt();
        let metadata = job.metadata.as_ref().map_or(&b"{}"[..], |metadata| metadata.as_bytes());
        let mut command = Command::from(program::again()?);
        command
            .arg("keep")
            .arg("--")
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
            // Removes the worker's own trace variables, because they belong to another trace.
            .env_remove("TRACEPARENT")
            .env_remove("TRACESTATE")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(if self.keeps_output { Stdio::piped() } else { Stdio::inherit() })
            .stderr(Stdio::piped());
        self.passed.apply(&mut command);
        if let Some(trace) = context.trace() {
            command.env("TRACEPARENT", trace.traceparent()).envs(trace.tracestate().map(|state| ("TRACESTATE", state)));
        }
        Ok(command)
    }

    fn outcome(&self, ProgramEnd { status, stderr, stdout }: ProgramEnd) -> Outcome {
        let error = |what: String| if stderr.is_empty() { what } else { format!("{what}: {stderr}") };
        match status.code() {
            Some(0) if stdout.len() > LONGEST_RESULT => {
                let error = "it is larger than 1 MiB";
                tracing::warn!(
                    name: "job.result_dropped", target: "reveille::job", error,
                    "the job's result is dropped; the job is completed without it"
                );
                Outcome::Complete
            }
            Some(0) if stdout.is_empty() => Outcome::Complete,
            Some(0) => json_or_text(&stdout).map_or_else(
                |error| {
                    tracing::warn!(
                        name: "job.result_dropped", target: "reveille::job", %error,
                        "the job's result is dropped; the job is completed without it"
                    );
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

/// Reads the output as JSON if Postgres can store the JSON, else as text.
fn json_or_text(output: &[u8]) -> reveille::Result<Payload> {
    let text = String::from_utf8_lossy(output);
    let json = std::str::from_utf8(output).ok().and_then(|json| Payload::parse(json).ok());
    json.map_or_else(|| Payload::encode(text.trim_end_matches('\n')), Ok)
}
