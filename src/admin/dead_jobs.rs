//! Reviving and purging dead jobs, many at once.

use tokio_postgres::types::{ToSql, Type};

use super::{Admin, Filter};
use crate::error::{Error, Result};

/// What became of a batch of dead jobs.
#[derive(Debug, Default)]
pub struct Batch {
    /// Revived or purged.
    pub done: u64,
    /// Left dead, because a live job has the unique key.
    pub left_over: u64,
    /// Left dead, because the server refused to revive or purge them, as a trigger or constraint of the database's
    /// owner may.
    pub refused: Vec<Refused>,
}

/// A dead job that the server refused to revive or purge.
#[derive(Debug)]
pub struct Refused {
    /// The job.
    pub id: i64,
    /// Why.
    pub error: Error,
}

/// What dead jobs may have died of.
pub const REASONS: [&str; 5] = ["failed", "permanent", "timed_out", "lost", "undecodable"];
/// How many dead jobs are revived or purged in one transaction.
const BATCH: i64 = 1000;

impl Admin {
    /// Revive the dead jobs that pass the filter, a thousand a transaction.
    pub async fn revive_dead(&self, filter: &Filter) -> Result<Batch> {
        self.in_batches("revive dead jobs", include_str!("../../sql/revive_dead_jobs.sql"), filter).await
    }

    /// Delete the dead jobs that pass the filter for good, a thousand a transaction.
    pub async fn purge_dead(&self, filter: &Filter) -> Result<Batch> {
        self.in_batches("purge dead jobs", include_str!("../../sql/purge_dead_jobs.sql"), filter).await
    }

    /// Delete one dead job for good; whether there was such a one.
    pub async fn purge_dead_job(&self, id: i64) -> Result<bool> {
        let sql = include_str!("../../sql/purge_dead_job.sql");
        Ok(!self.query("purge a dead job", sql, &[(&id, Type::INT8)]).await?.is_empty())
    }

    async fn in_batches(&self, what: &str, sql: &'static str, filter: &Filter) -> Result<Batch> {
        let reason = match filter.state.as_deref() {
            None | Some("dead") => None,
            Some(reason) if REASONS.contains(&reason) => Some(reason),
            Some(unknown) => {
                return Err(Error::invalid(format!("unknown reason {unknown:?}; use one of {}", REASONS.join(", "))));
            }
        };
        let (mut batch, mut above, mut most) = (Batch::default(), i64::MIN, BATCH);
        loop {
            let params: [(&(dyn ToSql + Sync), Type); 5] = [
                (&filter.queue, Type::TEXT),
                (&filter.kind, Type::TEXT),
                (&most, Type::INT8),
                (&reason, Type::TEXT),
                (&above, Type::INT8),
            ];
            let rows = match self.query(what, sql, &params).await {
                // The server refuses one of them: the batch is halved until it is found, and left as it is.
                Err(error) if error.is_about_data() && most > 1 => {
                    most /= 2;
                    continue;
                }
                Err(error) if error.is_about_data() => {
                    let Some(id) = self.next_dead(filter, reason, above).await? else { return Ok(batch) };
                    batch.refused.push(Refused { id, error });
                    (above, most) = (id, BATCH);
                    continue;
                }
                rows => rows?,
            };
            let Some(row) = rows.first() else { return Ok(batch) };
            batch.done += row.get::<_, i64>("done").max(0) as u64;
            batch.left_over += row.get::<_, i64>("left_over").max(0) as u64;
            match row.get("last_id") {
                Some(last) => (above, most) = (last, (most * 2).min(BATCH)),
                None => return Ok(batch),
            }
        }
    }

    /// The first dead job that passes the filter, above this id.
    async fn next_dead(&self, filter: &Filter, reason: Option<&str>, above: i64) -> Result<Option<i64>> {
        let params: [(&(dyn ToSql + Sync), Type); 4] =
            [(&filter.queue, Type::TEXT), (&filter.kind, Type::TEXT), (&reason, Type::TEXT), (&above, Type::INT8)];
        let rows = self.query("look at dead jobs", include_str!("../../sql/next_dead_job.sql"), &params).await?;
        Ok(rows.first().map(|row| row.get("id")))
    }
}
