//! What queues did over time, and how they are set.

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use super::{Admin, Record, as_bytes, records};
use crate::database::insert::seconds;
use crate::error::Result;

impl Admin {
    /// Reads the ended attempts of one queue, or of all queues with `None`, in equal parts of a time up to now. A part
    /// begins at a multiple of its length since 1970, so the last part is not over.
    ///
    /// The rows are those parts in which an attempt ended, oldest first: `part` from 0 on, `starts_at`, `completed`,
    /// `failed`, `mean_wait_seconds`, `max_wait_seconds`, `mean_run_seconds`, `max_run_seconds`. The counts of a minute
    /// are in the part of its start, and reach back 7 days.
    ///
    /// # Errors
    /// The server's error.
    pub async fn history(&self, queue: Option<&str>, time: Duration, parts: u32) -> Result<Vec<Record>> {
        let sql = as_bytes!(include_str!("../../sql/queue_history.sql"));
        let (seconds, parts) = (seconds(time.max(Duration::from_secs(1))), parts.clamp(1, 10_000) as i32);
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&queue, Type::TEXT), (&seconds, Type::FLOAT8), (&parts, Type::INT4)];
        records(&self.read("read the history of a queue", sql, &params).await?)
    }

    /// Reads the ended attempts of the last hour by queue, in 30 parts of two minutes: `queue`, and `parts`, an object
    /// with the number of ended attempts by part, from 0 for the oldest.
    ///
    /// # Errors
    /// The server's error.
    pub async fn last_hour(&self, queues: &[String]) -> Result<Vec<Record>> {
        let sql = as_bytes!(include_str!("../../sql/sparklines.sql"));
        records(&self.read("read the last hour of queues", sql, &[(&queues, Type::TEXT_ARRAY)]).await?)
    }

    /// Reads one queue: a record with the object `queue`, which has the columns of the view `queue_stats`, with the age
    /// in seconds as `oldest_ready_seconds`. `None` if nothing is known of the queue.
    ///
    /// # Errors
    /// The server's error.
    pub async fn queue(&self, name: &str) -> Result<Option<Record>> {
        let sql = as_bytes!(include_str!("../../sql/queue.sql"));
        Ok(records(&self.read("read a queue", sql, &[(&name, Type::TEXT)]).await?)?.pop())
    }

    /// Reads the settings of a queue as they are stored, with intervals in seconds; `None` if the queue has none.
    ///
    /// # Errors
    /// The server's error.
    pub async fn queue_settings(&self, queue: &str) -> Result<Option<Record>> {
        let sql = as_bytes!(include_str!("../../sql/queue_settings.sql"));
        Ok(records(&self.read("read the settings of a queue", sql, &[(&queue, Type::TEXT)]).await?)?.pop())
    }

    /// Reads the keys of a queue whose jobs wait, those with the most waiting jobs first: `key`, `waiting` (counted up
    /// to 1,000), `running`, and `has_more`. These are up to 50 of the queue's first 200 keys by name; `has_more` is
    /// true if there are that many.
    ///
    /// # Errors
    /// The server's error.
    pub async fn waiting_keys(&self, queue: &str) -> Result<Vec<Record>> {
        let sql = as_bytes!(include_str!("../../sql/queue_keys.sql"));
        records(&self.read("read the keys of a queue", sql, &[(&queue, Type::TEXT)]).await?)
    }
}
