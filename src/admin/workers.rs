//! Listing workers, stopping one, and changing their slots.

use std::time::SystemTime;

use serde_json::json;
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
    /// The number of slots of each queue, in the order of the queues.
    pub queue_slots: Vec<u64>,
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
            queue_slots: record.decode("queue_slots")?,
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

    /// Sets the number of slots of a queue, 0 to 10,000: in one worker, or in all live workers of the queue. Returns
    /// the number of these workers.
    ///
    /// A worker changes its slots at its next heartbeat, within a second by default. New slots take jobs at once; an
    /// occupied slot that has to go goes when its job ends. With 0 slots a worker starts no job of the queue, and the
    /// other workers do. A worker that is started again has the slots of its own program.
    ///
    /// # Errors
    /// Invalid if the number is above 10,000. The server's error.
    pub async fn set_slots(&self, queue: &str, slots: u32, worker: Option<i64>) -> Result<u64> {
        let (sql, slots) = ("select reveille.set_slots($1, $2, $3) as workers", i64::from(slots).min(10_001) as i32);
        let params = &[(&queue as _, Type::TEXT), (&slots as _, Type::INT4), (&worker as _, Type::INT8)];
        let mut change = self.change("set slots");
        let workers = change.row(sql, params).await?.get::<_, i32>("workers").max(0) as u64;
        let mut target = json!({"queue": queue});
        if let Some(worker) = worker {
            target["worker"] = worker.into();
        }
        change.record("set_slots", target, json!({"answer": "set", "slots": slots, "workers": workers})).await?;
        Ok(workers)
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
        let mut change = self.change("stop a worker");
        let stops: bool = change.row(sql, &[(&id, Type::INT8)]).await?.get("stops");
        let answer = if stops { "stopping" } else { "unknown" };
        change.record("stop_worker", json!({"worker": id}), json!({"answer": answer})).await?;
        Ok(stops)
    }
}
