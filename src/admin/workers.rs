//! Listing workers, and stopping one.

use std::time::SystemTime;

use tokio_postgres::types::Type;

use super::{Admin, Record, View};
use crate::error::Result;

/// A worker process, as a row of the view `worker_status`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerRow {
    /// The id, in the column `worker`: a random number, new at each start of the worker.
    pub id: i64,
    /// The name of the worker's host.
    pub host: String,
    /// The process id on that host.
    pub pid: u32,
    /// The queues that the worker works.
    pub queues: Vec<String>,
    /// The number of jobs that the worker holds.
    pub running: u64,
    /// The number of slots, all queues together. `reveille listen` is listed with 0 slots.
    pub slots: u64,
    /// The time at which the worker started.
    pub started_at: Option<SystemTime>,
    /// The time of the last heartbeat.
    pub last_seen: Option<SystemTime>,
    /// True if the last heartbeat is less than 30 seconds old.
    pub alive: bool,
    /// True if the worker is shutting down, or has been asked to shut down.
    pub stopping: bool,
    /// The version of Reveille that the worker runs.
    pub version: String,
    /// The number of the worker's stuck jobs.
    pub stuck: u64,
    record: Record,
}

impl WorkerRow {
    /// All columns of the view.
    pub fn record(&self) -> &Record {
        &self.record
    }

    fn from_record(record: Record) -> Result<WorkerRow> {
        Ok(WorkerRow {
            id: record.decode("worker")?,
            host: record.decode("host")?,
            pid: record.decode("pid")?,
            queues: record.decode("queues")?,
            running: record.decode("running")?,
            slots: record.decode("slots")?,
            started_at: record.time("started_at"),
            last_seen: record.time("last_seen"),
            alive: record.decode("alive")?,
            stopping: record.decode("stopping")?,
            version: record.decode("version")?,
            stuck: record.decode("stuck")?,
            record,
        })
    }
}

impl Admin {
    /// Lists all workers, in the order in which they started.
    ///
    /// # Errors
    /// The server's error.
    pub async fn workers(&self) -> Result<Vec<WorkerRow>> {
        self.view(View::WorkerStatus).await?.into_iter().map(WorkerRow::from_record).collect()
    }

    /// Asks a worker to shut down, as a signal to its process does: the worker finishes its running jobs, then its
    /// `run_until` returns.
    ///
    /// Returns false if no worker has this id. [`Admin::workers`] lists the ids, and
    /// [`Worker::id`](crate::Worker::id) is the id of a worker of this program.
    ///
    /// # Errors
    /// The server's error.
    pub async fn stop_worker(&self, id: i64) -> Result<bool> {
        let sql = "select reveille.stop_worker($1) as stops";
        let rows = self.query("stop a worker", sql, &[(&id, Type::INT8)]).await?;
        Ok(rows.first().is_some_and(|row| row.get("stops")))
    }
}
