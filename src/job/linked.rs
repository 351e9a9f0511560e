//! Linked jobs about to be enqueued: jobs that wait for others, and the jobs of a workflow.

use crate::error::{Error, Result};
use crate::job::NewJob;
use crate::job::payload::Payload;

/// Kinds that begin with this text are Reveille's own.
pub(crate) const RESERVED_KINDS: &str = "reveille.";
/// The kind of the jobs that start workflows. Their payloads are the workflows.
pub(crate) const WORKFLOW_KIND: &str = "reveille.workflow";

/// The outcome of a prerequisite that a job waits for. If another outcome comes, the job is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FiresOn {
    /// The prerequisite is completed.
    #[default]
    Completed,
    /// The prerequisite is dead.
    Dead,
    /// The prerequisite was cancelled or skipped.
    Cancelled,
    /// The prerequisite has ended in any way.
    Any,
}

impl FiresOn {
    /// All outcomes.
    pub const ALL: [FiresOn; 4] = [FiresOn::Completed, FiresOn::Dead, FiresOn::Cancelled, FiresOn::Any];

    /// Returns the name of the outcome in the database.
    pub fn name(self) -> &'static str {
        match self {
            FiresOn::Completed => "completed",
            FiresOn::Dead => "dead",
            FiresOn::Cancelled => "cancelled",
            FiresOn::Any => "any",
        }
    }
}

impl std::str::FromStr for FiresOn {
    type Err = Error;

    /// Reads an outcome's [name](FiresOn::name).
    fn from_str(text: &str) -> Result<FiresOn> {
        FiresOn::ALL
            .into_iter()
            .find(|outcome| outcome.name() == text)
            .ok_or_else(|| Error::invalid(format!("unknown outcome {text:?}; use completed, dead, cancelled or any")))
    }
}

/// A dependency on a job of the same workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dependency {
    /// The name of the other job.
    pub name: String,
    /// The outcome that is waited for.
    pub fires_on: FiresOn,
    /// True if the job is skipped once the other job is dead, instead of waiting until that job is revived.
    pub cancel_if_dead: bool,
}

/// A new job of a workflow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinkedJob {
    /// The name of the job, which no other job of the workflow has.
    pub name: String,
    /// The job.
    pub job: NewJob,
    /// The jobs that this job waits for. `None`: it waits for nothing, not even for the seal.
    pub after: Option<Vec<Dependency>>,
    /// The blocked jobs that are to wait for this job.
    pub before: Vec<Dependency>,
    /// True if one met dependency is enough.
    pub needs_one: bool,
}

/// A job that another job has waited for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Input {
    /// The label under which the waiting job reads this input: the name of the other job in the workflow, or its id.
    pub label: String,
    /// The id of the other job.
    pub job: i64,
    /// The kind of the other job; `None` if it is no longer known.
    pub kind: Option<String>,
    /// `completed`, `dead`, `cancelled` or `skipped`; `None` if the other job has not ended, or its end is no longer
    /// known.
    pub outcome: Option<String>,
    /// The result of the other job, if it has one.
    pub result: Option<Payload>,
}

impl Input {
    /// Describes a job that has not ended, or whose end is no longer known.
    pub fn new(label: impl Into<String>, job: i64) -> Input {
        Input { label: label.into(), job, kind: None, outcome: None, result: None }
    }

    /// Sets the kind. Without it, the result of an encrypted job is not decrypted.
    #[must_use]
    pub fn kind(self, kind: impl Into<String>) -> Input {
        Input { kind: Some(kind.into()), ..self }
    }

    /// Sets the outcome and the result.
    #[must_use]
    pub fn ended(self, outcome: impl Into<String>, result: Option<Payload>) -> Input {
        Input { outcome: Some(outcome.into()), result, ..self }
    }
}

/// The inputs of a job that are to be read, by their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels<'a> {
    /// The input with this label.
    One(&'a str),
    /// The inputs whose labels come after `label`, in the order of the labels, at most `most` of them.
    After {
        /// The label. All others come after the empty one.
        label: &'a str,
        /// The maximum number of inputs.
        most: usize,
    },
}

/// Linked jobs about to be enqueued: jobs of a workflow, or a job that waits for others.
///
/// [`Driver::enqueue_linked`](crate::driver::Driver::enqueue_linked) stores them. The jobs have passed their middleware
/// and were checked. The store asks [`check`](LinkedJobs::check) whether they can wait for each other.
#[derive(Debug)]
#[non_exhaustive]
pub struct LinkedJobs {
    /// The place of the jobs.
    pub target: LinkedTarget,
    /// The new jobs of the workflow. Empty if the place is no workflow.
    pub jobs: Vec<LinkedJob>,
}

/// The place of linked jobs.
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkedTarget {
    /// A new workflow.
    New {
        /// The name.
        name: String,
        /// The unique key. While a workflow of the name and the key has not ended, nothing is enqueued.
        unique_key: Option<String>,
        /// The input; `None` is an empty object.
        input: Option<Payload>,
        /// The job whose handler enqueues the workflow.
        parent: Option<i64>,
        /// True if the workflow has all of its jobs.
        seal: bool,
        /// True if the parent is the job that starts the workflow. The workflow then has the schedule of that job.
        takes_schedule: bool,
    },
    /// A workflow that exists.
    Existing {
        /// The id of the workflow.
        id: i64,
        /// True if the workflow has all of its jobs now.
        seal: bool,
    },
    /// No workflow: one job that waits for others.
    Jobs {
        /// The ids of the jobs that are waited for.
        ids: Vec<i64>,
        /// The job that waits.
        job: Box<NewJob>,
        /// The outcome that is waited for.
        fires_on: FiresOn,
        /// True if the job is skipped once one of the others is dead, instead of waiting until that job is revived.
        cancel_if_dead: bool,
        /// True if one met dependency is enough.
        needs_one: bool,
    },
}

impl LinkedJob {
    /// Refuses a job that no workflow can have.
    ///
    /// # Errors
    /// Invalid if the name is empty or too long, or if the job has a unique key.
    pub(crate) fn check(&self) -> Result<()> {
        let name = &self.name;
        if name.is_empty() || name.chars().count() > 128 {
            return Err(Error::invalid(format!("the name {name:?} of a workflow's job must have 1 to 128 characters")));
        }
        check_has_no_unique_key(&self.job)
    }
}

/// Refuses a unique key, because the job could meet another one when it moves to its queue.
pub(crate) fn check_has_no_unique_key(job: &NewJob) -> Result<()> {
    match &job.unique_key {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "the job of the kind {:?} has a unique key, but a job that waits for others or belongs to a workflow \
             cannot have one; give the workflow a unique key",
            job.kind
        ))),
    }
}
