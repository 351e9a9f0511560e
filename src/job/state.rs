/// Where a job stands, from being enqueued to having ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// It is due and waits for a worker.
    Ready,
    /// Its due time has not come: it was enqueued with a delay, snoozed, or waits for a retry.
    Delayed,
    /// A worker holds it.
    Running,
    /// It is done.
    Completed,
    /// It ended without being done.
    Cancelled,
    /// No further attempt will be made, until it is revived.
    Dead,
}

impl JobState {
    /// Its name in the database and at the command: `ready`, `delayed`, `running`, `completed`, `cancelled` or `dead`.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Ready => "ready",
            JobState::Delayed => "delayed",
            JobState::Running => "running",
            JobState::Completed => "completed",
            JobState::Cancelled => "cancelled",
            JobState::Dead => "dead",
        }
    }

    /// The state with this name.
    pub fn from_name(name: &str) -> Option<JobState> {
        let all = [
            JobState::Ready,
            JobState::Delayed,
            JobState::Running,
            JobState::Completed,
            JobState::Cancelled,
            JobState::Dead,
        ];
        all.into_iter().find(|state| state.name() == name)
    }
}
