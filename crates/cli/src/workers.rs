use clap::{Args, Subcommand};
use reveille::admin::View;

use crate::connection::Connection;
use crate::jobs::{Answer, each};
use crate::{Outcome, output};

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

impl WorkersCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self.action.unwrap_or(WorkersAction::List(self.list)) {
            WorkersAction::List(list) => list.run(connection).await,
            WorkersAction::Stop(stop) => stop.run(connection).await,
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
        let admin = connection.database().await?.admin();
        let stop = async |id| {
            let is_there = admin.stop_worker(id).await?;
            Ok(Answer::new(if is_there { "stopping" } else { "unknown" }, is_there))
        };
        each(&self.ids, self.json, stop).await
    }
}
