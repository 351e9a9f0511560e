//! The worker's side of the protocol, as far as a check needs it.

use std::collections::BTreeSet;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::pipe::lines::{Lines, LinesEnd};
use crate::pipe::message::{self, ChildMessage, LONGEST_LINE};

/// The time that a child has to exit.
pub const EXIT_WITHIN: Duration = Duration::from_secs(5);

/// A child, and what the worker knows of it.
pub struct Player {
    process: Child,
    input: Option<ChildStdin>,
    lines: Lines<ChildStdout>,
    pub slots: usize,
    pub within: Duration,
    /// What the child has said about itself.
    pub description: String,
    kind: String,
    payload: String,
    last_run: u64,
    open: BTreeSet<u64>,
}

impl Player {
    /// Starts a child, and waits until it is ready. `kind`: the kind of its jobs; `None`: the first that it names.
    pub async fn start(
        command: &str,
        slots: usize,
        within: Duration,
        kind: Option<String>,
        payload: String,
    ) -> Result<Player, String> {
        let mut child = Command::new("sh");
        child.arg("-c").arg(command).process_group(0).kill_on_drop(true);
        let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = child.map_err(|error| format!("cannot run the command: {error}"))?;
        let (input, Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the child has no pipes".into());
        };
        let mut player = Player {
            process,
            input,
            lines: Lines::new(stdout, LONGEST_LINE),
            slots,
            within,
            description: String::new(),
            kind: String::new(),
            payload,
            last_run: 0,
            open: BTreeSet::new(),
        };
        // A member that this version does not have.
        player.send(&hello(slots)).await?;
        let ChildMessage::Ready { kinds } = player.message().await? else {
            return Err("the first message of the child is not `ready`".into());
        };
        let first = kinds.iter().flatten().min().cloned();
        player.kind = kind.or(first).unwrap_or_else(|| "check".into());
        player.description = match kinds {
            Some(kinds) => format!(
                "version 1, kinds: {}",
                kinds.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
            ),
            None => "version 1, all kinds".into(),
        };
        Ok(player)
    }

    /// Gives the child a job. Returns the number of its run.
    pub async fn give(&mut self) -> Result<u64, String> {
        let payload = self.payload.clone();
        self.give_with(&payload).await
    }

    /// Gives the child a job with a payload of JSON.
    pub async fn give_with(&mut self, payload: &str) -> Result<u64, String> {
        self.last_run += 1;
        let run = self.last_run;
        self.open.insert(run);
        let line = format!(
            "{},\"id\":{run},\"kind\":{},\"queue\":\"check\",\"attempt\":1,\"failures\":0,\"max_attempts\":20,\
             \"key\":null,\"tags\":[],\"timeout\":null,\"worker\":\"9223372036854775807\",\
             \"reserved_at\":\"2026-11-30T12:00:00.000001Z\",\"metadata\":{{}},\"later\":{{\"version\":[2]}},\
             \"payload\":{payload}}}\n",
            message::job_of_run(run),
            json!(self.kind),
        );
        self.send(line.as_bytes()).await?;
        Ok(run)
    }

    /// Writes lines to the child.
    pub async fn send(&mut self, lines: &[u8]) -> Result<(), String> {
        let Some(input) = &mut self.input else { return Err("the child's input is closed".into()) };
        let written = tokio::time::timeout(self.within, input.write_all(lines)).await;
        written
            .map_err(|_| format!("the child took nothing for {:?}", self.within))?
            .map_err(|error| format!("the child takes no more input: {error}"))
    }

    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until the child has answered all runs.
    pub async fn answers(&mut self) -> Result<(), String> {
        self.answers_but(0).await
    }

    /// Waits until at most `most` runs are not answered.
    pub async fn answers_but(&mut self, most: usize) -> Result<(), String> {
        while self.open.len() > most {
            match self.message().await? {
                ChildMessage::Ended { run, .. } if self.open.remove(&run) => {}
                ChildMessage::Ended { run, .. } if (1..=self.last_run).contains(&run) => {
                    return Err(format!("the child answered run {run} twice"));
                }
                ChildMessage::Ended { run, .. } => {
                    return Err(format!("the child answered run {run}, which it never got"));
                }
                ChildMessage::Progress { run, .. } if self.open.contains(&run) => {}
                ChildMessage::Progress { run, .. } => return Err(format!("progress of run {run}, which is not open")),
                ChildMessage::Enqueue { request, jobs, .. } => {
                    let ids = (1..=jobs.len()).map(|id| json!({"id": id, "existed": false})).collect();
                    self.send(&message::answer(request, &Ok(ids))).await?;
                }
                ChildMessage::Ready { .. } => return Err("the child said twice that it is ready".into()),
            }
        }
        Ok(())
    }

    async fn message(&mut self) -> Result<ChildMessage, String> {
        let open = self.open.len();
        let late = || format!("the child wrote nothing for {:?}, with {open} open runs", self.within);
        match tokio::time::timeout(self.within, self.lines.next()).await.map_err(|_| late())? {
            Ok(line) => message::parse(line).map_err(|error| format!("the child wrote {error}")),
            Err(LinesEnd::TooLong) => Err("the child wrote a line of more than 16 MiB".into()),
            Err(LinesEnd::Input) => Err(format!("the child's output ended, with {open} open runs")),
        }
    }

    /// Waits for the child's exit, and reads what it writes until then.
    pub async fn exit(mut self) -> Result<ExitStatus, String> {
        let mut rest = Vec::new();
        let exiting = async {
            while let Ok(line) = self.lines.next().await {
                rest.push(line.len());
            }
            self.process.wait().await
        };
        let exited = tokio::time::timeout(EXIT_WITHIN, exiting).await;
        let exited = exited.map_err(|_| format!("the child did not exit within {EXIT_WITHIN:?}"))?;
        exited.map_err(|error| format!("cannot wait for the child: {error}"))
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // The shell may have started the child as a further process.
        if let Some(group) = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Returns the first line, with a member that this version of the protocol does not have.
fn hello(slots: usize) -> Vec<u8> {
    let hello = String::from_utf8_lossy(&message::hello(&["check"], slots)).replacen('{', "{\"later\":[1],", 1);
    hello.into_bytes()
}
