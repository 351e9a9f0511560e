//! The choice of settlements that wait for the disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Row;

use crate::driver::postgres::session::Params;
use crate::driver::postgres::{ANSWER_WITHIN, Postgres};
use crate::error::Result;

/// The description of this work in error messages.
pub(crate) const SETTLE: &str = "settle jobs";

/// Runs a statement that settles this many jobs. The commit waits for the disk if the statement settles a single job
/// after a quiet time.
pub(crate) async fn answer(driver: &Postgres, sql: &str, params: &Params<'_>, jobs: usize) -> Result<Vec<Row>> {
    if driver.quiet_time.ends() && jobs == 1 {
        driver.sessions.query_durably(ANSWER_WITHIN, SETTLE, sql, params).await
    } else {
        driver.query(SETTLE, sql, params).await
    }
}

/// The shortest quiet time.
const QUIET: Duration = Duration::from_millis(5);

/// The time since the last settlement.
///
/// A commit that waits for the disk also writes the earlier commits that did not wait. While there is little to do, the
/// next enqueue would have to write these earlier commits. This would delay the start of its job. A settlement after a
/// quiet time can write them instead, since no program waits for a settlement.
#[derive(Default)]
pub(crate) struct QuietTime(Mutex<Option<Instant>>);

impl QuietTime {
    /// Returns true if no job was settled for 5 ms. Starts the next quiet time.
    fn ends(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.replace(Instant::now()).is_none_or(|last| last.elapsed() >= QUIET)
    }
}
