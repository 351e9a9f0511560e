use clap::Args;

use crate::connection::Connection;
use crate::{Outcome, output};

#[derive(Args)]
pub struct Status {
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 9] = [
            "queue",
            "paused",
            "ready",
            "delayed",
            "running",
            "dead",
            "oldest_ready_age",
            "completed_last_minute",
            "failed_last_minute",
        ];
        let queues = connection.database().await?.admin().view("queue_stats").await?;
        Ok(output::print(&queues, &COLUMNS, self.json)?)
    }
}
