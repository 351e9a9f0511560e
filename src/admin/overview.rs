//! The data of `reveille top` and of the dashboard's overview.

use tokio_postgres::types::{ToSql, Type};

use super::{Admin, Record, as_bytes, records};
use crate::error::{Error, Result};

/// A list that [`Admin::overview_list`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverviewList {
    /// The running jobs, longest running first.
    Running {
        /// The worker that holds the jobs; `None` for any worker.
        worker: Option<i64>,
    },
    /// The waiting jobs in the order of their due times: up to 200 ready jobs and up to 200 delayed jobs.
    Waiting {
        /// The queue of the jobs; `None` for any queue.
        queue: Option<String>,
    },
    /// The failing jobs, newest first.
    Failing,
    /// The groups of dead jobs with the same queue, kind and reason. The group with the latest dead job comes first.
    DeadGroups,
    /// The dead jobs of one group, the latest first.
    DeadJobs {
        /// The queue of the jobs.
        queue: String,
        /// The kind of the jobs.
        kind: String,
        /// The name of the reason for which the jobs are dead.
        reason: String,
    },
    /// The workers, in the order in which they started.
    Workers,
    /// The schedules, in the order of their names.
    Schedules,
    /// The queues that have limits, in the order of their names.
    Limits,
}

impl Admin {
    /// Reads the queues and their sums as one snapshot of the views, with times in seconds: `at`, `sums`, and up to 200
    /// rows of `queues`, which are the queues with the most activity.
    ///
    /// # Errors
    /// The server's error. The server gives up after 20 s.
    pub async fn overview(&self) -> Result<Record> {
        self.one_row("read the overview", as_bytes!(include_str!("../../sql/overview.sql"))).await
    }

    /// Reads the `sums` over all queues without counting the jobs of each queue, and two objects with a number by
    /// queue: `dead_by_queue`, and `failed_by_queue` for the attempts that failed in the last minute. The sums `ready`
    /// and `delayed` are exact up to 10,000 together; above that they are estimates, and `estimated` is true.
    ///
    /// # Errors
    /// As [`Admin::overview`].
    pub async fn queue_sums(&self) -> Result<Record> {
        self.one_row("read the sums over all queues", as_bytes!(include_str!("../../sql/queue_sums.sql"))).await
    }

    /// Reads some queues: the columns of the view `queue_stats` but `dead`, with the age in seconds as
    /// `oldest_ready_seconds`; and `served`, which is true if a living worker works the queue. A queue of which nothing
    /// is known has no jobs.
    ///
    /// `all` is the number of all queues. As in the view, it decides how many jobs of each queue are counted one by
    /// one: 10,000 of up to 10 queues, 100 of 1,000 queues or more. A larger number is an estimate.
    ///
    /// # Errors
    /// As [`Admin::overview`].
    pub async fn stats_of_queues(&self, queues: &[String], all: usize) -> Result<Vec<Record>> {
        let sql = as_bytes!(include_str!("../../sql/stats_of_queues.sql"));
        let all = i64::try_from(all).unwrap_or(i64::MAX);
        records(&self.read("read queues", sql, &[(&queues, Type::TEXT_ARRAY), (&all, Type::INT8)]).await?)
    }

    async fn one_row(&self, what: &str, sql: &'static str) -> Result<Record> {
        let row = records(&self.read(what, sql, &[]).await?)?.pop();
        row.ok_or_else(|| Error::unavailable(format!("cannot {what}: the server returned no row")))
    }

    /// Reads the first 200 rows of a list, with times in seconds.
    ///
    /// # Errors
    /// The server's error. The server gives up after 20 s.
    pub async fn overview_list(&self, list: &OverviewList) -> Result<Vec<Record>> {
        let rows = match list {
            OverviewList::Running { worker } => {
                let sql = as_bytes!(include_str!("../../sql/overview_running.sql"));
                self.read("list running jobs", sql, &[(worker, Type::INT8)]).await
            }
            OverviewList::Waiting { queue } => {
                let sql = as_bytes!(include_str!("../../sql/overview_waiting.sql"));
                self.read("list waiting jobs", sql, &[(queue, Type::TEXT)]).await
            }
            OverviewList::Failing => {
                self.read("list failing jobs", as_bytes!(include_str!("../../sql/overview_failing.sql")), &[]).await
            }
            OverviewList::DeadGroups => {
                self.read("list dead jobs", as_bytes!(include_str!("../../sql/overview_dead.sql")), &[]).await
            }
            OverviewList::DeadJobs { queue, kind, reason } => {
                let sql = as_bytes!(include_str!("../../sql/overview_dead_jobs.sql"));
                let params: [(&(dyn ToSql + Sync), Type); 3] =
                    [(queue, Type::TEXT), (kind, Type::TEXT), (reason, Type::TEXT)];
                self.read("list dead jobs", sql, &params).await
            }
            OverviewList::Workers => {
                self.read("list workers", as_bytes!(include_str!("../../sql/overview_workers.sql")), &[]).await
            }
            OverviewList::Schedules => {
                self.read("list schedules", as_bytes!(include_str!("../../sql/overview_schedules.sql")), &[]).await
            }
            OverviewList::Limits => {
                self.read("list limits", as_bytes!(include_str!("../../sql/overview_limits.sql")), &[]).await
            }
        };
        records(&rows?)
    }
}
