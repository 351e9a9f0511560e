//! Listing jobs, and changing one job at a time.

use tokio_postgres::types::{ToSql, Type};

use super::filter::Listing;
use super::{Admin, Filter, JobRow, as_bytes, records};
use crate::driver::FailureReason;
use crate::error::{Error, Result};
use crate::job::{Cancelled, Retried};

/// The answer of [`Admin::run_again`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunAgain {
    /// A new job with this id was enqueued.
    Enqueued(i64),
    /// Nothing was done: the job has not ended.
    Live,
    /// Nothing was done: the job is dead. [`Admin::retry`] revives a dead job.
    Dead,
    /// Nothing was done: no job has this id, or the job's history has been deleted.
    Unknown,
}

impl Admin {
    /// Lists at most `limit` jobs that pass the filter, newest first.
    ///
    /// # Errors
    /// Invalid if the filter asks for a reason and a state other than dead; else the server's error.
    pub async fn jobs(&self, filter: &Filter, limit: u32) -> Result<Vec<JobRow>> {
        let (sql, chosen) = match filter.listing()? {
            Listing::Live(state) => (as_bytes!(include_str!("../../sql/list_jobs.sql")), state),
            Listing::Dead(reason) => {
                (as_bytes!(include_str!("../../sql/list_dead_jobs.sql")), reason.map(FailureReason::name))
            }
            Listing::Finished(outcome) => (as_bytes!(include_str!("../../sql/list_finished_jobs.sql")), outcome),
        };
        let limit = i64::from(limit);
        let params: [(&(dyn ToSql + Sync), Type); 4] =
            [(&filter.queue, Type::TEXT), (&filter.kind, Type::TEXT), (&limit, Type::INT8), (&chosen, Type::TEXT)];
        let rows = records(&self.read("list jobs", sql, &params).await?)?;
        rows.into_iter().map(JobRow::from_record).collect()
    }

    /// Returns one live, dead or finished job; `None` if no job has this id, or if the job's history has been deleted.
    ///
    /// # Errors
    /// The server's error.
    pub async fn job(&self, id: i64) -> Result<Option<JobRow>> {
        let sql = as_bytes!(include_str!("../../sql/job.sql"));
        let rows = self.read("read a job", sql, &[(&id, Type::INT8)]).await?;
        records(&rows)?.pop().map(JobRow::from_record).transpose()
    }

    /// Makes a waiting job due now, or revives a dead job.
    ///
    /// # Errors
    /// The server's error.
    pub async fn retry(&self, id: i64) -> Result<Retried> {
        let (what, sql) = ("retry a job", "select reveille.retry($1) as answer");
        let answer = self.answer(what, sql, id).await?;
        Retried::ALL.into_iter().find(|known| known.name() == answer).ok_or_else(|| unknown(what, &answer))
    }

    /// Cancels a waiting job, or asks the handler of a running job to stop.
    ///
    /// # Errors
    /// The server's error.
    pub async fn cancel(&self, id: i64) -> Result<Cancelled> {
        let (what, sql) = ("cancel a job", "select reveille.cancel($1) as answer");
        let answer = self.answer(what, sql, id).await?;
        Cancelled::ALL.into_iter().find(|known| known.name() == answer).ok_or_else(|| unknown(what, &answer))
    }

    /// Runs a completed or cancelled job again: enqueues a new job like it.
    ///
    /// The new job has the same kind, payload, queue, priority, number of attempts, key, tags and metadata. The new job
    /// has no parent and no unique key. Its timeout is the timeout of its kind. The payload is copied as stored, so the
    /// new job passes no middleware.
    ///
    /// # Errors
    /// The server's error.
    pub async fn run_again(&self, id: i64) -> Result<RunAgain> {
        let rows = self.query("run a job again", include_str!("../../sql/run_again.sql"), &[(&id, Type::INT8)]).await?;
        let row =
            rows.first().ok_or_else(|| Error::unavailable("cannot run a job again: the server returned no row"))?;
        Ok(match (row.get("id"), row.get("state")) {
            (Some(new), _) => RunAgain::Enqueued(new),
            (None, "live") => RunAgain::Live,
            (None, "dead") => RunAgain::Dead,
            (None, _) => RunAgain::Unknown,
        })
    }

    async fn answer(&self, what: &str, sql: &'static str, id: i64) -> Result<String> {
        let rows = self.query(what, sql, &[(&id, Type::INT8)]).await?;
        let row =
            rows.first().ok_or_else(|| Error::unavailable(format!("cannot {what}: the server returned no row")))?;
        Ok(row.get("answer"))
    }
}

fn unknown(what: &str, answer: &str) -> Error {
    Error::unavailable(format!("cannot {what}: the server answered {answer:?}, which this version does not know"))
}
