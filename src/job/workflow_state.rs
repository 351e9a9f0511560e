//! The states of workflows, and of their jobs.

/// The state of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkflowState {
    /// At least one job runs, or can start, or waits for one that can.
    Running,
    /// Dead jobs hold up all others, until they are revived or the workflow is cancelled.
    Stalled,
    /// The workflow is being cancelled: workers cancel its jobs.
    Cancelling,
    /// The workflow has ended: no job is dead or was cancelled.
    Completed,
    /// The workflow has ended: at least one job is dead.
    Failed,
    /// The workflow has ended: it was cancelled.
    Cancelled,
}

/// The state of a job of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkflowJobState {
    /// The job waits for the ends of other jobs.
    Blocked,
    /// The job is not due yet.
    Delayed,
    /// The job is due.
    Ready,
    /// A worker has reserved the job.
    Running,
    /// The job has ended, and no worker has applied its end yet.
    Ended,
    /// The job is completed.
    Completed,
    /// The job is dead.
    Dead,
    /// The job was cancelled.
    Cancelled,
    /// The job was skipped: the outcome that it waited for can no longer come.
    Skipped,
}

impl WorkflowState {
    /// All states.
    pub const ALL: [WorkflowState; 6] = [
        WorkflowState::Running,
        WorkflowState::Stalled,
        WorkflowState::Cancelling,
        WorkflowState::Completed,
        WorkflowState::Failed,
        WorkflowState::Cancelled,
    ];

    /// The state's name in the view: running, stalled, cancelling, completed, failed or cancelled.
    pub fn name(self) -> &'static str {
        match self {
            WorkflowState::Running => "running",
            WorkflowState::Stalled => "stalled",
            WorkflowState::Cancelling => "cancelling",
            WorkflowState::Completed => "completed",
            WorkflowState::Failed => "failed",
            WorkflowState::Cancelled => "cancelled",
        }
    }

    /// True if the workflow has ended: it is completed, failed or cancelled.
    pub fn is_ended(self) -> bool {
        matches!(self, WorkflowState::Completed | WorkflowState::Failed | WorkflowState::Cancelled)
    }

    pub(crate) fn from_name(name: &str) -> Option<WorkflowState> {
        WorkflowState::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl WorkflowJobState {
    /// All states.
    pub const ALL: [WorkflowJobState; 9] = [
        WorkflowJobState::Blocked,
        WorkflowJobState::Delayed,
        WorkflowJobState::Ready,
        WorkflowJobState::Running,
        WorkflowJobState::Ended,
        WorkflowJobState::Completed,
        WorkflowJobState::Dead,
        WorkflowJobState::Cancelled,
        WorkflowJobState::Skipped,
    ];

    /// The state's name in the view, such as `blocked`.
    pub fn name(self) -> &'static str {
        match self {
            WorkflowJobState::Blocked => "blocked",
            WorkflowJobState::Delayed => "delayed",
            WorkflowJobState::Ready => "ready",
            WorkflowJobState::Running => "running",
            WorkflowJobState::Ended => "ended",
            WorkflowJobState::Completed => "completed",
            WorkflowJobState::Dead => "dead",
            WorkflowJobState::Cancelled => "cancelled",
            WorkflowJobState::Skipped => "skipped",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<WorkflowJobState> {
        WorkflowJobState::ALL.into_iter().find(|state| state.name() == name)
    }
}
