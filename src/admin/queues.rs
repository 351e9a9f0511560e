//! Looking at a queue, pausing it, setting it, and waiting until it is drained.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};

use super::Admin;
use crate::error::{Error, Result};
use crate::job::check_name;
use crate::queue::QueueSettings;

/// What is left to do in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs that could start now, counted up to 10,000.
    pub ready: u64,
    /// Jobs that a worker holds.
    pub running: u64,
    /// Jobs whose time has not come, retries among them, counted up to 10,000.
    pub delayed: u64,
    /// Whether the queue is paused, so that what is ready does not start.
    pub paused: bool,
    /// How many living workers work it.
    pub workers: u64,
}

impl Backlog {
    /// Whether nothing runs, and nothing is going to: of a paused queue, what is ready does not count.
    pub fn is_drained(&self) -> bool {
        self.running == 0 && (self.ready == 0 || self.paused)
    }
}

/// How long to wait between two looks whether a queue is drained: at first, and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Looking takes at most a twentieth of the time: what takes long is asked less often.
const RESTS: u32 = 20;

impl Admin {
    /// Whether anything is known of a queue: it has settings, a job, a worker or a count.
    ///
    /// # Errors
    /// Invalid for a bad name; else what the server says.
    pub async fn is_known(&self, queue: &str) -> Result<bool> {
        check_name("queue", queue)?;
        let sql = "select exists (select from reveille.queue_totals where queue = $1)
            or exists (select from reveille.known_queues where queue = $1) as known";
        let rows = self.read("look for a queue", sql, &[(&queue, Type::TEXT)]).await?;
        Ok(rows.first().is_some_and(|row| row.get("known")))
    }

    /// Start no more jobs of this queue, anywhere, until it is resumed. What runs goes on; what is claimed and has not
    /// started goes back.
    pub async fn pause(&self, queue: &str) -> Result<()> {
        check_name("queue", queue)?;
        self.query("pause a queue", "select reveille.pause($1)", &[(&queue, Type::TEXT)]).await.map(drop)
    }

    /// Start jobs of this queue again.
    pub async fn resume(&self, queue: &str) -> Result<()> {
        check_name("queue", queue)?;
        self.query("resume a queue", "select reveille.resume($1)", &[(&queue, Type::TEXT)]).await.map(drop)
    }

    /// What is left to do in a queue.
    ///
    /// # Errors
    /// Invalid for a bad name; else what the server says.
    pub async fn backlog(&self, queue: &str) -> Result<Backlog> {
        check_name("queue", queue)?;
        let rows = self.read("count jobs", include_str!("../../sql/backlog.sql"), &[(&queue, Type::TEXT)]).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("count jobs: the server gave no answer"))?;
        let count = |column| row.get::<_, i64>(column).max(0) as u64;
        Ok(Backlog {
            ready: count("ready"),
            running: count("running"),
            delayed: count("delayed"),
            paused: row.get("paused"),
            workers: count("workers"),
        })
    }

    /// Wait until a queue [is drained](Backlog::is_drained): nothing in it is ready or running. `progress` is told at
    /// each look.
    ///
    /// What is enqueued meanwhile is waited for, too; what is delayed, retries among them, is not. Of a paused queue
    /// only what runs is waited for. Put a `tokio::time::timeout` around it to wait for so long only. The work is done
    /// by the queue's workers: to do it here, in a test, there is
    /// [`Worker::run_until_drained`](crate::Worker::run_until_drained).
    ///
    /// # Errors
    /// As in [`Admin::backlog`].
    pub async fn drain(&self, queue: &str, mut progress: impl FnMut(Backlog)) -> Result<Backlog> {
        let (mut delay, longest) = LOOK;
        loop {
            let began = Instant::now();
            let backlog = self.backlog(queue).await?;
            let rest = began.elapsed() * RESTS;
            progress(backlog);
            if backlog.is_drained() {
                return Ok(backlog);
            }
            tokio::time::sleep(delay.max(rest)).await;
            delay = (delay * 2).min(longest);
        }
    }

    /// Change settings of a queue; all workers go by them from their next claim on.
    ///
    /// # Errors
    /// Invalid for a bad name or a setting that is out of its range.
    pub async fn set_queue(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        check_name("queue", queue)?;
        let columns = settings.columns()?;
        if !columns.is_empty() {
            let columns = Value::from(columns);
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(&queue, Type::TEXT), (&columns, Type::JSONB)];
            self.query("set a queue", include_str!("../../sql/set_queue.sql"), &params).await?;
        }
        match settings.paused {
            Some(true) => self.pause(queue).await,
            Some(false) => self.resume(queue).await,
            None => Ok(()),
        }
    }
}
