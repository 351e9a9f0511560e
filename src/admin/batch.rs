//! What became of dead jobs that were revived or purged together.

use crate::error::Error;

/// What became of a batch of dead jobs.
#[derive(Debug, Default)]
pub struct Batch {
    /// Revived or purged.
    pub done: u64,
    /// Left dead, because a live job has the unique key.
    pub left_over: u64,
    /// Left dead, because the server refused to revive or purge them, as a trigger or constraint of the database's owner may.
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
