//! A workflow as the payload of a job: written when the job is enqueued, and read when it runs.
//!
//! The jobs have the keys of `reveille.enqueue_workflow`.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Workflow;
use crate::database::json::LARGEST_PAYLOAD;
use crate::database::linked::write;
use crate::error::{Error, Result};
use crate::handler::does_not_fit;
use crate::job::linked::{Dependency, LinkedJob, LinkedJobs, LinkedTarget, WORKFLOW_KIND};
use crate::job::{Due, Enqueueable, FiresOn, NewJob, Payload};

/// The payload of a job that starts a workflow.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredWorkflow {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_key: Option<String>,
    #[serde(default = "empty_object")]
    input: Box<RawValue>,
    jobs: Vec<Box<RawValue>>,
}

/// A job of the workflow, as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredJob {
    name: String,
    kind: String,
    #[serde(default = "empty_object")]
    payload: Box<RawValue>,
    queue: Option<String>,
    delay: Option<Value>,
    available_at: Option<IgnoredAny>,
    priority: Option<Value>,
    max_attempts: Option<u32>,
    timeout: Option<Value>,
    unique_key: Option<IgnoredAny>,
    unique_mode: Option<IgnoredAny>,
    unique_until: Option<IgnoredAny>,
    key: Option<String>,
    tags: Option<Vec<String>>,
    metadata: Option<Box<RawValue>>,
    parent_id: Option<i64>,
    /// The limit of the payload has been checked when the workflow was enqueued as a payload itself.
    #[serde(rename = "max_payload")]
    _max_payload: Option<IgnoredAny>,
    wait_for: Option<String>,
    fires_on: Option<String>,
    on_dead: Option<String>,
    after: Option<Vec<StoredDependency>>,
    before: Option<Vec<StoredDependency>>,
}

/// A job that another one waits for: its name, or its name with the outcome that is waited for.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a name, or an object with a \"name\" and no other keys but \"fires_on\" and \"on_dead\""
)]
enum StoredDependency {
    Name(String),
    Object(StoredOutcome),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredOutcome {
    name: String,
    fires_on: Option<String>,
    on_dead: Option<String>,
}

fn empty_object() -> Box<RawValue> {
    // An empty object always serializes.
    serde_json::value::to_raw_value(&serde_json::Map::new()).unwrap_or_default()
}

impl Enqueueable for Workflow {
    /// Makes the job that enqueues the workflow when it runs. It is of the kind `reveille.workflow`.
    ///
    /// # Errors
    /// Invalid if the workflow cannot be enqueued: as in
    /// [`Enqueuer::enqueue_workflow`](crate::enqueue::Enqueuer::enqueue_workflow). Invalid also if one of its jobs is
    /// due at a fixed time.
    fn to_new_job(&self) -> Result<NewJob> {
        let linked = self.checked()?;
        let LinkedTarget::New { name, unique_key, input, .. } = linked.target else {
            return Err(Error::broken("a new workflow has another target"));
        };
        let raw = |json: Vec<u8>| {
            let raw: serde_json::Result<Box<RawValue>> = serde_json::from_slice(&json);
            raw.map_err(|error| Error::invalid(format!("the workflow is not JSON: {error}")))
        };
        let jobs = linked.jobs.iter().map(|job| {
            let mut json = Vec::new();
            write(job, &mut json)?;
            raw(json)
        });
        let jobs = jobs.collect::<Result<_>>()?;
        let input = input.map_or_else(|| Ok(empty_object()), |input| raw(input.as_bytes().to_vec()))?;
        let stored = StoredWorkflow { name, unique_key, input, jobs };
        Ok(NewJob::new(WORKFLOW_KIND, Payload::encode_as("the workflow", &stored)?))
    }
}

impl Workflow {
    /// Reads the payload of a job that starts a workflow.
    ///
    /// # Errors
    /// Invalid if the payload is no workflow that can be enqueued.
    pub(super) fn read(payload: &Payload) -> Result<Workflow> {
        let stored: StoredWorkflow = payload.decode().map_err(|error| Error::invalid(does_not_fit(&error)))?;
        let mut workflow = Workflow::new(stored.name);
        workflow.unique_key = stored.unique_key;
        workflow.input = Ok(Some(Payload::from_stored(stored.input.get())));
        for (place, job) in (1..).zip(stored.jobs) {
            let job: StoredJob = serde_json::from_str(job.get())
                .map_err(|error| Error::invalid(format!("cannot enqueue: job {place}: {error}")))?;
            let name = Value::from(job.name.as_str());
            let of_it = |error| Error::invalid(format!("cannot enqueue: job {name}: {error}"));
            workflow.members.add_linked(job.into_linked().map_err(of_it)?);
        }
        workflow.checked()?;
        Ok(workflow)
    }

