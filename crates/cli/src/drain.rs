use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use reveille::admin::Backlog;
use serde_json::json;
use tokio::sync::Notify;

use crate::connection::{Connection, duration};
use crate::progress::Progress;
use crate::queue::{SEE_STATUS, is_known};
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct DrainCommand {
    /// The name of the queue.
    queue: String,
    /// Wait at most this long, like 10m. Default: without end.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// Print a JSON object at the end.
    #[arg(long)]
    json: bool,
}

/// The interval at which a log that is no terminal gets a line about the progress.
const TO_A_LOG_EVERY: Duration = Duration::from_secs(10);

impl DrainCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
        if !is_known(&admin, &self.queue, SEE_STATUS).await? {
            return Err(Failure::NotFound);
        }
        let began = Instant::now();
        let progress = Progress::start(format_args!("draining {}", self.queue), self.json);
        let (mut left, mut printed_at, counted) = (Backlog::default(), None, Notify::new());
        let draining = admin.wait_until_drained(&self.queue, |backlog| {
            left = backlog;
            progress.note(describe(backlog));
            self.print_progress(backlog, &mut printed_at);
            counted.notify_one();
        });
        let drained = match self.timeout {
            // The time limit counts from the start. But the command always waits for the first count, because it prints
            // the count even if the time is up.
            Some(timeout) => tokio::select! {
                drained = draining => drained.map(|_| true)?,
                () = async {
                    counted.notified().await;
                    tokio::time::sleep_until((began + timeout).into()).await;
                } => false,
            },
            None => draining.await.map(|_| true)?,
        };
        drop(progress);
        let Backlog { ready, running, delayed, blocked, paused, workers, .. } = left;
        let seconds = began.elapsed().as_secs_f64();
        if self.json {
            output::line(json!({
                "queue": self.queue, "drained": drained, "ready": ready, "running": running, "delayed": delayed,
                "blocked": blocked, "paused": paused, "workers": workers, "seconds": seconds,
            }))?;
        } else if drained {
            output::line(format!("drained {}", self.queue))?;
        }
        if !drained {
            say!("queue {} is not drained in time: {}", self.queue, describe(left));
            return Err(Failure::NotFound);
        }
        let not_waited_for = not_waited_for(left);
        if !not_waited_for.is_empty() {
            say!("not waited for: {}", not_waited_for.join(", "));
        }
        Ok(())
    }

    fn print_progress(&self, backlog: Backlog, printed_at: &mut Option<Instant>) {
        let is_time = printed_at.is_none_or(|at| at.elapsed() >= TO_A_LOG_EVERY);
        if !std::io::stderr().is_terminal() && !backlog.is_drained() && is_time {
            *printed_at = Some(Instant::now());
            say!("{}: {}", self.queue, describe(backlog));
        }
    }
}

/// Returns the jobs of a drained queue that have not ended, such as `2 delayed`.
fn not_waited_for(left: Backlog) -> Vec<String> {
    let ready = if left.paused { "ready, since the queue is paused" } else { "ready" };
    let counts = [(left.delayed, "delayed"), (left.blocked, "blocked"), (left.ready, ready)];
    let left = counts.into_iter().filter(|(count, _)| *count > 0);
    left.map(|(count, what)| format!("{count}{} {what}", or_more(count))).collect()
}

fn or_more(count: u64) -> &'static str {
    if count >= 10_000 { " or more" } else { "" }
}

fn describe(left: Backlog) -> String {
    let hint = match left.workers {
        0 if !left.is_drained() => "; no live worker works it: start one",
        _ => "",
    };
    format!("{}{} ready, {} running{hint}", left.ready, or_more(left.ready), left.running)
}
