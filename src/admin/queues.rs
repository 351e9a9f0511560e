//! Looking at a queue, pausing it, changing its settings, and waiting until it is drained.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};

use super::{Admin, as_bytes, records};
use crate::error::{Error, Result};
use crate::job::check_name;
use crate::queue::QueueSettings;

/// The work that a queue has left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Jobs that could start now, counted up to 10,000.
    pub ready: u64,
    /// Jobs that a worker holds.
    pub running: u64,
    /// Delayed jobs, including those that wait for a retry, counted up to 10,000.
    pub delayed: u64,
    /// Whether the queue is paused, so that ready jobs do not start.
    pub paused: bool,
    /// Live workers of the queue.
    pub workers: u64,
}

impl Backlog {
    /// Whether no job is running, and none is ready to start. In a paused queue, ready jobs do not count.
    pub fn is_drained(&self) -> bool {
        self.running == 0 && (self.ready == 0 || self.paused)
    }
}

/// The pause between two counts while waiting for a drained queue. It doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A pause lasts at least 20 times as long as the count before it, so that counting takes 5 % of the time at most.
const PAUSE_PER_COUNT: u32 = 20;

impl Admin {
    /// Returns the names of all queues that have jobs, settings or a worker, or had an attempt end within a day.
    ///
    /// # Errors
    /// What the server says.
    pub async fn queues(&self) -> Result<Vec<String>> {
        let sql = as_bytes!("select to_jsonb(v) as record from reveille.known_queues as v order by queue");
        records(&self.read("list queues", sql, &[]).await?)?.iter().map(|row| row.decode("queue")).collect()
    }

    /// Returns whether anything is known of a queue: it has settings, a job, a worker, or counts of ended attempts.
    ///
    /// # Errors
    /// Invalid for a bad name; else what the server says.
    pub async fn is_known(&self, queue: &str) -> Result<bool> {
        check_name("queue", queue)?;
        let sql = "select exists (select from reveille.queue_totals where queue = $1)
            or exists (select from reveille.known_queues where queue = $1) as known";
        let rows = self.read("find a queue", sql, &[(&queue, Type::TEXT)]).await?;
        Ok(rows.first().is_some_and(|row| row.get("known")))
    }

    /// Pauses a queue: no worker starts its jobs until it is resumed.
    ///
    /// Running jobs go on. Jobs that a worker claimed and has not started go back.
    ///
    /// # Errors
    /// Invalid for a bad name; else what the server says.
    pub async fn pause(&self, queue: &str) -> Result<()> {
        check_name("queue", queue)?;
        self.query("pause a queue", "select reveille.pause($1)", &[(&queue, Type::TEXT)]).await.map(drop)
    }

    /// Resumes a paused queue.
    ///
    /// # Errors
    /// As [`Admin::pause`].
    pub async fn resume(&self, queue: &str) -> Result<()> {
        check_name("queue", queue)?;
        self.query("resume a queue", "select reveille.resume($1)", &[(&queue, Type::TEXT)]).await.map(drop)
    }

    /// Counts the work that a queue has left.
    ///
    /// # Errors
    /// Invalid for a bad name; else what the server says.
    pub async fn backlog(&self, queue: &str) -> Result<Backlog> {
        check_name("queue", queue)?;
        let rows = self.read("count jobs", include_str!("../../sql/backlog.sql"), &[(&queue, Type::TEXT)]).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("cannot count jobs: the server returned no row"))?;
        let count = |column| row.get::<_, i64>(column).max(0) as u64;
        Ok(Backlog {
            ready: count("ready"),
            running: count("running"),
            delayed: count("delayed"),
            paused: row.get("paused"),
            workers: count("workers"),
        })
    }

    /// Waits until a queue [is drained](Backlog::is_drained): no job in it is ready or running.
    ///
    /// Calls `progress` with each count, at most a second apart unless counting takes longer than 50 ms. Jobs enqueued
    /// meanwhile are waited for; delayed ones, including those that wait for a retry, are not. If the queue is paused,
    /// this waits only for running jobs. It waits without end: put a `tokio::time::timeout` around it.
    ///
    /// It works no jobs itself; the queue's workers do. To work them in a test, see [`testing`](crate::testing).
    ///
    /// # Errors
    /// As [`Admin::backlog`].
    pub async fn wait_until_drained(&self, queue: &str, mut progress: impl FnMut(Backlog)) -> Result<Backlog> {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let backlog = self.backlog(queue).await?;
            let shortest = began.elapsed() * PAUSE_PER_COUNT;
            progress(backlog);
            if backlog.is_drained() {
                return Ok(backlog);
            }
            tokio::time::sleep(pause.max(shortest)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Changes settings of a queue. Workers follow them from their next claim on.
    ///
    /// # Errors
    /// Invalid for a bad name or a setting out of its range; else what the server says.
    pub async fn set_queue(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        check_name("queue", queue)?;
        let columns = settings.columns()?;
        if !columns.is_empty() {
            let columns = Value::from(columns);
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(&queue, Type::TEXT), (&columns, Type::JSONB)];
            self.query("change the settings of a queue", include_str!("../../sql/set_queue.sql"), &params).await?;
        }
        match settings.paused {
            Some(true) => self.pause(queue).await,
            Some(false) => self.resume(queue).await,
            None => Ok(()),
        }
    }
}
