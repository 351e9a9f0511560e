//! What the database's role may do.

use super::{Admin, as_bytes, records};
use crate::error::{Error, Result};

/// What the role of a [`Database`](crate::Database) may do, for a program that shows only what is possible.
///
/// Changes are recorded, so a role that may not write `reveille.actions` may change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rights {
    /// The name of the database.
    pub database: String,
    /// The name of the role.
    pub role: String,
    /// True if the server is a standby, which takes no changes.
    pub is_standby: bool,
    /// True if the role may read jobs with their payloads. A role that may not can still read the views.
    pub reads_payloads: bool,
    /// True if the role may retry, cancel, edit, revive and purge jobs.
    pub changes_jobs: bool,
    /// True if the role may enqueue jobs.
    pub enqueues: bool,
    /// True if the role may pause queues and change their settings.
    pub changes_queues: bool,
    /// True if the role may change schedules.
    pub changes_schedules: bool,
    /// True if the role may stop workers.
    pub stops_workers: bool,
}

impl Admin {
    /// Reads what the role of this database may do.
    ///
    /// # Errors
    /// The server's error.
    pub async fn rights(&self) -> Result<Rights> {
        let sql = as_bytes!(include_str!("../../sql/rights.sql"));
        let row = records(&self.read("read the rights of the role", sql, &[]).await?)?.pop();
        let row = row.ok_or_else(|| Error::unavailable("cannot read rights: the server returned no row"))?;
        Ok(Rights {
            database: row.decode("database")?,
            role: row.decode("role")?,
            is_standby: row.decode("is_standby")?,
            reads_payloads: row.decode("reads_jobs")?,
            changes_jobs: row.decode("changes_jobs")?,
            enqueues: row.decode("enqueues")?,
            changes_queues: row.decode("changes_queues")?,
            changes_schedules: row.decode("changes_schedules")?,
            stops_workers: row.decode("stops_workers")?,
        })
    }
}
