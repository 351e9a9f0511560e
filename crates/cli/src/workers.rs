use clap::{Args, Subcommand};
use reveille::admin::View;
use serde_json::json;

use crate::connection::Connection;
use crate::jobs::{Answer, each};
use crate::{Failure, Outcome, output};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WorkersCommand {
    #[command(subcommand)]
    action: Option<WorkersAction>,
    #[command(flatten)]
    list: ListWorkers,
}

#[derive(Subcommand)]
enum WorkersAction {
    /// List the workers: the default.
    List(ListWorkers),
    /// Ask workers to shut down as on a signal: they claim no more jobs and finish their running jobs. A supervisor may
    /// start the workers again.
    Stop(StopWorkers),
    /// Set the number of slots of a queue in running workers. A worker that is started again has its own number.
    Slots(SetSlots),
}

#[derive(Args)]
struct ListWorkers {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct StopWorkers {
    /// The ids of the workers.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct SetSlots {
    /// The queue and its number of slots, 0 to 10000, like mail=8.
    #[arg(value_name = "QUEUE=SLOTS", value_parser = queue_and_slots)]
    slots: (String, u32),
    /// The only worker to change, by its id. Default: all live workers of the queue.
    #[arg(long, value_name = "ID")]
    worker: Option<i64>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Reads `mail=8`: the number of slots follows the last `=`.
fn queue_and_slots(text: &str) -> Result<(String, u32), String> {
    let parts = text.rsplit_once('=').and_then(|(queue, slots)| Some((queue.to_owned(), slots.parse().ok()?)));
    parts.filter(|(_, slots)| *slots <= 10_000).ok_or_else(|| "write QUEUE=SLOTS, with 0 to 10000 slots".into())
}

impl WorkersCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self.action.unwrap_or(WorkersAction::List(self.list)) {
            WorkersAction::List(list) => list.run(connection).await,
            WorkersAction::Stop(stop) => stop.run(connection).await,
            WorkersAction::Slots(slots) => slots.run(connection).await,
        }
    }
}

impl ListWorkers {
    async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 11] = [
            "worker",
            "host",
            "pid",
            "queues",
            "running",
            "slots",
            "started_at",
            "last_seen",
            "alive",
            "stopping",
            "stuck",
        ];
        let workers = connection.database().await?.admin().view(View::WorkerStatus).await?;
        Ok(output::print(&workers, &COLUMNS, self.json)?)
    }
}

impl StopWorkers {
    async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.operator().await?;
        let stop = async |id| {
            let is_there = admin.stop_worker(id).await?;
            Ok(Answer::new(if is_there { "stopping" } else { "unknown" }, is_there))
        };
        each(&self.ids, self.json, stop).await
    }
}

impl SetSlots {
    async fn run(self, connection: &Connection) -> Outcome {
        let (queue, slots) = self.slots;
        let workers = connection.operator().await?.set_slots(&queue, slots, self.worker).await?;
        let text = match workers {
            0 => "no live worker of this queue".to_owned(),
            1 => format!("{slots} slots in 1 worker"),
            _ => format!("{slots} slots in {workers} workers"),
        };
        match self.json {
            true => output::line(json!({"queue": queue, "slots": slots, "workers": workers}))?,
            false => output::line(format!("{queue}: {text}"))?,
        }
        if workers > 0 { Ok(()) } else { Err(Failure::NotFound) }
    }
}
