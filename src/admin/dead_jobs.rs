//! Reviving and purging many dead jobs at once.

use tokio_postgres::types::{ToSql, Type};

use super::{Admin, Filter};
use crate::error::{Error, Result};

/// The result of reviving or purging many dead jobs.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct BulkResult {
    /// The number of jobs that were revived or purged.
    pub done: u64,
    /// The number of jobs that stay dead because live jobs hold their unique keys.
    pub left_over: u64,
    /// The jobs that stay dead because the server refused to change them. A trigger or constraint that you have added
    /// may do that.
    pub refused: Vec<RefusedJob>,
}

/// A dead job that the server refused to revive or purge.
#[derive(Debug)]
#[non_exhaustive]
pub struct RefusedJob {
    /// The job's id.
    pub id: i64,
    /// The server's reason.
    pub error: Error,
}

const JOBS_PER_TRANSACTION: i64 = 1000;

impl Admin {
    /// Revives the dead jobs that pass the filter, 1,000 per transaction.
    ///
    /// # Errors
    /// Invalid if the filter asks for a state other than dead; else the server's error. The jobs of earlier
    /// transactions stay revived or purged.
    pub async fn revive_dead(&self, filter: &Filter) -> Result<BulkResult> {
        self.in_bulk("revive dead jobs", include_str!("../../sql/revive_dead_jobs.sql"), filter).await
    }

    /// Deletes the dead jobs that pass the filter permanently, 1,000 per transaction.
    ///
    /// # Errors
    /// As [`Admin::revive_dead`].
    pub async fn purge_dead(&self, filter: &Filter) -> Result<BulkResult> {
        self.in_bulk("purge dead jobs", include_str!("../../sql/purge_dead_jobs.sql"), filter).await
    }

    /// Deletes one dead job permanently. Returns false if no dead job has this id.
    ///
    /// # Errors
    /// The server's error.
    pub async fn purge_dead_job(&self, id: i64) -> Result<bool> {
        let sql = include_str!("../../sql/purge_dead_job.sql");
        Ok(!self.query("purge a dead job", sql, &[(&id, Type::INT8)]).await?.is_empty())
    }

    async fn in_bulk(&self, what: &str, sql: &'static str, filter: &Filter) -> Result<BulkResult> {
        let reason = filter.dead_reason()?;
        let (mut result, mut above, mut limit) = (BulkResult::default(), i64::MIN, JOBS_PER_TRANSACTION);
        loop {
            let params: [(&(dyn ToSql + Sync), Type); 5] = [
                (&filter.queue, Type::TEXT),
                (&filter.kind, Type::TEXT),
                (&limit, Type::INT8),
                (&reason, Type::TEXT),
                (&above, Type::INT8),
            ];
            let rows = match self.query(what, sql, &params).await {
                // The server refuses one of these jobs. Halving the transaction finds the refused job.
                Err(error) if error.is_about_data() && limit > 1 => {
                    limit /= 2;
                    continue;
                }
                Err(error) if error.is_about_data() => {
                    let Some(id) = self.next_dead(filter, reason, above).await? else { return Ok(result) };
                    result.refused.push(RefusedJob { id, error });
                    (above, limit) = (id, JOBS_PER_TRANSACTION);
                    continue;
                }
                rows => rows?,
            };
            let Some(row) = rows.first() else { return Ok(result) };
            result.done += row.get::<_, i64>("done").max(0) as u64;
            result.left_over += row.get::<_, i64>("left_over").max(0) as u64;
            match row.get("last_id") {
                Some(last) => (above, limit) = (last, (limit * 2).min(JOBS_PER_TRANSACTION)),
                None => return Ok(result),
            }
        }
    }

    /// Returns the first dead job above this id that passes the filter.
    async fn next_dead(&self, filter: &Filter, reason: Option<&str>, above: i64) -> Result<Option<i64>> {
        let params: [(&(dyn ToSql + Sync), Type); 4] =
            [(&filter.queue, Type::TEXT), (&filter.kind, Type::TEXT), (&reason, Type::TEXT), (&above, Type::INT8)];
        let rows = self.query("find a dead job", include_str!("../../sql/next_dead_job.sql"), &params).await?;
        Ok(rows.first().map(|row| row.get("id")))
    }
}
