//! Which settlements wait for the disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Row;

use crate::driver::postgres::session::Params;
use crate::driver::postgres::{ANSWER_WITHIN, Postgres};
use crate::error::Result;

/// What is being done, for errors.
pub(crate) const SETTLE: &str = "settle jobs";

/// What the server answers to a statement that settles so many jobs.
pub(crate) async fn answer(driver: &Postgres, sql: &str, params: &Params<'_>, jobs: usize) -> Result<Vec<Row>> {
    if driver.lull.ends() && jobs == 1 {
        driver.sessions.query_durably(ANSWER_WITHIN, SETTLE, sql, params).await
    } else {
        driver.query(SETTLE, sql, params).await
    }
}

/// After so long without a settlement, one waits for the disk in any case.
const QUIET: Duration = Duration::from_millis(5);

/// For how long nothing has been settled.
///
/// Who commits and waits for the disk also writes what was committed before without waiting. While there is little to
/// do that would be the next to enqueue, whose job would start later for it. A settlement after a quiet moment can wait
/// for the disk: nobody waits for it.
#[derive(Default)]
pub(crate) struct Lull(Mutex<Option<Instant>>);

impl Lull {
    /// Whether it was long enough; and the next one begins.
    fn ends(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.replace(Instant::now()).is_none_or(|last| last.elapsed() >= QUIET)
    }
}
