use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use reveille::admin::Backlog;
use serde_json::json;
use tokio::sync::Notify;

use crate::connection::{Connection, duration};
use crate::queue::is_known;
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct Drain {
    queue: String,
    /// How long to wait at most; without it, as long as it takes.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// Print a JSON object at the end.
    #[arg(long)]
    json: bool,
}

/// How often to say how far it is: to a person who watches, and to a log.
const SAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

impl Drain {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
        if !is_known(&admin, &self.queue, "").await? {
            return Err(Failure::NotFound);
        }
        let began = Instant::now();
        let (mut left, mut said, looked) = (Backlog::default(), None, Notify::new());
        let draining = admin.drain(&self.queue, |backlog| {
            left = backlog;
            self.say(backlog, &mut said);
            looked.notify_one();
        });
        let drained = match self.timeout {
            // However short: what is left can only be told after a look.
            Some(timeout) => tokio::select! {
                drained = draining => drained.map(|_| true)?,
                () = async { looked.notified().await; tokio::time::sleep_until((began + timeout).into()).await } => false,
            },
            None => draining.await.map(|_| true)?,
        };
        let (seconds, Backlog { ready, running, delayed, paused, workers }) = (began.elapsed().as_secs_f64(), left);
        if self.json {
            output::line(json!({
                "queue": self.queue, "drained": drained, "ready": ready, "running": running, "delayed": delayed,
                "paused": paused, "workers": workers, "seconds": seconds,
            }))?;
        } else if drained {
            output::line(format!("drained {}", self.queue))?;
        }
        if !drained {
            say!("not drained in time: {}", describe(left));
            return Err(Failure::NotFound);
        }
        if delayed > 0 || ready > 0 {
            say!(
                "not waited for: {delayed} delayed{}",
                if paused { format!(", {ready} ready, as it is paused") } else { String::new() }
            );
        }
        Ok(())
    }

    fn say(&self, backlog: Backlog, said: &mut Option<Instant>) {
        let (watched, logged) = SAY;
        let often = if std::io::stderr().is_terminal() { watched } else { logged };
        if !backlog.is_drained() && said.is_none_or(|said| said.elapsed() >= often) {
            *said = Some(Instant::now());
            say!("{}: {}", self.queue, describe(backlog));
        }
    }
}

fn describe(left: Backlog) -> String {
    let more = if left.ready >= 10_000 { " or more" } else { "" };
    let hint = match left.workers {
        0 if !left.is_drained() => "; no living worker works it",
        _ => "",
    };
    format!("{}{more} ready, {} running{hint}", left.ready, left.running)
}
