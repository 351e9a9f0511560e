use clap::Args;
use reveille::admin::{Record, View};

use crate::connection::Connection;
use crate::figures::about;
use crate::{Outcome, output};

#[derive(Args)]
pub struct StatusCommand {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl StatusCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 11] = [
            "queue",
            "paused",
            "ready",
            "delayed",
            "parked",
            "blocked",
            "running",
            "dead",
            "oldest_ready_age",
            "completed_last_minute",
            "failed_last_minute",
        ];
        let queues = connection.database().await?.admin().view(View::QueueStats).await?;
        if self.json {
            return Ok(output::print(&queues, &COLUMNS, true)?);
        }
        // Most databases have no blocked jobs, and the table is wide.
        let is_shown =
            |column: &&str| *column != "blocked" || queues.iter().any(|queue| queue.get(column) != Some("0"));
        let columns: Vec<&str> = COLUMNS.into_iter().filter(is_shown).collect();
        let rows = queues.iter().map(|queue| columns.iter().map(|column| cell(queue, column)).collect());
        Ok(output::print_rows(&columns, rows)?)
    }
}

/// Returns the text of a cell. A count above 10,000 is an estimate, and is marked: `~1.2M`.
fn cell(queue: &Record, column: &str) -> String {
    let is_estimate = queue.get("estimated") == Some("true") && ["ready", "delayed"].contains(&column);
    match queue.get(column).and_then(|count| count.parse().ok()) {
        Some(count) if is_estimate => about(count, true),
        _ => output::cell(queue.get(column)),
    }
}
