use clap::Args;
use reveille::admin::{Admin, Again, Filter};
use serde_json::json;

use crate::connection::Connection;
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct Jobs {
    /// Only of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only in this state: ready, delayed, running, stuck, failing, dead, completed, cancelled or finished. Without it,
    /// all live ones.
    #[arg(long)]
    state: Option<String>,
    /// How many at most, newest first.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Jobs {
    pub async fn run(self, connection: &Connection) -> Outcome {
        const COLUMNS: [&str; 8] = ["id", "state", "queue", "kind", "priority", "attempts", "failures", "available_at"];
        const OF_RUNNING: [&str; 8] =
            ["id", "queue", "kind", "attempts", "reserved_by", "reserved_at", "cancel_requested_at", "stuck_since"];
        let columns = match self.state.as_deref() {
            Some("running" | "stuck") => &OF_RUNNING,
            _ => &COLUMNS,
        };
        let filter = Filter { queue: self.queue, kind: self.kind, state: self.state };
        let jobs = connection.database().await?.admin().jobs(&filter, self.limit).await?;
        Ok(output::print(&jobs, columns, self.json)?)
    }
}

#[derive(Args)]
pub struct JobById {
    id: i64,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl JobById {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match connection.database().await?.admin().job(self.id).await? {
            Some(job) => Ok(output::print_one(&job, self.json)?),
            None => {
                say!("no job {}: it never was, or its history is over", self.id);
                Err(Failure::NotFound)
            }
        }
    }
}

#[derive(Args)]
pub struct Retry {
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// Run jobs that have finished or were cancelled once more, as new jobs of the same kind, payload, queue,
    /// priority, number of attempts, key, tags and metadata. A new job has no parent and no unique key; its timeout
    /// is its kind's.
    #[arg(long)]
    again: bool,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Retry {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
        if self.again {
            return again(&admin, &self.ids, self.json).await;
        }
        each(&self.ids, self.json, &["due", "revived"], async |id| admin.retry(id).await).await
    }
}

#[derive(Args)]
pub struct Cancel {
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Cancel {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin: Admin = connection.database().await?.admin();
        each(&self.ids, self.json, &["cancelled", "requested"], async |id| admin.cancel(id).await).await
    }
}

/// What became of a job, in a word, and the new job that came of it, if any.
pub struct Answer {
    word: String,
    job: Option<i64>,
}

impl From<String> for Answer {
    fn from(word: String) -> Answer {
        Answer { word, job: None }
    }
}

/// Prints what became of each; not found if anything else than the good answers came. One that is refused does not
/// stop the others.
pub async fn each<A: Into<Answer>>(
    ids: &[i64],
    json: bool,
    good: &[&str],
    act: impl AsyncFn(i64) -> reveille::Result<A>,
) -> Outcome {
    let mut all_good = true;
    for &id in ids {
        let answer = match act(id).await {
            Ok(answer) => answer.into(),
            Err(error) => {
                all_good = false;
                refused(id, &error, json)?;
                continue;
            }
        };
        let Answer { word, job } = answer;
        all_good &= good.contains(&word.as_str());
        match job {
            Some(job) if json => output::line(json!({"id": id, "answer": word, "job": job}))?,
            None if json => output::line(json!({"id": id, "answer": word}))?,
            Some(job) => output::line(format!("{id} {word} as {job}"))?,
            None => output::line(format!("{id} {word}"))?,
        }
    }
    if all_good { Ok(()) } else { Err(Failure::NotFound) }
}

/// Says why the server refused one of several; an error unless it was for this one alone.
fn refused(id: i64, error: &reveille::Error, json: bool) -> Outcome {
    let of_all = error.is_unavailable() || error.is_denied() || error.is_schema_missing() || error.is_schema_mismatch();
    if of_all {
        return Err(Failure::Error(error.to_string()));
    }
    if json {
        output::line(json!({"id": id, "answer": "refused", "error": error.to_string()}))?;
    } else {
        output::line(format!("{id} refused: {}", output::plain(&error.to_string())))?;
    }
    Ok(())
}

/// Runs finished jobs once more; prints each with its new id.
async fn again(admin: &Admin, ids: &[i64], json: bool) -> Outcome {
    let act = async |id| {
        Ok(match admin.run_again(id).await? {
            Again::Enqueued(new) => Answer { word: "again".into(), job: Some(new) },
            Again::Live => "live".to_owned().into(),
            Again::Dead => "dead".to_owned().into(),
            Again::Unknown => "unknown".to_owned().into(),
        })
    };
    each(ids, json, &["again"], act).await
}
