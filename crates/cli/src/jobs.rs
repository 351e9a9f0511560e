use clap::Args;
use reveille::admin::{Cancelled, Filter, JobRow, REASONS, Retried, RunAgain, StateFilter};
use reveille::job::JobState;
use serde_json::json;

use crate::connection::Connection;
use crate::progress::Progress;
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct JobsCommand {
    /// Only jobs of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only jobs of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only jobs in this state: ready, delayed, running, stuck, failing, dead, completed, cancelled or finished.
    /// Default: all live jobs.
    #[arg(long)]
    state: Option<String>,
    /// List at most this many jobs, newest first.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl JobsCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 8] = ["id", "state", "queue", "kind", "priority", "attempts", "failures", "available_at"];
        const RUNNING_COLUMNS: [&str; 8] =
            ["id", "queue", "kind", "attempts", "reserved_by", "reserved_at", "cancel_requested_at", "stuck_since"];
        let mut filter = filter(self.queue, self.kind);
        let mut columns = &COLUMNS;
        if let Some(state) = &self.state {
            // As a state, the command also accepts a reason, such as `lost`: it stands for the jobs that are dead for
            // this reason.
            if let Some(reason) = REASONS.into_iter().find(|reason| reason.name() == state) {
                filter = filter.reason(reason);
            } else {
                let state: StateFilter = state.parse()?;
                if matches!(state, StateFilter::Stuck | StateFilter::Is(JobState::Running)) {
                    columns = &RUNNING_COLUMNS;
                }
                filter = filter.state(state);
            }
        }
        let jobs = connection.database().await?.admin().jobs(&filter, self.limit).await?;
        Ok(output::print(jobs.iter().map(JobRow::record), columns, self.json)?)
    }
}

pub fn filter(queue: Option<String>, kind: Option<String>) -> Filter {
    let filter = queue.into_iter().fold(Filter::new(), Filter::queue);
    kind.into_iter().fold(filter, Filter::kind)
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
    /// The ids of the jobs.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// Run completed and cancelled jobs once more, as new jobs with the same kind, payload, queue, priority, number of
    /// attempts, key, tags and metadata. A new job has no parent and no unique key; its timeout is its kind's.
    #[arg(long)]
    again: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl RetryCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
        if self.again {
            return each(&self.ids, self.json, async |id| Ok(admin.run_again(id).await?.into())).await;
        }
        each(&self.ids, self.json, async |id| Ok(admin.retry(id).await?.into())).await
    }
}

#[derive(Args)]
pub struct CancelCommand {
    /// The ids of the jobs.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl CancelCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
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
