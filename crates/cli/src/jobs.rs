use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use reveille::admin::{BulkAction, Cancelled, JobRow, Retried, RunAgain, Sort};
use serde_json::json;

use crate::bulk::BulkArgs;
use crate::connection::{Connection, duration};
use crate::filter::FilterArgs;
use crate::follow::{self, Format};
use crate::progress::Progress;
use crate::{Failure, Outcome, csv, output};

#[derive(Args)]
pub struct JobsCommand {
    /// Only live jobs that were enqueued, or ended jobs that ended, at this time or later: a time as Postgres reads it,
    /// like 'today 8:00', or an age like 10m.
    #[arg(long, value_name = "TIME|AGE")]
    since: Option<String>,
    /// The order: id (newest first), due (waiting jobs, soonest first), created or finished (latest first). By due,
    /// give --queue; in all other orders than id, the newest jobs up to the limit are sorted.
    #[arg(long, default_value = "id", value_parser = sorts(), conflicts_with = "follow")]
    sort: Sort,
    /// List at most this many jobs, newest first.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Go on with new and changed jobs as they come, until Ctrl-C. A job that waited, failed and waits again within
    /// half a second is seen only if it was listed before, or with --state failing.
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    /// Print CSV with a header, all columns, and text that no spreadsheet takes for a formula.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

fn sorts() -> impl TypedValueParser<Value = Sort> {
    PossibleValuesParser::new(Sort::ALL.map(Sort::name)).try_map(|name| name.parse::<Sort>())
}

impl JobsCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 8] = ["id", "state", "queue", "kind", "priority", "attempts", "failures", "available_at"];
        const RUNNING_COLUMNS: [&str; 8] =
            ["id", "queue", "kind", "attempts", "reserved_by", "reserved_at", "cancel_requested_at", "stuck_since"];
        const BLOCKED_COLUMNS: [&str; 8] = ["id", "queue", "kind", "workflow", "name", "needs", "waits_for", "is_held"];
        let mut filter = self.filter.filter()?;
        let admin = connection.database().await?.admin();
        if let Some(since) = &self.since {
            filter = match duration(since) {
                Ok(age) => filter.newer_than(self.filter.newer_than.map_or(age, |newer| newer.min(age))),
                Err(_) => filter.since(admin.read_time(since).await?),
            };
        }
        if self.follow {
            let format = if self.json {
                Format::Json
            } else if self.csv {
                Format::Csv
            } else {
                Format::Lines
            };
            return follow::run(&admin, &filter, self.limit, format).await;
        }
        let progress = Progress::start("reading jobs", self.json);
        let jobs = admin.jobs_sorted(&filter, self.sort, self.limit).await?;
        drop(progress);
        if self.csv {
            output::csv_record(&csv::header())?;
            return Ok(jobs.iter().try_for_each(|job| output::csv_record(&csv::cells(job)))?);
        }
        let columns = match self.filter.state.as_deref() {
            Some("stuck" | "running") => &RUNNING_COLUMNS,
            Some("blocked") => &BLOCKED_COLUMNS,
            _ => &COLUMNS,
        };
        Ok(output::print(jobs.iter().map(JobRow::record), columns, self.json)?)
    }
}

#[derive(Args)]
pub struct JobCommand {
    /// The id of the job.
    id: i64,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl JobCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match connection.database().await?.admin().job(self.id).await? {
            Some(job) => Ok(output::print_one(job.record(), self.json)?),
            None => {
                say!("no job {}: no job had this id, or its history is deleted; `reveille jobs` lists jobs", self.id);
                Err(Failure::NotFound)
            }
        }
    }
}

