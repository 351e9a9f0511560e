use clap::{Args, Subcommand};
use reveille::admin::{BulkAction, JobRow, Retried};

use crate::bulk::BulkArgs;
use crate::connection::Connection;
use crate::filter::FilterArgs;
use crate::jobs::{Answer, each};
use crate::progress::Progress;
use crate::{Outcome, csv, output};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DeadCommand {
    #[command(subcommand)]
    action: Option<DeadAction>,
    #[command(flatten)]
    list: ListDead,
}

#[derive(Subcommand)]
enum DeadAction {
    /// List dead jobs: the default.
    List(ListDead),
    /// Revive dead jobs: they live again and are due at once.
    Revive(ChosenDead),
    /// Delete dead jobs permanently.
    Purge(ChosenDead),
}

#[derive(Args)]
struct ListDead {
    /// List at most this many jobs, newest first.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Args)]
struct ChosenDead {
    /// The ids of the jobs. Without ids, the jobs of the filter.
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    bulk: BulkArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

impl DeadCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self.action.unwrap_or(DeadAction::List(self.list)) {
            DeadAction::List(list) => list.run(connection).await,
            DeadAction::Revive(chosen) => chosen.revive(connection).await,
            DeadAction::Purge(chosen) => chosen.purge(connection).await,
        }
    }
}

impl ListDead {
    async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 7] = ["id", "queue", "kind", "reason", "failures", "finished_at", "last_error"];
        let filter = self.filter.dead_filter()?;
        let admin = connection.database().await?.admin();
        let progress = Progress::start("reading dead jobs", self.json);
        let dead = admin.jobs(&filter, self.limit).await?;
        drop(progress);
        if self.json {
            return Ok(output::print(dead.iter().map(JobRow::record), &COLUMNS, true)?);
        }
        let row = |job: &JobRow| {
            let cell = |column: &&str| match *column {
                "last_error" => output::cell(csv::last_error(job).as_ref().map(|error| error.get())),
                column => output::cell(job.record().get(column)),
            };
            COLUMNS.iter().map(cell).collect()
        };
        Ok(output::print_rows(&COLUMNS, dead.iter().map(row))?)
    }
}

impl ChosenDead {
    async fn revive(self, connection: &Connection) -> Outcome {
        let filter = self.bulk.filter(&self.ids, self.filter.filter()?)?;
        let admin = connection.operator().await?;
        if let Some(filter) = filter {
            return self.bulk.run(&admin, BulkAction::Revive, &filter, self.json).await;
        }
        let revive = async |id| {
            let retried = admin.retry(id).await?;
            Ok(Answer::new(retried.name(), retried == Retried::Revived))
        };
        each(&self.ids, self.json, revive).await
    }

    async fn purge(self, connection: &Connection) -> Outcome {
        let filter = self.bulk.filter(&self.ids, self.filter.filter()?)?;
        let admin = connection.operator().await?;
        if let Some(filter) = filter {
            return self.bulk.run(&admin, BulkAction::Purge, &filter, self.json).await;
        }
        let purge = async |id| {
            let is_purged = admin.purge_dead_job(id).await?;
            Ok(Answer::new(if is_purged { "purged" } else { "unknown" }, is_purged))
        };
        each(&self.ids, self.json, purge).await
    }
}
