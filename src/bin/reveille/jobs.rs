use clap::Args;
use reveille::admin::{Admin, Filter};
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
    /// Only in this state: ready, delayed, running, stuck, failing, dead, completed, cancelled or finished. Without it, all live ones.
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
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Retry {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.database().await?.admin();
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

/// Prints what became of each; not found if anything else than the good answers came.
pub async fn each(
    ids: &[i64],
    json: bool,
    good: &[&str],
    act: impl AsyncFn(i64) -> reveille::Result<String>,
) -> Outcome {
    let mut all_good = true;
    for &id in ids {
        let answer = act(id).await?;
        all_good &= good.contains(&answer.as_str());
        if json {
            output::line(json!({"id": id, "answer": answer}))?;
        } else {
            output::line(format!("{id} {answer}"))?;
        }
    }
    if all_good { Ok(()) } else { Err(Failure::NotFound) }
}
