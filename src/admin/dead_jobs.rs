//! Reviving and purging dead jobs.

use serde_json::json;
use tokio_postgres::types::Type;

use super::{Admin, BulkAction, BulkResult, Filter};
use crate::error::Result;

impl Admin {
    /// Revives the dead jobs that pass the filter, 1,000 per transaction. Runs [`BulkAction::Revive`].
    ///
    /// # Errors
    /// Invalid if the filter asks for a state other than dead; else the server's error. The jobs of earlier
    /// transactions stay revived or purged.
    pub async fn revive_dead(&self, filter: &Filter) -> Result<BulkResult> {
        self.bulk(BulkAction::Revive, filter)?.run().await
    }

    /// Deletes the dead jobs that pass the filter permanently, 1,000 per transaction. Runs [`BulkAction::Purge`].
    ///
    /// # Errors
    /// As [`Admin::revive_dead`].
    pub async fn purge_dead(&self, filter: &Filter) -> Result<BulkResult> {
        self.bulk(BulkAction::Purge, filter)?.run().await
    }

    /// Deletes one dead job permanently. Returns false if no dead job has this id.
    ///
    /// # Errors
    /// The server's error.
    pub async fn purge_dead_job(&self, id: i64) -> Result<bool> {
        let mut change = self.change("purge a dead job");
        let sql = include_str!("../../sql/purge_dead_job.sql");
        let is_purged = !change.query(sql, &[(&id, Type::INT8)]).await?.is_empty();
        let answer = if is_purged { "purged" } else { "unknown" };
        change.record("purge", json!({"job": id}), json!({"answer": answer})).await?;
        Ok(is_purged)
    }
}
