use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use futures::stream::BoxStream;
use reveille::driver::{Signal, WorkerInfo};
use reveille::{Driver, Postgres};
use serde_json::json;

use crate::connection::Connection;
use crate::work::told_to_stop;
use crate::{Outcome, output};

#[derive(Args)]
pub struct Listen {
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

/// How often to say that somebody listens.
const BEAT: Duration = Duration::from_secs(3);
/// In the place of a queue's name: all of them.
const ALL: &str = "";

impl Listen {
    /// Until interrupted, or the connection is lost.
    pub async fn run(self, connection: &Connection) -> Outcome {
        let driver = Postgres::new(connection.database().await?)?;
        let mut signals = driver.listen().await?;
        // The bell rings only for those who are known to wait for it.
        let id = fastrand::i64(1..);
        let info =
            WorkerInfo { id, host: "reveille listen".into(), pid: std::process::id(), queues: Vec::new(), slots: 0 };
        let known = match driver.register(&info).await {
            Ok(()) => true,
            Err(error) if error.is_denied() => {
                eprintln!("this user may not register: only bells that ring for others will be heard");
                false
            }
            Err(error) => return Err(error.into()),
        };
        if known {
            driver.arm(id, ALL).await?;
        }
        eprintln!("listening; Ctrl-C ends it");
        let ended = self.print(&driver, &mut signals, known.then_some(id)).await;
        if known {
            driver.leave(id).await?;
        }
        ended
    }

    async fn print(
        &self,
        driver: &Postgres,
        signals: &mut BoxStream<'static, reveille::Result<Signal>>,
        id: Option<i64>,
    ) -> Outcome {
        let stop = told_to_stop();
        tokio::pin!(stop);
        let mut beats = tokio::time::interval(BEAT);
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                () = &mut stop => return Ok(()),
                _ = beats.tick() => {
                    if let Some(id) = id
                        && !driver.beat(id, false).await?.alive
                    {
                        return Err("this listener was held for dead; start it again".to_owned().into());
                    }
                    continue;
                }
            };
            match signal {
                Some(Ok(Signal::Bell(queue))) if self.json => output::line(json!({"bell": queue}))?,
                Some(Ok(Signal::Bell(queue))) => output::line(format!("bell {queue}"))?,
                Some(Ok(Signal::Cancel(id))) if self.json => output::line(json!({"cancel": id}))?,
                Some(Ok(Signal::Cancel(id))) => output::line(format!("cancel {id}"))?,
                Some(Err(error)) => return Err(error.into()),
                None => return Err("the connection was closed".to_owned().into()),
            }
        }
    }
}