#[derive(Args)]
pub struct RetryCommand {
    /// The ids of the jobs. Without ids, the jobs of the filter.
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Run completed and cancelled jobs once more, as new jobs with the same kind, payload, queue, priority, number of
    /// attempts, key, tags and metadata. A new job has no parent and no unique key; its timeout is its kind's.
    #[arg(long)]
    again: bool,
    /// Revive dead jobs by their ids even if a job that waited for the death was started, such as a refund.
    #[arg(long, requires = "ids", conflicts_with = "again")]
    force: bool,
    #[command(flatten)]
    bulk: BulkArgs,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

impl RetryCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let filter = self.bulk.filter(&self.ids, self.filter.filter()?)?;
        let admin = connection.operator().await?;
        if let Some(filter) = filter {
            let action = if self.again { BulkAction::RunAgain } else { BulkAction::Retry };
            return self.bulk.run(&admin, action, &filter, self.json).await;
        }
        if self.again {
            return each(&self.ids, self.json, async |id| Ok(admin.run_again(id).await?.into())).await;
        }
        let retry = async |id| {
            let retried = if self.force { admin.retry_forced(id).await? } else { admin.retry(id).await? };
            Ok(retried.into())
        };
        each(&self.ids, self.json, retry).await
    }
}

#[derive(Args)]
pub struct CancelCommand {
    /// The ids of the jobs. Without ids, the jobs of the filter.
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    bulk: BulkArgs,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

impl CancelCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let filter = self.bulk.filter(&self.ids, self.filter.filter()?)?;
        let admin = connection.operator().await?;
        if let Some(filter) = filter {
            return self.bulk.run(&admin, BulkAction::Cancel, &filter, self.json).await;
        }
        each(&self.ids, self.json, async |id| Ok(admin.cancel(id).await?.into())).await
    }
}

/// The result of a request for one job or worker.
pub struct Answer {
    pub word: &'static str,
    /// True if the request was met.
    pub is_good: bool,
    /// The new job that was enqueued, if any.
    pub new_job: Option<i64>,
}

impl Answer {
    pub fn new(word: &'static str, is_good: bool) -> Answer {
        Answer { word, is_good, new_job: None }
    }
}

impl From<Retried> for Answer {
    fn from(retried: Retried) -> Answer {
        Answer::new(retried.name(), matches!(retried, Retried::Due | Retried::Revived))
    }
}

impl From<Cancelled> for Answer {
    fn from(cancelled: Cancelled) -> Answer {
        Answer::new(cancelled.name(), matches!(cancelled, Cancelled::Cancelled | Cancelled::Requested))
    }
}

impl From<RunAgain> for Answer {
    fn from(again: RunAgain) -> Answer {
        match again {
            RunAgain::Enqueued(job) => Answer { new_job: Some(job), ..Answer::new("again", true) },
            RunAgain::Live => Answer::new("live", false),
            RunAgain::Dead => Answer::new("dead", false),
            _ => Answer::new("unknown", false),
        }
    }
}

/// Makes the same request for each id, and prints the result. If the server refuses the request for one id, this
/// continues with the next id.
///
/// Fails with [`Failure::NotFound`] unless all answers are good.
pub async fn each(ids: &[i64], json: bool, act: impl AsyncFn(i64) -> reveille::Result<Answer>) -> Outcome {
    let mut all_good = true;
    let progress = Progress::start("asking the server", json);
    for (done, &id) in ids.iter().enumerate() {
        progress.count(done as u64, ids.len() as u64);
        let Answer { word, is_good, new_job } = match act(id).await {
            Ok(answer) => answer,
            Err(error) => {
                all_good = false;
                print_refusal(id, &error, json)?;
                continue;
            }
        };
        all_good &= is_good;
        match new_job {
            Some(job) => {
                let object = json!({"id": id, "answer": word, "job": job});
                output::answer(json, object, format_args!("{id} {word} as {job}"))?
            }
            None => output::answer(json, json!({"id": id, "answer": word}), format_args!("{id} {word}"))?,
        }
    }
    if all_good { Ok(()) } else { Err(Failure::NotFound) }
}

/// Prints the reason why the server refused the request for one id. Fails if the server would refuse every other
/// request as well.
fn print_refusal(id: i64, error: &reveille::Error, json: bool) -> Outcome {
    if error.is_unavailable() || error.is_denied() || error.is_schema_missing() || error.is_schema_mismatch() {
        return Err(Failure::Error(error.to_string()));
    }
    let object = json!({"id": id, "answer": "refused", "error": error.to_string()});
    Ok(output::answer(json, object, format_args!("{id} refused: {error}"))?)
}
