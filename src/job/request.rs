//! What a request to retry or to cancel a job did.

/// What [`Admin::retry`](crate::admin::Admin::retry) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retried {
    /// The waiting job is due now.
    Due,
    /// The dead job lives again and is due now.
    Revived,
    /// Nothing: the job is running.
    Running,
    /// Nothing: the job has finished. [`Admin::run_again`](crate::admin::Admin::run_again) enqueues a new one like it.
    Finished,
    /// Nothing: there is no such job, or its history is over.
    Unknown,
}

/// What [`Admin::cancel`](crate::admin::Admin::cancel) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// The waiting job is cancelled.
    Cancelled,
    /// The running handler was asked to stop.
    Requested,
    /// Nothing: the job has finished.
    Finished,
    /// Nothing: the job is dead.
    Dead,
    /// Nothing: there is no such job, or its history is over.
    Unknown,
}

impl Retried {
    pub(crate) const ALL: [Retried; 5] =
        [Retried::Due, Retried::Revived, Retried::Running, Retried::Finished, Retried::Unknown];

    /// The answer of `reveille.retry`: `due`, `revived`, `running`, `finished` or `unknown`.
    pub fn name(self) -> &'static str {
        match self {
            Retried::Due => "due",
            Retried::Revived => "revived",
            Retried::Running => "running",
            Retried::Finished => "finished",
            Retried::Unknown => "unknown",
        }
    }
}

impl Cancelled {
    pub(crate) const ALL: [Cancelled; 5] =
        [Cancelled::Cancelled, Cancelled::Requested, Cancelled::Finished, Cancelled::Dead, Cancelled::Unknown];

    /// The answer of `reveille.cancel`: `cancelled`, `requested`, `finished`, `dead` or `unknown`.
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
