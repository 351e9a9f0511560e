//! The answers to requests to retry or to cancel a job.

/// The answer of [`Admin::retry`](crate::admin::Admin::retry).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retried {
    /// The waiting job is due now.
    Due,
    /// The dead job lives again and is due now.
    Revived,
    /// Nothing was done: the job is running.
    Running,
    /// Nothing was done: the job is blocked. It waits for the ends of other jobs.
    Blocked,
    /// Nothing was done: the job is dead, and a job that waited for its death was started.
    /// [`Admin::retry_forced`](crate::admin::Admin::retry_forced) revives the job all the same.
    Compensated,
    /// Nothing was done: the job has finished. [`Admin::run_again`](crate::admin::Admin::run_again) enqueues a new job
    /// like it.
    Finished,
    /// Nothing was done: no job has this id, or the job's history has been deleted.
    Unknown,
}

/// The answer of [`Admin::cancel`](crate::admin::Admin::cancel).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// The waiting or blocked job is cancelled.
    Cancelled,
    /// The running handler was asked to stop.
    Requested,
    /// Nothing was done: the job has finished.
    Finished,
    /// Nothing was done: the job is dead.
    Dead,
    /// Nothing was done: no job has this id, or the job's history has been deleted.
    Unknown,
}

/// The answer of [`Admin::retry_workflow`](crate::admin::Admin::retry_workflow) for one dead job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetriedJob {
    /// The name of the job within the workflow.
    pub name: String,
    /// The id of the job.
    pub job: i64,
    /// What was done; `None` if the job stays dead because a live job has its id or its unique key.
    pub retried: Option<Retried>,
}

impl RetriedJob {
    /// Describes a dead job, with what was done to it.
    pub fn new(name: impl Into<String>, job: i64, retried: Option<Retried>) -> RetriedJob {
        RetriedJob { name: name.into(), job, retried }
    }
}

impl Retried {
    pub(crate) const ALL: [Retried; 7] = [
        Retried::Due,
        Retried::Revived,
        Retried::Running,
        Retried::Blocked,
        Retried::Compensated,
        Retried::Finished,
        Retried::Unknown,
    ];

    /// The name of this answer in `reveille.retry`: `due`, `revived`, `running`, `blocked`, `compensated`, `finished`
    /// or `unknown`.
    pub fn name(self) -> &'static str {
        match self {
            Retried::Due => "due",
            Retried::Revived => "revived",
            Retried::Running => "running",
            Retried::Blocked => "blocked",
            Retried::Compensated => "compensated",
            Retried::Finished => "finished",
            Retried::Unknown => "unknown",
        }
    }
}

impl Cancelled {
    pub(crate) const ALL: [Cancelled; 5] =
        [Cancelled::Cancelled, Cancelled::Requested, Cancelled::Finished, Cancelled::Dead, Cancelled::Unknown];

    /// The name of this answer in `reveille.cancel`: `cancelled`, `requested`, `finished`, `dead` or `unknown`.
    pub fn name(self) -> &'static str {
        match self {
            Cancelled::Cancelled => "cancelled",
            Cancelled::Requested => "requested",
            Cancelled::Finished => "finished",
            Cancelled::Dead => "dead",
            Cancelled::Unknown => "unknown",
        }
    }
}
