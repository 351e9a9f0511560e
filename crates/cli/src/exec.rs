//! A handler that runs a shell command for each job.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reveille::job::Payload;
use reveille::{Context, Outcome};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::process::{Child, Command};

use crate::processes::children_of;
use crate::program_output::{LONGEST_RESULT, LastLines, read_result};
use crate::watchdog::Watchdog;
use crate::{keeper, program};

/// The exit status for "try again later": `EX_TEMPFAIL` of sysexits.h.
const TRY_LATER: i32 = 75;
/// The exit status for "the data is wrong, do not try again": `EX_DATAERR` of sysexits.h.
const PERMANENT: i32 = 65;
/// The variables that hold the database's address and password, besides `PG*`.
const DATABASE: [&str; 2] = ["DATABASE_URL", "REVEILLE_LISTEN_URL"];

/// The largest number of searches for the processes that a program has left behind, and the pause between two searches.
/// Each search kills one generation: the children of the killed processes become children of this process, and the next
/// search finds them.
const LOOKS: u32 = 100;
const PAUSE_BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// The time for which a program's output is read after its end. A process that the program has left in the background
/// may hold stdout or stderr open.
const READ_ON: Duration = Duration::from_millis(200);

/// A shell command that works jobs of any kind.
pub struct Program {
    pub command: String,
    /// The time that a job waits after exit status 75.
    pub later: Duration,
    /// True if stdout is the job's result. Otherwise, stdout goes to the worker's stdout.
    pub keeps_output: bool,
    /// True if the command gets the database's address and password.
    pub passes_database: bool,
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
        let (mut keeper, watched) = self.start(context)?;
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
        if let Some(mut watched) = watched {
            watched.has_ended = true;
        }
        if status.signal().is_some() {
            // The signal has killed the keeper, but perhaps not the program. The program and its children may still
            // run.
            let strays = Arc::clone(&self.strays);
            let _ = tokio::task::spawn_blocking(move || strays.end_all()).await;
        }
        Ok(ProgramEnd { status, stderr: last_lines.into_text(), stdout: output })
    }

    fn start(&self, context: &Context) -> std::io::Result<(Child, Option<Watched<'_>>)> {
        let _starting = self.strays.starting.read().unwrap_or_else(PoisonError::into_inner);
        let keeper = self.command(context)?.spawn()?;
        let id = keeper.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let watched = id.map(|id| {
            self.strays.watchdog.watch(id);
            Watched { keeper: id, has_ended: false, watchdog: &self.strays.watchdog }
        });
        Ok((keeper, watched))
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
        if !self.passes_database {
            let is_secret =
                |name: &OsString| name.as_bytes().starts_with(b"PG") || DATABASE.iter().any(|secret| name == secret);
            std::env::vars_os().map(|(name, _)| name).filter(is_secret).for_each(|name| {
                command.env_remove(name);
            });
        }
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

/// The keeper of one attempt. The watchdog watches the keeper until this value is dropped.
struct Watched<'a> {
    keeper: Pid,
    /// True if the keeper has ended, so that another process may have its id.
    has_ended: bool,
    watchdog: &'a Watchdog,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        // If the program has stopped the keeper by a signal, the keeper does not notice that its pipe is closed.
        if !self.has_ended {
            let _ = kill_process(self.keeper, Signal::CONT);
        }
        self.watchdog.unwatch(self.keeper);
    }
}

/// The processes that a killed keeper leaves. These processes become the worker's children, since the worker is a
/// subreaper too.
pub struct Strays {
    watchdog: Watchdog,
    /// While this lock is held for writing, no keeper is being started, so the watchdog knows every keeper.
    starting: RwLock<()>,
}

impl Strays {
    /// Makes this process a subreaper, if the system has subreapers.
    pub fn new(watchdog: Watchdog) -> Strays {
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(Some(getpid()));
        Strays { watchdog, starting: RwLock::default() }
    }

    /// Ends all children that this process has not started itself, and all their descendants.
    fn end_all(&self) {
        let _none_starts = self.starting.write().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LOOKS {
            let children = children_of(&[getpid()]).into_iter();
            let strays: Vec<Pid> = children.filter(|&child| !self.watchdog.knows(child)).collect();
            if strays.is_empty() {
                return;
            }
            for stray in strays {
                let _ = kill_process(stray, Signal::KILL);
                // Waits only for this stray, because waiting for any child would take away the exit statuses of
                // keepers.
                let _ = waitpid(Some(stray), WaitOptions::NOHANG);
            }
            std::thread::sleep(PAUSE_BETWEEN_LOOKS);
        }
        tracing::warn!(
            name: "program.strays_left", target: "reveille::worker",
            "cannot end all processes that a program started"
        );
    }
}

/// Reads the output as JSON if Postgres can store the JSON, else as text.
fn json_or_text(output: &[u8]) -> reveille::Result<Payload> {
    let text = String::from_utf8_lossy(output);
    let json = std::str::from_utf8(output).ok().and_then(|json| Payload::parse(json).ok());
    json.map_or_else(|| Payload::encode(text.trim_end_matches('\n')), Ok)
}
