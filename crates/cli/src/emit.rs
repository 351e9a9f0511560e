use clap::Args;
use reveille::job::Payload;
use serde_json::json;

use crate::connection::Connection;
use crate::{Outcome, output};

#[derive(Args)]
pub struct EmitCommand {
    /// The name of the event, for which jobs wait.
    event: String,
    /// The payload that the waiting jobs get: JSON.
    #[arg(default_value = "null")]
    payload: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl EmitCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let payload = Payload::parse(&self.payload)?;
        let database = connection.database().await?;
        let is_first = database.enqueuer().emit(&database, &self.event, &payload).await?;
        if self.json {
            output::line(json!({"event": self.event, "first": is_first}))?;
        } else if is_first {
            output::line(format!("emitted {}", self.event))?;
        } else {
            output::line(format!("{} was emitted before; its payload stays", self.event))?;
        }
        Ok(())
    }
}
