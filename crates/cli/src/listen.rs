use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use futures::stream::BoxStream;
use reveille::admin::Admin;
use reveille::driver::{Driver, Hints, Postgres, Report, Signal, WorkerInfo, signals};
use serde::Serialize;
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::connection::Connection;
use crate::work::stop_signal;
use crate::{Outcome, output};

#[derive(Args)]
pub struct ListenCommand {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    /// Listen to this queue even if nothing is known of it. May be repeated. The queue default and all known queues are
    /// always listened to.
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
}

/// The interval of heartbeats and of searches for new queues.
const HEARTBEAT: Duration = Duration::from_secs(3);

impl ListenCommand {
    /// Listens until this process gets a signal, until the reader closes the pipe, or until the connection is lost.
    pub async fn run(self, connection: &Connection) -> Outcome {
        let database = connection.database().await?;
        let driver = Postgres::new(database.clone())?;
        let mut signals = signals(&driver, 0).await?;
        // The bell rings only for a queue that a registered worker has armed.
        let id = fastrand::i64(1..);
        let info = WorkerInfo::new(id).host("reveille listen").slots(0);
        let is_registered = match driver.register(&info).await {
            Ok(()) => true,
            Err(error) if error.is_denied() => {
                say!("this user may not register as a worker: only bells that ring for workers are shown");
                false
            }
            Err(error) => return Err(error.into()),
        };
        let registered = is_registered.then(|| RegisteredListener {
            id,
            admin: database.admin(),
            driver: &driver,
            queues: self.queues.clone(),
        });
        if let Some(registered) = &registered {
            registered.arm_queues().await?;
        }
        say!("listening; Ctrl-C ends it");
        let ended = self.print(registered.as_ref(), &mut signals).await;
        if is_registered {
            driver.leave(id).await?;
        }
        ended
    }

    async fn print(
        &self,
        registered: Option<&RegisteredListener<'_>>,
        signals: &mut BoxStream<'static, reveille::Result<Signal>>,
    ) -> Outcome {
        let (mut stop, mut closed) = (pin!(stop_signal()), pin!(output::closed()));
        let mut heartbeats = tokio::time::interval(HEARTBEAT);
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                () = &mut stop => return Ok(()),
                closed = &mut closed => return Err(closed.into()),
                _ = heartbeats.tick() => {
                    if let Some(registered) = registered {
                        registered.arm_queues().await?;
                    }
                    continue;
                }
            };
            match signal {
                Some(Ok(Signal::Bell(queue))) => self.print_signal("bell", queue)?,
                Some(Ok(Signal::Cancel(id))) => self.print_signal("cancel", id)?,
                Some(Ok(Signal::Pause(queue))) => self.print_signal("pause", queue)?,
                Some(Ok(Signal::Stop(id))) => {
                    self.print_signal("stop", id)?;
                    if let Some(registered) = registered.filter(|registered| registered.id == id)
                        && registered.is_asked_to_stop().await?
                    {
                        return Ok(());
                    }
                }
                Some(Ok(Signal::Schedules)) => self.print_signal("schedules", true)?,
                Some(Ok(Signal::LinkedEnd)) => self.print_signal("linked_end", true)?,
                Some(Err(error)) => return Err(error.into()),
                None => return Err("the server closed the connection; start this again".to_owned().into()),
            }
        }
    }

    fn print_signal(&self, signal: &str, what: impl Display + Serialize) -> std::io::Result<()> {
        if self.json { output::line(json!({signal: what})) } else { output::line(format!("{signal} {what}")) }
    }
}

/// This process, which is registered as a worker without slots so that bells ring.
struct RegisteredListener<'a> {
    id: i64,
    admin: Admin,
    driver: &'a Postgres,
    queues: Vec<String>,
}

impl RegisteredListener<'_> {
    /// Returns true if the tables confirm a stop. Any role can send the notification of a stop.
    async fn is_asked_to_stop(&self) -> reveille::Result<bool> {
        let mut hints = Hints::default();
        hints.stop = true;
        Ok(self.driver.confirm(self.id, &hints).await?.stop)
    }

    /// Sends a heartbeat, and arms the bell of each known queue.
    async fn arm_queues(&self) -> Outcome {
        if !self.driver.beat(self.id, &Report::default()).await?.alive {
            return Err("workers have declared this listener dead; start it again".to_owned().into());
        }
        let known = self.admin.queues().await?;
        for queue in known.iter().chain(&self.queues).map(String::as_str).chain(["default"]) {
            match self.driver.arm(self.id, queue).await {
                // Another session has locked this process's row: the next heartbeat tries again.
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
                armed => drop(armed?),
            }
        }
        Ok(())
    }
}
