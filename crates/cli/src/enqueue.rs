use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};
use reveille::enqueue::FinishedJob;
use reveille::job::{Enqueued, FiresOn, Payload, UniqueMode, UniqueUntil};
use reveille::{
    Database, enqueue,
    job::{NewJob, Priority},
};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::connection::{Connection, duration};
use crate::enqueue_file::{self, FileOptions};
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct EnqueueCommand {
    /// The kind of the job, which decides which handler runs it.
    #[arg(required_unless_present = "from_file")]
    kind: Option<String>,
    /// The payload that the handler gets: JSON, or - to read it from stdin.
    #[arg(default_value = "{}")]
    payload: String,
    /// The queue of the job.
    #[arg(long, default_value = "default")]
    queue: String,
    /// Delay the job by this time, like 5m.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    delay: Option<Duration>,
    /// Delay the job until this time, as Postgres reads it, like '2026-12-24 18:00+01'.
    #[arg(long, conflicts_with = "delay", value_name = "TIME")]
    at: Option<String>,
    /// The priority: urgent, high, normal, low, or 0 to 3.
    #[arg(long, default_value = "normal")]
    priority: Priority,
    /// The number of failures at which the job is dead.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    max_attempts: u32,
    /// The time that one attempt may take, like 30s.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// Enqueue the job only if no other job of its kind holds this unique key.
    #[arg(long, value_name = "KEY", group = "unique")]
    unique_key: Option<String>,
    /// Make the unique key of the payload: enqueue the job only if no other job of its kind has the same payload.
    #[arg(long, group = "unique")]
    unique_by_payload: bool,
    /// Enqueue the job only if there is no other job of its kind.
    #[arg(long, group = "unique")]
    unique_by_kind: bool,
    /// The change to the other job that holds the unique key, if that job waits.
    #[arg(long, value_enum, default_value_t = UniqueModeArg::Keep, requires = "unique", value_name = "MODE")]
    unique_mode: UniqueModeArg,
    /// The time until which the job holds its unique key.
    #[arg(long, value_enum, default_value_t = UniqueUntilArg::Finished, requires = "unique", value_name = "WHEN")]
    unique_until: UniqueUntilArg,
    /// Hold the unique key until the job has ended and this time has passed since it was enqueued, like 1h.
    #[arg(long, value_parser = duration, value_name = "DURATION", requires = "unique", conflicts_with = "unique_until")]
    unique_for: Option<Duration>,
    /// Let the job wait until the jobs with these ids have ended. Of several, all must end so.
    #[arg(long, value_name = "ID", value_delimiter = ',', conflicts_with = "unique")]
    after: Vec<i64>,
    /// The outcome of these jobs that the job waits for. If another outcome comes, the job is cancelled; but while one
    /// of them is dead, the job waits until that one is revived or purged.
    #[arg(long, value_name = "OUTCOME", requires = "after", default_value = "completed", value_parser = outcomes())]
    on: FiresOn,
    /// The key: what the job belongs to, such as a tenant.
    #[arg(long)]
    key: Option<String>,
    /// A label. May be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Facts about the job: a JSON object.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Refuse a payload of more than this many bytes.
    #[arg(long, default_value_t = 1024 * 1024, value_name = "BYTES")]
    max_payload: usize,
    /// Wait for the job's end and print its result; exit with 0 if it is completed, else with 1.
    #[arg(long)]
    wait: bool,
    /// Wait at most this long, like 30s; then exit with 1.
    #[arg(long, value_parser = duration, value_name = "DURATION", requires = "wait")]
    wait_timeout: Option<Duration>,
    /// Enqueue the jobs of this file, or of stdin (-): one JSON object a line, with the arguments of reveille.enqueue
    /// as members, like '{"kind": "mail", "payload": {"to": 7}, "delay": "5 minutes"}'. All are enqueued, or none.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "kind", "payload", "queue", "delay", "at", "priority", "max_attempts", "timeout", "unique", "unique_mode",
        "unique_until", "after", "key", "tags", "metadata", "wait",
    ], value_hint = ValueHint::FilePath)]
    from_file: Option<String>,
    /// Commit after each of this many jobs of the file, instead of once at its end.
    #[arg(long, value_name = "JOBS", requires = "from_file", value_parser = clap::value_parser!(u64).range(1..))]
    commit_every: Option<u64>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum UniqueModeArg {
    /// Leave the other job unchanged.
    Keep,
    /// Give the other job the new payload.
    Replace,
    /// Give the other job the new payload and due time.
    Debounce,
}

#[derive(Clone, Copy, ValueEnum)]
enum UniqueUntilArg {
    /// Until the job first starts.
    Started,
    /// Until the job has ended.
    Finished,
}

fn outcomes() -> impl TypedValueParser<Value = FiresOn> {
    PossibleValuesParser::new(FiresOn::ALL.map(FiresOn::name)).try_map(|name| name.parse::<FiresOn>())
}

