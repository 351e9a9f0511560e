//! Counting the running jobs of a queue that gets limits, before any job is claimed under the limits.
//!
//! A claim that began before the limits were committed does not see them, so it does not mark its jobs as counting for
//! the limits. The first claim that sees the limits waits until all earlier claims have ended. It then marks the
//! reserved jobs of the queue. All later claims see the limits themselves.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::types::Type;

use crate::driver::postgres::Postgres;
use crate::driver::postgres::session::Params;
use crate::error::Result;

/// The longest time for which one claim waits for earlier claims. After this time, the waiting claim reserves no job,
/// and the next claim of the queue continues the wait.
const WAIT: Duration = Duration::from_secs(5);
/// A transaction older than this is no claim, whatever locks it holds. A claim is one or two statements, and a worker's
/// sessions have a `statement_timeout` of 30 s.
const LONGEST_CLAIM: Duration = Duration::from_secs(60);
/// The first pause between two searches for open transactions that may be claims. Each further pause is twice as long.
const FIRST_REST: Duration = Duration::from_millis(1);
/// The longest pause between two searches for open transactions that may be claims.
const LONGEST_REST_BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// The queues that got limits a short time ago. For each of these queues, this driver waits until the claims that began
/// before the limits have ended.
#[derive(Default)]
pub(crate) struct ClaimWaits(Mutex<HashMap<String, ClaimWait>>);

/// The wait for claims that may not have seen the limits of a queue.
struct ClaimWait {
    /// The time at which the queue got the limits. It identifies these limits.
    limits_since: SystemTime,
    claims: Vec<ClaimUnderWay>,
    began: Instant,
}

/// An open transaction that may be a claim.
#[derive(PartialEq)]
struct ClaimUnderWay {
    transaction: String,
    backend: Option<i32>,
}

impl ClaimWait {
    /// Returns true if all claims that may not have seen the limits have ended, or the wait has taken 60 s.
    fn is_over(&self, now: Instant) -> bool {
        self.claims.is_empty() || now.duration_since(self.began) >= LONGEST_CLAIM
    }
}

impl ClaimWaits {
    /// Removes and returns the wait that an earlier claim has begun for the same limits of the queue.
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

/// Marks the running jobs of a queue as counting for the limits that the queue got at `limits_since`. Returns true if
/// all running jobs are marked. Returns false if, after 5 s, a claim that began before the limits were set may still
/// run, or another session still locks a running job. The caller then reserves no job, and tries again later.
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
                "claiming nothing until the running jobs are counted for the queue's new limits. The count waits for \
                 the backends listed here, at most a minute, because they may be claiming. If none is listed, another \
                 session has locked a running job's row"
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

/// Sets `limited` in the queue's reserved jobs, so that the limits of `limits_since` count them. Returns true if all
/// reserved jobs are set, or if newer limits have replaced these limits.
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
