use clap::Args;
use reveille::admin::Record;
use serde_json::Value;

use crate::connection::Connection;
use crate::figures::about;
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
        let mut queues = connection.database().await?.admin().view("queue_stats").await?;
        if !self.json {
            queues.iter_mut().for_each(mark_estimates);
        }
        Ok(output::print(&queues, &COLUMNS, self.json)?)
    }
}

/// Counts beyond 10,000 are estimates, and read so: `~1.2M`.
fn mark_estimates(queue: &mut Record) {
    if queue.get("estimated").and_then(Value::as_bool) != Some(true) {
        return;
    }
    for column in ["ready", "delayed"] {
        if let Some(count) = queue.get(column).and_then(Value::as_u64) {
            queue.insert(column.into(), about(count, true).into());
        }
    }
}