impl EnqueueCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        if let Some(path) = self.from_file {
            let (commit_every, max_payload, json) = (self.commit_every, self.max_payload, self.json);
            let options = FileOptions { path, commit_every, max_payload, json };
            return enqueue_file::run(&connection.database().await?, &options).await;
        }
        let payload = Payload::parse(&self.read_payload()?)?;
        let mode = match self.unique_mode {
            UniqueModeArg::Keep => UniqueMode::Keep,
            UniqueModeArg::Replace => UniqueMode::Replace,
            UniqueModeArg::Debounce => UniqueMode::Debounce,
        };
        let until = match (self.unique_for, self.unique_until) {
            (Some(period), _) => UniqueUntil::Period(period),
            (None, UniqueUntilArg::Started) => UniqueUntil::Started,
            (None, UniqueUntilArg::Finished) => UniqueUntil::Finished,
        };
        let mut job = NewJob::new(self.kind.unwrap_or_default(), payload)
            .queue(self.queue)
            .priority(self.priority)
            .max_attempts(self.max_attempts)
            .unique_mode(mode)
            .unique_until(until);
        job.timeout = self.timeout;
        job.unique_key = self.unique_key;
        job.key = self.key;
        job.tags = self.tags;
        job.metadata = self.metadata.as_deref().map(object).transpose()?;
        let database = connection.database().await?;
        let mut enqueue = enqueue(&database, &job).max_payload(self.max_payload);
        if self.unique_by_payload {
            enqueue = enqueue.unique_by_payload();
        }
        if self.unique_by_kind {
            enqueue = enqueue.unique_by_kind();
        }
        if let Some(delay) = self.delay {
            enqueue = enqueue.delay(delay);
        }
        if let Some(at) = self.at {
            enqueue = enqueue.at(database.admin().read_time(&at).await?);
        }
        if !self.after.is_empty() {
            enqueue = enqueue.after_outcome(self.on, self.after);
        }
        let enqueued = enqueue.await?;
        if self.wait {
            return wait(&database, enqueued, self.wait_timeout, self.json).await;
        }
        if self.json {
            output::line(json!({"id": enqueued.id, "existed": enqueued.existed}))?;
        } else if enqueued.existed {
            output::line(format!("{} (existed)", enqueued.id))?;
        } else {
            output::line(enqueued.id)?;
        }
        Ok(())
    }

    /// Reads the payload from the argument or from stdin. From stdin, this reads at most one byte more than is allowed,
    /// so that a payload that is too large is noticed.
    fn read_payload(&self) -> Result<String, Failure> {
        if self.payload != "-" {
            return Ok(self.payload.clone());
        }
        let mut payload = Vec::new();
        std::io::stdin().take(self.max_payload as u64 + 1).read_to_end(&mut payload)?;
        if payload.len() > self.max_payload {
            let limit = self.max_payload;
            return Err(
                format!("the payload on stdin is larger than the limit of {limit} bytes; raise --max-payload").into()
            );
        }
        String::from_utf8(payload).map_err(|_| "the payload on stdin is not UTF-8; send it as UTF-8".to_owned().into())
    }
}

/// The JSON object that `--wait --json` prints.
#[derive(Serialize)]
struct EndedJob<'a> {
    id: i64,
    existed: bool,
    outcome: Option<&'a str>,
    result: Option<&'a Payload>,
    error: Option<&'a str>,
}

fn as_json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| error.to_string().into())
}

/// Waits for the job's end, and prints its result or, with `json`, an object.
///
/// Fails with [`Failure::NotFound`] unless the job is completed.
async fn wait(database: &Database, enqueued: Enqueued, at_most: Option<Duration>, json: bool) -> Outcome {
    let Enqueued { id, existed, .. } = enqueued;
    let ending = enqueued.finished(database);
    let (finished, why_not) = match at_most {
        Some(at_most) => match tokio::time::timeout(at_most, ending).await {
            Ok(finished) => (finished?, String::new()),
            Err(_) => (None, format!("job {id} has not ended within {}", humantime::format_duration(at_most))),
        },
        None => (ending.await?, String::new()),
    };
    let outcome = finished.as_ref().map(|finished| finished.state.name());
    let error = finished.as_ref().and_then(FinishedJob::last_error);
    let result = finished.as_ref().and_then(|finished| finished.result.as_ref());
    if json {
        output::json_line(as_json(&EndedJob { id, existed, outcome, result, error })?)?;
    } else if let Some(result) = result {
        output::json_line(as_json(result)?)?;
    }
    match (outcome, error) {
        (Some("completed"), _) => return Ok(()),
        (Some(outcome), Some(error)) => say!("job {id} is {outcome}: {}", error),
        (Some(outcome), None) => say!("job {id} is {outcome}"),
        (None, _) if why_not.is_empty() => say!("it is not known how job {id} ended: its queue keeps no history"),
        (None, _) => say!("{why_not}"),
    }
    Err(Failure::NotFound)
}

/// Reads the value of `--metadata`. The text of the value is kept, so that no number is rounded.
pub fn object(text: &str) -> Result<Payload, Failure> {
    serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text)
        .map_err(|error| format!("--metadata must be a JSON object: {error}"))?;
    Ok(Payload::parse(text)?)
}
