use clap::Args;
use futures::StreamExt;
use reveille::driver::Signal;
use reveille::{Driver, Postgres};
use serde_json::json;

use crate::connection::Connection;
use crate::{Outcome, output};

#[derive(Args)]
pub struct Listen {
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Listen {
    /// Until interrupted, or the connection is lost.
    pub async fn run(self, connection: &Connection) -> Outcome {
        let database = connection.database().await?;
        let mut signals = Postgres::new(database)?.listen().await?;
        eprintln!("listening; Ctrl-C ends it");
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                _ = tokio::signal::ctrl_c() => return Ok(()),
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
