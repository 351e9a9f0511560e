//! Linked jobs about to be enqueued: jobs that wait for others, and the jobs of a workflow.

use crate::error::{Error, Result};
use crate::job::NewJob;
use crate::job::payload::Payload;

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
pub(crate) struct Dependency {
    /// The name of the other job.
    pub(crate) name: String,
    pub(crate) fires_on: FiresOn,
    /// True if the job is skipped once the other job is dead, instead of waiting until that job is revived.
    pub(crate) cancel_if_dead: bool,
}

/// A new job of a workflow.
#[derive(Debug, Clone)]
pub(crate) struct LinkedJob {
    pub(crate) name: String,
    pub(crate) job: NewJob,
    /// The jobs that this job waits for. `None`: it waits for nothing, not even for the seal.
    pub(crate) after: Option<Vec<Dependency>>,
    /// The blocked jobs that are to wait for this job.
    pub(crate) before: Vec<Dependency>,
    /// True if one met dependency is enough.
    pub(crate) needs_one: bool,
}

/// A job that another job has waited for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Input {
    /// The label under which the waiting job reads this input: the name of the other job in the workflow, or its id.
    pub label: String,
    /// The id of the other job.
    pub job: i64,
    /// `completed`, `dead`, `cancelled` or `skipped`; `None` if the other job has not ended, or its end is no longer
    /// known.
    pub outcome: Option<String>,
    /// The result of the other job, if it has one.
    pub result: Option<Payload>,
}

/// Linked jobs about to be enqueued.
///
/// An [`EnqueueOn`](crate::database::EnqueueOn) that stores linked jobs gets a value of this type. Its parts are
/// private, since only the stores of this crate do so.
#[derive(Debug)]
pub struct LinkedJobs {
    pub(crate) target: Target,
    pub(crate) jobs: Vec<LinkedJob>,
}

/// The place of linked jobs.
#[derive(Debug)]
pub(crate) enum Target {
    /// A new workflow.
    New {
        name: String,
        unique_key: Option<String>,
        input: Option<Payload>,
        parent: Option<i64>,
        /// True if the workflow has all of its jobs.
        seal: bool,
    },
    /// The workflow with this id. `seal`: it has all of its jobs now.
    Existing { id: i64, seal: bool },
    /// No workflow: one job that waits for the jobs with these ids.
    Jobs { ids: Vec<i64>, job: Box<NewJob>, fires_on: FiresOn, cancel_if_dead: bool, needs_one: bool },
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
