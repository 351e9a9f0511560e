use clap::{Args, Subcommand};

use crate::connection::Connection;
use crate::jobs::each;
use crate::{Outcome, output};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Workers {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: List,
}

#[derive(Subcommand)]
enum Action {
    /// List the workers: what to do without an action.
    List(List),
    /// Ask workers to shut down as they do at a signal: they claim nothing more and finish what they run. A supervisor
    /// may start them again.
    Stop(Stop),
}

#[derive(Args)]
struct List {
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Stop {
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Workers {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self.action.unwrap_or(Action::List(self.list)) {
            Action::List(list) => list.run(connection).await,
            Action::Stop(stop) => stop.run(connection).await,
        }
    }
}

impl List {
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
        let workers = connection.database().await?.admin().view("worker_status").await?;
        Ok(output::print(&workers, &COLUMNS, self.json)?)
    }
}

impl Stop {
    async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
        let stop = async |id| Ok(if admin.stop_worker(id).await? { "stopping" } else { "unknown" }.to_owned());
        each(&self.ids, self.json, &["stopping"], stop).await
    }
}
