//! Counting the running jobs of a queue when it gets limits, before any job is claimed under these.
//!
//! Claims that began before the limits were committed do not see them, so that their jobs are not marked as counting
//! for the limits. The first claim that sees the limits waits until no such claim is left, and then marks the reserved
//! jobs. Claims that begin later see the limits themselves.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::types::Type;

use crate::driver::postgres::Postgres;
use crate::driver::postgres::session::Params;
use crate::error::Result;

/// How long one claim waits for the others. Then it answers that it has reserved no job, and a later claim continues
/// the wait.
const WAIT: Duration = Duration::from_secs(5);
/// An older transaction is no claim, whatever locks it holds: a worker's sessions have a `statement_timeout` of 30 s,
/// and a claim is one statement, or two.
const LONGEST_CLAIM: Duration = Duration::from_secs(60);
/// The first rest between two looks; each further rest is twice as long.
const FIRST_REST: Duration = Duration::from_millis(1);
/// The longest rest between two looks.
const LONGEST_REST_BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// The queues for which this driver waits for claims to end.
#[derive(Default)]
pub(crate) struct ClaimWaits(Mutex<HashMap<String, ClaimWait>>);

/// The wait for claims that may not have seen the limits of a queue.
struct ClaimWait {
    /// The limits that are waited for: the time since which the queue has them.
    limits_since: SystemTime,
    claims: Vec<ClaimUnderWay>,
    began: Instant,
}

/// A transaction that may be a claim.
#[derive(PartialEq)]
struct ClaimUnderWay {
    transaction: String,
    backend: Option<i32>,
}

impl ClaimWait {
    /// Tells whether no claim is left that may not have seen the limits.
    fn is_over(&self, now: Instant) -> bool {
        self.claims.is_empty() || now.duration_since(self.began) >= LONGEST_CLAIM
    }
}

impl ClaimWaits {
    /// Takes the wait that an earlier claim has begun for the same limits.
    fn take(&self, queue: &str, limits_since: SystemTime) -> Option<ClaimWait> {
        self.lock().remove(queue).filter(|wait| wait.limits_since == limits_since)
    }

    fn put_back(&self, queue: &str, wait: ClaimWait) {
        self.lock().insert(queue.to_owned(), wait);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ClaimWait>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the running jobs of a queue for the limits that it has had since then. Returns whether the claim can go on:
/// it cannot while other claims may be under way that do not see the limits, or while a running job is locked.
pub(crate) async fn count_running(driver: &Postgres, queue: &str, limits_since: SystemTime) -> Result<bool> {
    let mut wait = match driver.claim_waits.take(queue, limits_since) {
        Some(wait) => wait,
        None => ClaimWait { limits_since, claims: under_way(driver).await?, began: Instant::now() },
    };
    let (began, mut rest) = (Instant::now(), FIRST_REST);
    loop {
        if wait.is_over(Instant::now()) && mark(driver, queue, limits_since).await? {
            return Ok(true);
        }
        if began.elapsed() >= WAIT {
            let backends: Vec<_> = wait.claims.iter().filter_map(|claim| claim.backend).collect();
            tracing::warn!(
                name: "worker.limits_wait", target: "reveille::worker", queue, ?backends,
                "claiming nothing until the running jobs are counted for the queue's new limits: for a minute at most \
                 while these backends hold locks as claims do; if there are none, a running job's row is locked"
            );
            driver.claim_waits.put_back(queue, wait);
            return Ok(false);
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(LONGEST_REST_BETWEEN_LOOKS);
        if !wait.claims.is_empty() {
            let now = under_way(driver).await?;
            wait.claims.retain(|claim| now.contains(claim));
        }
    }
}

/// Returns the open transactions that may be claims.
async fn under_way(driver: &Postgres) -> Result<Vec<ClaimUnderWay>> {
    let rows = driver.query("find claims under way", &driver.statements.claims_under_way, &[]).await?;
    let claim =
        |row: &tokio_postgres::Row| ClaimUnderWay { transaction: row.get("transaction"), backend: row.get("backend") };
    Ok(rows.iter().map(claim).collect())
}

/// Marks the reserved jobs. Returns whether all are marked, or the queue no longer has these limits.
async fn mark(driver: &Postgres, queue: &str, limits_since: SystemTime) -> Result<bool> {
    let params: &Params<'_> = &[(&queue, Type::TEXT), (&limits_since, Type::TIMESTAMPTZ)];
    let rows = driver.query("count running jobs", &driver.statements.count_running, params).await?;
    Ok(rows.iter().all(|row| row.get("counted") || !row.get::<_, bool>("is_current")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_waits_at_most_a_minute_for_what_looks_like_another() {
        let (limits_since, began) = (SystemTime::now(), Instant::now());
        let claims = vec![ClaimUnderWay { transaction: "3/7".into(), backend: Some(1) }];
        let mut wait = ClaimWait { limits_since, claims, began };
        assert!(!wait.is_over(began + LONGEST_CLAIM - Duration::from_secs(1)));
        assert!(wait.is_over(began + LONGEST_CLAIM));
        wait.claims.clear();
        assert!(wait.is_over(began));
    }
}
