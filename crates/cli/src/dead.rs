use std::collections::BTreeMap;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use reveille::admin::{Filter, REASONS, Record};
use serde_json::json;
use serde_json::value::RawValue;

use crate::connection::Connection;
use crate::jobs::each;
use crate::{Failure, Outcome, output};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Dead {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: List,
}

#[derive(Subcommand)]
enum Action {
    /// List dead jobs: what to do without an action.
    List(List),
    /// Bring dead jobs back to life.
    Revive(Chosen),
    /// Delete dead jobs for good.
    Purge(Chosen),
}

#[derive(Args)]
struct List {
    /// Only of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only that died of this.
    #[arg(long, value_parser = PossibleValuesParser::new(REASONS))]
    reason: Option<String>,
    /// How many at most, newest first.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Chosen {
    /// These jobs.
    #[arg(value_name = "ID", conflicts_with_all = ["all", "queue", "kind", "reason"])]
    ids: Vec<i64>,
    /// All dead jobs.
    #[arg(long)]
    all: bool,
    /// All of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// All of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// All that died of this.
    #[arg(long, value_parser = PossibleValuesParser::new(REASONS))]
    reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Dead {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self.action.unwrap_or(Action::List(self.list)) {
            Action::List(list) => list.run(connection).await,
            Action::Revive(chosen) => chosen.run(connection, true).await,
            Action::Purge(chosen) => chosen.run(connection, false).await,
        }
    }
}

impl List {
    async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 7] = ["id", "queue", "kind", "reason", "failures", "finished_at", "last_error"];
        let state = self.reason.unwrap_or_else(|| "dead".into());
        let filter = Filter { queue: self.queue, kind: self.kind, state: Some(state) };
        let dead = connection.database().await?.admin().jobs(&filter, self.limit).await?;
        if self.json {
            return Ok(output::print(&dead, &COLUMNS, true)?);
        }
        let row = |job: &Record| {
            let cell = |column: &&str| match *column {
                "last_error" => output::cell(last_error(job).as_ref().map(|error| error.get())),
                column => output::cell(job.get(column)),
            };
            COLUMNS.iter().map(cell).collect()
        };
        Ok(output::print_rows(&COLUMNS, dead.iter().map(row))?)
    }
}

fn last_error(job: &Record) -> Option<Box<RawValue>> {
    let last = job.decode::<Vec<Box<RawValue>>>("errors").ok()?.pop()?;
    serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(last.get()).ok()?.remove("error")
}

impl Chosen {
    async fn run(self, connection: &Connection, revive: bool) -> Outcome {
        if self.ids.is_empty() && !self.all && self.queue.is_none() && self.kind.is_none() && self.reason.is_none() {
            return Err("say which: ids, --queue, --kind, --reason, or --all".to_owned().into());
        }
        let admin = connection.database().await?.admin();
        if !self.ids.is_empty() {
            return if revive {
                each(&self.ids, self.json, &["revived"], async |id| admin.retry(id).await).await
            } else {
                let purge =
                    async |id| Ok(if admin.purge_dead_job(id).await? { "purged" } else { "unknown" }.to_owned());
                each(&self.ids, self.json, &["purged"], purge).await
            };
        }
        let filter = Filter { queue: self.queue, kind: self.kind, state: self.reason };
        let batch = if revive { admin.revive_dead(&filter).await? } else { admin.purge_dead(&filter).await? };
        let done = if revive { "revived" } else { "purged" };
        if self.json {
            output::line(json!({done: batch.done, "left_over": batch.left_over}))?;
        } else {
            output::line(format!("{} {done}", batch.done))?;
        }
        if batch.left_over > 0 {
            say!("{} left dead: a live job has their unique key", batch.left_over);
        }
        for refused in &batch.refused {
            say!("job {} left dead: {}", refused.id, refused.error);
        }
        if batch.left_over > 0 || !batch.refused.is_empty() { Err(Failure::NotFound) } else { Ok(()) }
    }
}
