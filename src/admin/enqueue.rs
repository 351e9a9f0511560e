//! Enqueuing a job by hand.

use serde_json::json;

use super::Admin;
use crate::database::insert::{Insert, enqueued};
use crate::error::{Error, Result};
use crate::job::{Enqueued, NewJob};

impl Admin {
    /// Enqueues a job by hand, as [`enqueue`](crate::enqueue()) does. The job passes no middleware.
    ///
    /// If this administrator [acts on behalf of someone](Admin::acting_as), the job and the row that records the action
    /// are stored together. An application enqueues its jobs by [`enqueue`](crate::enqueue()) on its own transaction.
    ///
    /// ```no_run
    /// # async fn example(database: reveille::Database) -> reveille::Result<()> {
    /// use reveille::job::{NewJob, Payload};
    ///
    /// let job = NewJob::new("send_welcome", Payload::parse(r#"{"user_id": 7}"#)?).queue("mail");
    /// let enqueued = database.admin().acting_as("alice", "back office")?.enqueue(&job).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Invalid if the job cannot be stored; else the server's error.
    pub async fn enqueue(&self, job: &NewJob) -> Result<Enqueued> {
        let job = self.database.enqueuer().prepare(job)?;
        let mut change = self.change("enqueue");
        let rows = match Insert::of(self.database.schema(), std::slice::from_ref(&job)) {
            Some(insert) => change.query_applied(&insert.sql, &insert.typed()).await?,
            None => Vec::new(),
        };
        let new = enqueued(Ok(rows))?.pop();
        let new = new.ok_or_else(|| Error::unavailable("cannot enqueue: the server returned no row"))?;
        let answer = if new.existed { "existed" } else { "enqueued" };
        let detail = json!({
            "answer": answer, "kind": job.kind, "queue": job.queue, "priority": job.priority.level(), "key": job.key,
            "unique_key": job.unique_key,
        });
        change.record_with("enqueue", json!({"job": new.id}), detail, Some(&job.payload)).await?;
        Ok(new)
    }
}
