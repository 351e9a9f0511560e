//! Claiming from a queue that has limits: one worker at a time, in a transaction that first takes the queue's lock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::count_running::count_running;
use super::paused;
use super::rows::{reserved_jobs, seconds};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::session::Params;
use crate::driver::{ClaimRequest, Claimed};
use crate::error::Result;

/// The largest number of keys that one claim visits.
const MOST_KEYS: i64 = 500;
/// If jobs have keys, a claimer spends at most this part of its time on searching for jobs without a key: a twentieth.
const KEYLESS_SHARE: u32 = 20;

/// The scope of a queue's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitKind {
    /// The queue as a whole.
    Queue,
    /// Each key of the queue, and the queue.
    Key,
}

impl LimitKind {
    pub(crate) fn named(name: Option<&str>) -> Option<LimitKind> {
        match name {
            Some("queue") => Some(LimitKind::Queue),
            Some("key") => Some(LimitKind::Key),
            _ => None,
        }
    }
}

/// The queues that are known to have limits.
#[derive(Default)]
pub(crate) struct KnownLimits(Mutex<HashMap<String, LimitedQueue>>);

struct LimitedQueue {
    kind: LimitKind,
    /// The key that had the last turn. The next claim starts with the key after it.
    turn: String,
    /// The time of the next search for jobs without a key.
    keyless_at: Instant,
}

impl KnownLimits {
    pub(crate) fn kind(&self, queue: &str) -> Option<LimitKind> {
        self.lock().get(queue).map(|limited| limited.kind)
    }

    pub(crate) fn set(&self, queue: &str, kind: Option<LimitKind>) {
        let mut queues = self.lock();
        match kind {
            Some(kind) => {
                let limited = LimitedQueue { kind, turn: String::new(), keyless_at: Instant::now() };
                queues.insert(queue.to_owned(), limited);
            }
            None => drop(queues.remove(queue)),
        }
    }

    /// Returns the key that had the last turn, and whether to search for jobs without a key.
    fn turn(&self, queue: &str) -> (String, bool) {
        let queues = self.lock();
        let limited = queues.get(queue);
        let keyless = limited.is_none_or(|limited| limited.keyless_at <= Instant::now());
        (limited.map(|limited| limited.turn.clone()).unwrap_or_default(), keyless)
    }

    /// Learns the key that had the last turn and the time until the next claim from the rows of a claim by key. `took`:
    /// the time that this claim took.
    pub(crate) fn learn(&self, queue: &str, rows: &[Row], claimed: &mut Claimed, took: Duration) {
        let (Some(row), now) = (rows.first(), Instant::now()) else { return };
        let mut queues = self.lock();
        let Some(limited) = queues.get_mut(queue) else { return };
        if let Some(turn) = row.get("turn") {
            limited.turn = turn;
        }
        let looked_for_keyless = limited.keyless_at + took <= now;
        if looked_for_keyless && claimed.jobs.iter().all(|job| job.key.is_some()) {
            limited.keyless_at = now + took * KEYLESS_SHARE;
        }
        let others = match row.get("whole") {
            Some(false) => Some(Duration::ZERO),
            Some(true) if !looked_for_keyless => Some(limited.keyless_at.saturating_duration_since(now)),
            _ => None,
        };
        claimed.due_in = claimed.due_in.into_iter().chain(others).min();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, LimitedQueue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims from a queue whose limits had the scope `kind`. Returns the scope of the limits that the queue has now.
pub(crate) async fn claim(
    driver: &Postgres,
    kind: LimitKind,
    request: &ClaimRequest<'_>,
) -> Result<(Claimed, Option<LimitKind>)> {
    loop {
        let began = Instant::now();
        let rows = query(driver, kind, request).await?;
        let Some(row) = rows.first() else { return Ok((Claimed::default(), Some(kind))) };
        if let Some(limits_since) = row.get("uncounted") {
            if count_running(driver, request.queue, limits_since).await? {
                continue;
            }
            // No job can be claimed until the running jobs are counted, and no bell rings when a later claim can count
            // them. This answer says that a due job is locked, so that the worker claims again soon.
            return Ok((Claimed::default().due_in(Some(Duration::ZERO)).limited(true), Some(kind)));
        }
        let (jobs, due_in) = (reserved_jobs(&rows, request)?, seconds(row.get("next_due_seconds")));
        let mut claimed = Claimed::new(jobs).due_in(due_in).limited(true);
        let actual = LimitKind::named(row.get("limited"));
        let covered: Option<Vec<i64>> = row.get("covered");
        claimed.more = match covered.filter(|covered| !covered.is_empty()) {
            Some(covered) => paused::park(driver, &covered).await?,
            None => claimed.jobs.is_empty() && row.get("has_parked") && paused::unpark(driver).await?,
        };
        if (kind, actual) == (LimitKind::Key, Some(LimitKind::Key)) {
            driver.limits.learn(request.queue, &rows, &mut claimed, began.elapsed());
        }
        return Ok((claimed, actual));
    }
}

async fn query(driver: &Postgres, kind: LimitKind, request: &ClaimRequest<'_>) -> Result<Vec<Row>> {
    let (patience, began) = (driver.claim_timeout.get(), Instant::now());
    let ClaimRequest { worker, queue, limit, .. } = *request;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = match kind {
        LimitKind::Queue => {
            let params: &Params<'_> = &[(&queue, Type::TEXT), (&limit, Type::INT8), (&worker, Type::INT8)];
            alone(driver, patience, queue, &driver.statements.claim_limited, params).await
        }
        LimitKind::Key => {
            let (turn, keyless) = driver.limits.turn(queue);
            let params: &Params<'_> = &[
                (&queue, Type::TEXT),
                (&limit, Type::INT8),
                (&worker, Type::INT8),
                (&turn, Type::TEXT),
                (&MOST_KEYS, Type::INT8),
                (&keyless, Type::BOOL),
            ];
            alone(driver, patience, queue, &driver.statements.claim_by_key, params).await
        }
    };
    driver.claim_timeout.learn(patience, began.elapsed());
    rows
}

/// Runs a claim while no other worker claims from the queue.
async fn alone(driver: &Postgres, patience: Duration, queue: &str, sql: &str, params: &Params<'_>) -> Result<Vec<Row>> {
    let lock: &Params<'_> = &[(&queue, Type::TEXT)];
    driver.sessions.query_locked(patience, "claim jobs", (&driver.statements.limit_lock, lock), (sql, params)).await
}
