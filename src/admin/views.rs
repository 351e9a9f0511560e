//! Reading the views.

use super::{Admin, Record, as_bytes, records};
use crate::error::Result;

/// A view of Reveille's schema. Its columns are described in the database: `\d+ reveille.queue_stats` in psql.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum View {
    /// One row per queue: its jobs by state, and the number of jobs that ended within the last minute.
    QueueStats,
    /// One row per job that a worker holds, longest running first.
    RunningJobs,
    /// One row per live job that has failed at least once, newest first.
    FailingJobs,
    /// One row per queue, kind and reason of dead jobs, largest group first.
    DeadJobsOverview,
    /// One row per worker process, in the order in which they started.
    WorkerStatus,
    /// One row per queue and minute of the last 7 days, newest first.
    Throughput,
    /// One row per queue that has limits: the limits, and the present use of each.
    QueueLimits,
    /// One row per queue: the number of all attempts that ever ended.
    QueueTotals,
    /// One row per queue and kind with attempts in the last hour: their numbers and times.
    KindStats,
    /// One row per queue and kind: the number of all attempts that ever ended, with histograms of their times.
    KindTotals,
    /// One row per schedule.
    ScheduleStatus,
    /// One row per waiting job that cannot be claimed.
    PassedOverJobs,
    /// One row per change by a named actor, and per run over many jobs, newest first.
    ActionStatus,
    /// One row per pause of a queue, a kind or a key, oldest first.
    PauseStatus,
}

impl View {
    /// All views.
    pub const ALL: [View; 14] = [
        View::QueueStats,
        View::RunningJobs,
        View::FailingJobs,
        View::DeadJobsOverview,
        View::WorkerStatus,
        View::Throughput,
        View::QueueLimits,
        View::QueueTotals,
        View::KindStats,
        View::KindTotals,
        View::ScheduleStatus,
        View::PassedOverJobs,
        View::ActionStatus,
        View::PauseStatus,
    ];

    /// The view's name in the schema, such as `queue_stats`.
    pub fn name(self) -> &'static str {
        match self {
            View::QueueStats => "queue_stats",
            View::RunningJobs => "running_jobs",
            View::FailingJobs => "failing_jobs",
            View::DeadJobsOverview => "dead_jobs_overview",
            View::WorkerStatus => "worker_status",
            View::Throughput => "throughput",
            View::QueueLimits => "queue_limits",
            View::QueueTotals => "queue_totals",
            View::KindStats => "kind_stats",
            View::KindTotals => "kind_totals",
            View::ScheduleStatus => "schedule_status",
            View::PassedOverJobs => "passed_over_jobs",
            View::ActionStatus => "action_status",
            View::PauseStatus => "pause_status",
        }
    }

    /// Returns the view with this name.
    pub fn from_name(name: &str) -> Option<View> {
        View::ALL.into_iter().find(|view| view.name() == name)
    }

    fn sql(self) -> &'static str {
        match self {
            View::QueueStats => as_bytes!("select to_jsonb(v) as record from reveille.queue_stats as v order by queue"),
            View::RunningJobs => {
                as_bytes!("select to_jsonb(v) as record from reveille.running_jobs as v order by running_for desc")
            }
            View::FailingJobs => {
                as_bytes!("select to_jsonb(v) as record from reveille.failing_jobs as v order by id desc")
            }
            View::DeadJobsOverview => {
                as_bytes!("select to_jsonb(v) as record from reveille.dead_jobs_overview as v order by jobs desc")
            }
            View::WorkerStatus => {
                as_bytes!("select to_jsonb(v) as record from reveille.worker_status as v order by started_at")
            }
            View::Throughput => {
                as_bytes!("select to_jsonb(v) as record from reveille.throughput as v order by minute desc, queue")
            }
            View::QueueLimits => {
                as_bytes!("select to_jsonb(v) as record from reveille.queue_limits as v order by queue")
            }
            View::QueueTotals => {
                as_bytes!("select to_jsonb(v) as record from reveille.queue_totals as v order by queue")
            }
            View::KindStats => {
                as_bytes!("select to_jsonb(v) as record from reveille.kind_stats as v order by queue, kind")
            }
            View::KindTotals => {
                as_bytes!("select to_jsonb(v) as record from reveille.kind_totals as v order by queue, kind")
            }
            View::ScheduleStatus => {
                as_bytes!("select to_jsonb(v) as record from reveille.schedule_status as v order by name")
            }
            View::PassedOverJobs => {
                as_bytes!("select to_jsonb(v) as record from reveille.passed_over_jobs as v order by id")
            }
            View::ActionStatus => {
                as_bytes!("select to_jsonb(v) as record from reveille.action_status as v order by id desc")
            }
            View::PauseStatus => {
                as_bytes!("select to_jsonb(v) as record from reveille.pause_status as v order by paused_at")
            }
        }
    }
}

impl Admin {
    /// Reads all rows of a view.
    ///
    /// # Errors
    /// The server's error. The server gives up after 20 s.
    pub async fn view(&self, view: View) -> Result<Vec<Record>> {
        records(&self.read("read a view", view.sql(), &[]).await?)
    }
}
