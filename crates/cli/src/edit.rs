use std::io::Read;
use std::time::Duration;

use clap::Args;
use reveille::admin::{Admin, BulkAction, Edited, JobEdit};
use reveille::job::{MAX_PAYLOAD, Payload, Priority};

use crate::bulk::BulkArgs;
use crate::connection::{Connection, duration};
use crate::filter::FilterArgs;
use crate::jobs::{Answer, each};
use crate::{Failure, Outcome};

#[derive(Args)]
// The names of these conditions are those of new values here.
#[command(
    mut_arg("queue", |arg| arg.long("queue-is")),
    mut_arg("key", |arg| arg.long("key-is")),
    mut_arg("payload", |arg| arg.long("payload-has"))
)]
pub struct EditCommand {
    /// The ids of the jobs. Without ids, the waiting jobs of the filter.
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Move the jobs to this queue.
    #[arg(long = "queue", value_name = "QUEUE")]
    to_queue: Option<String>,
    /// The priority: urgent, high, normal, low, or 0 to 3.
    #[arg(long)]
    priority: Option<Priority>,
    /// Make the jobs due at this time, as Postgres reads it, like '2026-12-24 18:00+01' or now.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Make the jobs due after this time from now on, like 5m.
    #[arg(long, value_parser = duration, value_name = "DURATION", conflicts_with = "at")]
    delay: Option<Duration>,
    /// The new payload: JSON, or - to read it from stdin.
    #[arg(long = "payload", value_name = "JSON")]
    to_payload: Option<String>,
    /// The number of failures at which the job is dead.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    max_attempts: Option<u32>,
    /// The key: what the job belongs to, such as a tenant.
    #[arg(long = "key", value_name = "KEY")]
    to_key: Option<String>,
    /// Remove the key.
    #[arg(long, conflicts_with = "to_key")]
    no_key: bool,
    /// The time that one attempt may take, like 30s.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// Remove the timeout: that of the job's kind holds.
    #[arg(long, conflicts_with = "timeout")]
    no_timeout: bool,
    #[command(flatten)]
    bulk: BulkArgs,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

impl EditCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let filter = self.bulk.filter(&self.ids, self.filter.filter()?)?;
        let payload = self.to_payload.as_deref().map(read_payload).transpose()?;
        let admin = connection.operator().await?;
        let edit = self.edit(&admin, payload).await?;
        edit.check()?;
        if let Some(filter) = filter {
            return self.bulk.run(&admin, BulkAction::Edit(edit), &filter, self.json).await;
        }
        each(&self.ids, self.json, async |id| Ok(admin.edit(id, edit.clone()).await?.into())).await
    }

    async fn edit(&self, admin: &Admin, payload: Option<Payload>) -> Result<JobEdit, Failure> {
        let mut edit = JobEdit::new();
        edit = self.to_queue.iter().fold(edit, JobEdit::queue);
        edit = self.priority.into_iter().fold(edit, JobEdit::priority);
        edit = self.delay.into_iter().fold(edit, JobEdit::delay);
        edit = payload.into_iter().fold(edit, JobEdit::payload);
        edit = self.max_attempts.into_iter().fold(edit, JobEdit::max_attempts);
        edit = self.to_key.as_deref().into_iter().fold(edit, JobEdit::key);
        edit = self.timeout.into_iter().fold(edit, JobEdit::timeout);
        if let Some(at) = &self.at {
            edit = edit.at(admin.read_time(at).await?);
        }
        if self.no_key {
            edit = edit.key(None);
        }
        if self.no_timeout {
            edit = edit.timeout(None);
        }
        Ok(edit)
    }
}

fn read_payload(payload: &str) -> Result<Payload, Failure> {
    if payload != "-" {
        return Ok(Payload::parse(payload)?);
    }
    let mut read = Vec::new();
    std::io::stdin().take(MAX_PAYLOAD as u64 + 1).read_to_end(&mut read)?;
    let payload =
        String::from_utf8(read).map_err(|_| "the payload on stdin is not UTF-8; send it as UTF-8".to_owned())?;
    Ok(Payload::parse(&payload)?)
}

impl From<Edited> for Answer {
    fn from(edited: Edited) -> Answer {
        Answer::new(edited.name(), matches!(edited, Edited::Waiting | Edited::Dead))
    }
}
