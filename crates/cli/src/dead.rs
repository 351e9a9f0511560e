use std::collections::BTreeMap;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use reveille::admin::{BulkResult, Filter, JobRow, REASONS, RefusedJob, Retried};
use reveille::driver::FailureReason;
use reveille::job::JobState;
use serde_json::json;
use serde_json::value::RawValue;

use crate::connection::Connection;
use crate::jobs::{Answer, each, filter};
use crate::progress::Progress;
use crate::{Failure, Outcome, output};

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
    /// Only jobs of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only jobs of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only jobs that are dead for this reason.
    #[arg(long, value_parser = reasons())]
    reason: Option<FailureReason>,
    /// List at most this many jobs, newest first.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ChosenDead {
    /// The ids of the jobs.
    #[arg(value_name = "ID", conflicts_with_all = ["all", "queue", "kind", "reason"])]
    ids: Vec<i64>,
    /// All dead jobs.
    #[arg(long)]
    all: bool,
    /// All dead jobs of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// All dead jobs of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// All jobs that are dead for this reason.
    #[arg(long, value_parser = reasons())]
    reason: Option<FailureReason>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn reasons() -> impl TypedValueParser<Value = FailureReason> {
    PossibleValuesParser::new(REASONS.map(FailureReason::name)).try_map(|name| {
        REASONS.into_iter().find(|reason| reason.name() == name).ok_or_else(|| format!("unknown reason {name:?}"))
    })
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
        let filter = filter(self.queue, self.kind).state(JobState::Dead);
        let filter = self.reason.into_iter().fold(filter, Filter::reason);
        let dead = connection.database().await?.admin().jobs(&filter, self.limit).await?;
        if self.json {
            return Ok(output::print(dead.iter().map(JobRow::record), &COLUMNS, true)?);
        }
        let row = |job: &JobRow| {
            let cell = |column: &&str| match *column {
                "last_error" => output::cell(last_error(job).as_ref().map(|error| error.get())),
                column => output::cell(job.record().get(column)),
            };
            COLUMNS.iter().map(cell).collect()
        };
        Ok(output::print_rows(&COLUMNS, dead.iter().map(row))?)
    }
}

/// Returns the last error as JSON. A stored error need not be text.
fn last_error(job: &JobRow) -> Option<Box<RawValue>> {
    let last = job.record().decode::<Vec<Box<RawValue>>>("errors").ok()?.pop()?;
    serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(last.get()).ok()?.remove("error")
}

impl ChosenDead {
    async fn revive(self, connection: &Connection) -> Outcome {
        let filter = self.filter()?;
        let admin = connection.database().await?.admin();
        if !self.ids.is_empty() {
            let revive = async |id| {
                let retried = admin.retry(id).await?;
                Ok(Answer::new(retried.name(), retried == Retried::Revived))
            };
            return each(&self.ids, self.json, revive).await;
        }
        let _progress = Progress::start("reviving dead jobs", self.json);
        self.print("revived", admin.revive_dead(&filter).await?)
    }

    async fn purge(self, connection: &Connection) -> Outcome {
        let filter = self.filter()?;
        let admin = connection.database().await?.admin();
        if !self.ids.is_empty() {
            let purge = async |id| {
                let is_purged = admin.purge_dead_job(id).await?;
                Ok(Answer::new(if is_purged { "purged" } else { "unknown" }, is_purged))
            };
            return each(&self.ids, self.json, purge).await;
        }
        let _progress = Progress::start("purging dead jobs", self.json);
        self.print("purged", admin.purge_dead(&filter).await?)
    }

    /// Returns the filter of the chosen jobs. Fails if the user has chosen no jobs.
    fn filter(&self) -> Result<Filter, Failure> {
        if self.ids.is_empty() && !self.all && self.queue.is_none() && self.kind.is_none() && self.reason.is_none() {
            return Err("no dead jobs are chosen; give ids, --queue, --kind, --reason, or --all".to_owned().into());
        }
        Ok(self.reason.into_iter().fold(filter(self.queue.clone(), self.kind.clone()), Filter::reason))
    }

    fn print(&self, done: &str, result: BulkResult) -> Outcome {
        let object = json!({done: result.done, "left_over": result.left_over});
        output::answer(self.json, object, format_args!("{} {done}", result.done))?;
        if result.left_over > 0 {
            say!("{} stay dead, because live jobs hold their unique keys", result.left_over);
        }
        for RefusedJob { id, error, .. } in &result.refused {
            say!("job {id} stays dead: {error}");
        }
        if result.left_over > 0 || !result.refused.is_empty() { Err(Failure::NotFound) } else { Ok(()) }
    }
}