    /// Returns the workflow as it is enqueued later, if it can be.
    fn checked(&self) -> Result<LinkedJobs> {
        let linked = self.clone().link(None, true, Ok)?;
        for LinkedJob { name, job, .. } in &linked.jobs {
            let of_it = |error| Error::invalid(format!("cannot enqueue: job {}: {error}", Value::from(name.as_str())));
            job.check(LARGEST_PAYLOAD).map_err(of_it)?;
            if let Due::At(_) = job.due {
                let what = "it is due at a fixed time, but the workflow starts whenever its own job runs; give it a \
                            delay instead";
                return Err(of_it(Error::invalid(what)));
            }
        }
        linked.check(|_| false)?;
        Ok(linked)
    }
}

impl StoredJob {
    fn into_linked(self) -> Result<LinkedJob> {
        if self.available_at.is_some() {
            return Err(wrong("available_at", "the workflow starts whenever its own job runs; use \"delay\" instead"));
        }
        if self.unique_key.is_some() || self.unique_mode.is_some() || self.unique_until.is_some() {
            return Err(wrong("unique_key", "a job of a workflow cannot have one; the workflow can"));
        }
        let read = |others: Option<Vec<StoredDependency>>| {
            let read = |other: StoredDependency| other.read(self.fires_on.as_deref(), self.on_dead.as_deref());
            others.map(|others| others.into_iter().map(read).collect::<Result<Vec<Dependency>>>()).transpose()
        };
        let (after, before) = (read(self.after)?, read(self.before)?.unwrap_or_default());
        let needs_one = match self.wait_for.as_deref() {
            None | Some("all") => false,
            Some("first") => true,
            Some(_) => return Err(wrong("wait_for", "must be \"all\" or \"first\"")),
        };
        let job = NewJob::new(self.kind, Payload::from_stored(self.payload.get()));
        let job = NewJob {
            due: Due::In(seconds("delay", self.delay.as_ref())?.unwrap_or_default()),
            timeout: seconds("timeout", self.timeout.as_ref())?,
            queue: self.queue.unwrap_or(job.queue),
            max_attempts: self.max_attempts.unwrap_or(job.max_attempts),
            priority: match self.priority {
                None => job.priority,
                Some(Value::String(name)) => name.parse()?,
                Some(level) => level.to_string().parse()?,
            },
            key: self.key,
            tags: self.tags.unwrap_or_default(),
            metadata: self.metadata.map(|metadata| Payload::from_stored(metadata.get())),
            parent_id: self.parent_id,
            ..job
        };
        Ok(LinkedJob { name: self.name, job, after, before, needs_one })
    }
}

impl StoredDependency {
    /// `fires_on` and `on_dead`: the settings of the job, which apply unless the dependency has its own.
    fn read(self, fires_on: Option<&str>, on_dead: Option<&str>) -> Result<Dependency> {
        let own = match self {
            StoredDependency::Name(name) => StoredOutcome { name, fires_on: None, on_dead: None },
            StoredDependency::Object(own) => own,
        };
        let fires_on = own.fires_on.as_deref().or(fires_on).unwrap_or(FiresOn::Completed.name());
        let cancel_if_dead = match own.on_dead.as_deref().or(on_dead) {
            None | Some("hold") => false,
            Some("cancel") => true,
            Some(_) => return Err(wrong("on_dead", "must be \"hold\" or \"cancel\"")),
        };
        let fires_on = fires_on.parse().map_err(|error| wrong("fires_on", error))?;
        Ok(Dependency { name: own.name, fires_on, cancel_if_dead })
    }
}

fn seconds(key: &str, value: Option<&Value>) -> Result<Option<Duration>> {
    let Some(value) = value else { return Ok(None) };
    let seconds = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.map(Some).ok_or_else(|| wrong(key, "must be a number of seconds, 0 or more"))
}

fn wrong(key: &str, what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("key \"{key}\": {what}"))
}
