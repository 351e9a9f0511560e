use std::fmt::Display;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use futures::stream::BoxStream;
use reveille::admin::Admin;
use reveille::driver::{Driver, Postgres};
use reveille::driver::{Hints, Report, Signal, WorkerInfo, signals};
use serde::Serialize;
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::connection::Connection;
use crate::work::told_to_stop;
use crate::{Outcome, output};

#[derive(Args)]
pub struct Listen {
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
    /// Listen to this queue, even if nothing is known of it yet; may be repeated. Always: default, and all that are
    /// known.
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
}

/// How often to say that somebody listens, and to look for new queues.
const BEAT: Duration = Duration::from_secs(3);

impl Listen {
    /// Until interrupted, or the connection is lost.
    pub async fn run(self, connection: &Connection) -> Outcome {
        let database = connection.database().await?;
        let driver = Postgres::new(database.clone())?;
        let mut signals = signals(&driver, 0).await?;
        // The bell rings only for those who are known to wait for it.
        let id = fastrand::i64(1..);
        let info = WorkerInfo::new(id).host("reveille listen").slots(0);
        let known = match driver.register(&info).await {
            Ok(()) => true,
            Err(error) if error.is_denied() => {
                say!("this user may not register: only bells that ring for others will be heard");
                false
            }
            Err(error) => return Err(error.into()),
        };
        let ears = known.then(|| Ears { id, admin: database.admin(), driver: &driver, queues: self.queues.clone() });
        if let Some(ears) = &ears {
            ears.prick().await?;
        }
        say!("listening; Ctrl-C ends it");
        let ended = self.print(ears.as_ref(), &mut signals).await;
        if known {
            driver.leave(id).await?;
        }
        ended
    }

    async fn print(
        &self,
        ears: Option<&Ears<'_>>,
        signals: &mut BoxStream<'static, reveille::Result<Signal>>,
    ) -> Outcome {
        let stop = told_to_stop();
        tokio::pin!(stop);
        let mut beats = tokio::time::interval(BEAT);
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                () = &mut stop => return Ok(()),
                _ = beats.tick() => {
                    if let Some(ears) = ears {
                        ears.prick().await?;
                    }
                    continue;
                }
            };
            match signal {
                Some(Ok(Signal::Bell(queue))) => self.tell("bell", queue)?,
                Some(Ok(Signal::Cancel(id))) => self.tell("cancel", id)?,
                Some(Ok(Signal::Pause(queue))) => self.tell("pause", queue)?,
                Some(Ok(Signal::Stop(id))) => {
                    self.tell("stop", id)?;
                    if let Some(ears) = ears.filter(|ears| ears.id == id)
                        && ears.are_to_stop().await?
                    {
                        return Ok(());
                    }
                }
                Some(Ok(Signal::Schedules)) => self.tell("schedules", true)?,
                Some(Err(error)) => return Err(error.into()),
                None => return Err("the connection was closed".to_owned().into()),
            }
        }
    }

    fn tell(&self, signal: &str, what: impl Display + Serialize) -> std::io::Result<()> {
        if self.json { output::line(json!({signal: what})) } else { output::line(format!("{signal} {what}")) }
    }
}

/// Who has the bell rung for it.
struct Ears<'a> {
    id: i64,
    admin: Admin,
    driver: &'a Postgres,
    queues: Vec<String>,
}

impl Ears<'_> {
    /// Whether somebody has asked for it to end: anybody can send the notification.
    async fn are_to_stop(&self) -> reveille::Result<bool> {
        let mut hints = Hints::default();
        hints.stop = true;
        Ok(self.driver.confirm(self.id, &hints).await?.stop)
    }

    /// Says that it lives, and arms the bell of every queue that is known.
    async fn prick(&self) -> Outcome {
        if !self.driver.beat(self.id, &Report::default()).await?.alive {
            return Err("this listener was held for dead; start it again".to_owned().into());
        }
        let known = self.admin.queues().await?;
        for queue in known.iter().chain(&self.queues).map(String::as_str).chain(["default"]) {
            match self.driver.arm(self.id, queue).await {
                // Somebody else has locked what it takes: the next beat tries again.
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
                armed => drop(armed?),
            }
        }
        Ok(())
    }
}
