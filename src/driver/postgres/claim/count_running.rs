//! Counting what runs in a queue when it gets limits, before anything is claimed under these.
//!
//! Claims that began before the limits were committed do not see them, so their jobs are not marked as counting for the
//! limits. The first claim that sees the limits waits until no claim is left that may not, and marks what is reserved
//! then. Claims that begin later see the limits themselves.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::types::Type;

use crate::driver::postgres::Postgres;
use crate::driver::postgres::session::Params;
use crate::error::Result;

/// How long one claim waits for the others. Then it answers that it has claimed nothing, and a later one goes on
/// waiting.
const WAIT: Duration = Duration::from_secs(5);
/// A transaction that is older is no claim, whatever locks it holds: a worker's sessions have a `statement_timeout` of
/// 30 s, and a claim is one statement, or two.
const LONGEST_CLAIM: Duration = Duration::from_secs(60);
/// The rest between two looks: at first, and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// For which queues this driver waits for claims to end.
#[derive(Default)]
pub(crate) struct Waits(Mutex<HashMap<String, Wait>>);

/// Waiting for the claims that may not have seen the limits of a queue.
struct Wait {
    /// The limits: since when the queue has had them.
    limits: SystemTime,
    claims: Vec<UnderWay>,
    began: Instant,
}

/// A transaction that may be a claim, with its backend.
#[derive(PartialEq)]
struct UnderWay(String, Option<i32>);

impl Wait {
    /// Whether no claim is left that may not have seen the limits.
    fn is_over(&self, now: Instant) -> bool {
        self.claims.is_empty() || now.duration_since(self.began) >= LONGEST_CLAIM
    }
}

impl Waits {
    /// What is known of these limits from an earlier claim.
    fn take(&self, queue: &str, limits: SystemTime) -> Option<Wait> {
        self.lock().remove(queue).filter(|wait| wait.limits == limits)
    }

    fn put_back(&self, queue: &str, wait: Wait) {
        self.lock().insert(queue.to_owned(), wait);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Wait>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts what runs in a queue for the limits that it has since then. Returns whether a claim can go on: not if other
/// claims may still be under way that do not see the limits, or if a running job is locked.
pub(crate) async fn count_running(driver: &Postgres, queue: &str, limits: SystemTime) -> Result<bool> {
    let mut wait = match driver.waits.take(queue, limits) {
        Some(wait) => wait,
        None => Wait { limits, claims: under_way(driver).await?, began: Instant::now() },
    };
    let (began, mut rest) = (Instant::now(), LOOK_AGAIN.0);
    loop {
        if wait.is_over(Instant::now()) && mark(driver, queue, limits).await? {
            return Ok(true);
        }
        if began.elapsed() >= WAIT {
            let backends: Vec<_> = wait.claims.iter().filter_map(|UnderWay(_, backend)| *backend).collect();
            tracing::warn!(
                name: "worker.limits_wait", target: "reveille::worker", queue, ?backends,
                "claiming nothing until what runs is counted for the queue's new limits: for a minute at most while \
                 these backends hold locks as claims do; if there are none, a running job's row is locked"
            );
            driver.waits.put_back(queue, wait);
            return Ok(false);
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(LOOK_AGAIN.1);
        if !wait.claims.is_empty() {
            let now = under_way(driver).await?;
            wait.claims.retain(|claim| now.contains(claim));
        }
    }
}

/// The transactions under way that may be claims.
async fn under_way(driver: &Postgres) -> Result<Vec<UnderWay>> {
    let rows = driver.query("look for claims under way", &driver.statements.claims_under_way, &[]).await?;
    Ok(rows.iter().map(|row| UnderWay(row.get("transaction"), row.get("backend"))).collect())
}

/// Marks what is reserved. Returns whether all of it is marked, or the queue has no longer these limits.
async fn mark(driver: &Postgres, queue: &str, limits: SystemTime) -> Result<bool> {
    let params: &Params<'_> = &[(&queue, Type::TEXT), (&limits, Type::TIMESTAMPTZ)];
    let rows = driver.query("count what runs", &driver.statements.count_running, params).await?;
    Ok(rows.iter().all(|row| row.get("counted") || !row.get::<_, bool>("is_current")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_only_looks_like_a_claim_is_waited_for_no_longer_than_a_claim_takes() {
        let (limits, began) = (SystemTime::now(), Instant::now());
        let claims = vec![UnderWay("3/7".into(), Some(1))];
        let mut wait = Wait { limits, claims, began };
        assert!(!wait.is_over(began + LONGEST_CLAIM - Duration::from_secs(1)));
        assert!(wait.is_over(began + LONGEST_CLAIM));
        wait.claims.clear();
        assert!(wait.is_over(began));
    }
}
