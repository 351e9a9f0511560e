//! Claiming from a queue in which a kind or a key is paused: the claim parks the due jobs that a pause covers.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::parameters::Places;
use super::rows::reserved_jobs;
use crate::driver::postgres::session::Params;
use crate::driver::postgres::{Postgres, SLOW_ANSWER_WITHIN};
use crate::driver::{ClaimRequest, Claimed};
use crate::error::Result;

/// The number of jobs that a claim looks at once it has met only jobs that it parks.
const MANY: i64 = 1000;
/// The longest time for which one claim parks jobs without reserving any.
const PARKS_FOR: Duration = Duration::from_millis(500);
/// The largest number of parked jobs that a worker without due jobs unparks at once.
const UNPARKED: i64 = 2000;

/// The queues in which a kind or a key was paused at their last claim.
#[derive(Default)]
pub(crate) struct KnownPauses(Mutex<HashSet<String>>);

impl KnownPauses {
    pub(crate) fn has(&self, queue: &str) -> bool {
        self.lock().contains(queue)
    }

    pub(crate) fn set(&self, queue: &str, has_pauses: bool) {
        if has_pauses {
            self.lock().insert(queue.to_owned());
        } else {
            self.lock().remove(queue);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims from a queue without limits. Also returns whether a kind or a key is still paused in the queue. Returns
/// `None` if no job is due.
pub(crate) async fn claim(driver: &Postgres, request: &ClaimRequest<'_>) -> Result<Option<(Claimed, bool)>> {
    let (began, limit) = (Instant::now(), i64::try_from(request.limit).unwrap_or(i64::MAX));
    let mut looked_at = limit;
    loop {
        let rows = look(driver, request, limit, looked_at).await?;
        let jobs = reserved_jobs(&rows, request)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let has_parked = row.get::<_, i64>("parked") > 0;
        if !jobs.is_empty() || (has_parked && began.elapsed() >= PARKS_FOR) {
            let at = jobs.first().map(|first| first.reservation.reserved_at);
            let claimed = Claimed { looked_at: at, more: has_parked, ..Claimed::new(jobs) };
            return Ok(Some((claimed, row.get("pauses"))));
        }
        if !has_parked {
            return Ok(None);
        }
        looked_at = limit.max(MANY);
    }
}

async fn look(driver: &Postgres, request: &ClaimRequest<'_>, limit: i64, looked_at: i64) -> Result<Vec<Row>> {
    let (patience, began) = (driver.claim_timeout.get(), Instant::now());
    let places = Places::of(request.start.marks);
    let [times, ids] = places.params();
    let params: &Params<'_> = &[
        (&request.queue, Type::TEXT),
        (&limit, Type::INT8),
        (&request.worker, Type::INT8),
        times,
        ids,
        (&looked_at, Type::INT8),
    ];
    let rows = driver.sessions.query(patience, "claim jobs", &driver.statements.claim_paused, params).await;
    driver.claim_timeout.learn(patience, began.elapsed());
    rows
}

/// Parks jobs that a claim has met and that a pause covers. Returns whether it has parked any.
pub(crate) async fn park(driver: &Postgres, covered: &[i64]) -> Result<bool> {
    let params: &Params<'_> = &[(&covered, Type::INT8_ARRAY)];
    let rows = driver.sessions.query(SLOW_ANSWER_WITHIN, "park jobs", &driver.statements.park, params).await?;
    Ok(!rows.is_empty())
}

/// Unparks jobs whose pause has ended. Returns whether there were any. A worker calls this when a queue with parked
/// jobs has no due job, because the end of a pause unparks only the first 10,000 jobs.
pub(crate) async fn unpark(driver: &Postgres) -> Result<bool> {
    let params: &Params<'_> = &[(&UNPARKED, Type::INT8)];
    let rows = driver.sessions.query(SLOW_ANSWER_WITHIN, "unpark jobs", &driver.statements.unpark, params).await?;
    Ok(rows.first().is_some_and(|row| row.get::<_, i64>("unparked") > 0))
}
