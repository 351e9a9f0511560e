//! Claiming from queues that have limits: one worker at a time, in a transaction that begins with the queue's lock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::count_running::count_running;
use super::rows::{reserved_jobs, seconds};
use crate::driver::Claimed;
use crate::driver::postgres::Postgres;
use crate::driver::postgres::session::Params;
use crate::error::Result;

/// How many keys one claim visits at most.
const KEYS: i64 = 500;
/// The part of the time that looking for jobs without a key may take where others have one: a twentieth.
const SHARE: u32 = 20;

/// What a queue's limits are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The queue as a whole.
    Queue,
    /// Each key in it, and the queue.
    Key,
}

impl Kind {
    pub(crate) fn named(name: Option<&str>) -> Option<Kind> {
        match name {
            Some("queue") => Some(Kind::Queue),
            Some("key") => Some(Kind::Key),
            _ => None,
        }
    }
}

/// What is remembered of the queues that have limits.
#[derive(Default)]
pub(crate) struct Limits(Mutex<HashMap<String, Remembered>>);

struct Remembered {
    kind: Kind,
    /// The key whose turn it was last.
    turn: String,
    /// When to look for jobs without a key again.
    keyless_at: Instant,
}

impl Limits {
    pub(crate) fn kind(&self, queue: &str) -> Option<Kind> {
        self.lock().get(queue).map(|remembered| remembered.kind)
    }

    pub(crate) fn set(&self, queue: &str, kind: Option<Kind>) {
        let mut queues = self.lock();
        match kind {
            Some(kind) => {
                let remembered = Remembered { kind, turn: String::new(), keyless_at: Instant::now() };
                queues.insert(queue.to_owned(), remembered);
            }
            None => drop(queues.remove(queue)),
        }
    }

    /// Whose turn it was last, and whether it is time to look for jobs without a key.
    fn turn(&self, queue: &str) -> (String, bool) {
        let queues = self.lock();
        let remembered = queues.get(queue);
        let keyless = remembered.is_none_or(|remembered| remembered.keyless_at <= Instant::now());
        (remembered.map(|remembered| remembered.turn.clone()).unwrap_or_default(), keyless)
    }

    /// What a claim by key has found, which took so long: where to go on, and how soon.
    pub(crate) fn learn(&self, queue: &str, rows: &[Row], claimed: &mut Claimed, took: Duration) {
        let (Some(row), now) = (rows.first(), Instant::now()) else { return };
        let mut queues = self.lock();
        let Some(remembered) = queues.get_mut(queue) else { return };
        if let Some(turn) = row.get("turn") {
            remembered.turn = turn;
        }
        let looked_for_keyless = remembered.keyless_at + took <= now;
        if looked_for_keyless && claimed.jobs.iter().all(|job| job.key.is_some()) {
            remembered.keyless_at = now + took * SHARE;
        }
        let others = match row.get("whole") {
            Some(false) => Some(Duration::ZERO),
            Some(true) if !looked_for_keyless => Some(remembered.keyless_at.saturating_duration_since(now)),
            _ => None,
        };
        claimed.due_in = claimed.due_in.into_iter().chain(others).min();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims from a queue with limits of this kind; returns of which kind they are now.
pub(crate) async fn claim(
    driver: &Postgres,
    kind: Kind,
    worker: i64,
    queue: &str,
    limit: usize,
) -> Result<(Claimed, Option<Kind>)> {
    loop {
        let began = Instant::now();
        let rows = query(driver, kind, worker, queue, limit).await?;
        let Some(row) = rows.first() else { return Ok((Claimed::default(), Some(kind))) };
        if let Some(limits) = row.get("uncounted") {
            if count_running(driver, queue, limits).await? {
                continue;
            }
            // As if all that is due were locked: it can be claimed in a moment, and nothing will ring for that.
            return Ok((Claimed { due_in: Some(Duration::ZERO), limited: true, ..Claimed::default() }, Some(kind)));
        }
        let (jobs, due_in) = (reserved_jobs(&rows, queue, worker)?, seconds(row.get("next_due_seconds")));
        let mut claimed = Claimed { jobs, due_in, limited: true, ..Claimed::default() };
        let actual = Kind::named(row.get("limited"));
        if (kind, actual) == (Kind::Key, Some(Kind::Key)) {
            driver.limits.learn(queue, &rows, &mut claimed, began.elapsed());
        }
        return Ok((claimed, actual));
    }
}

async fn query(driver: &Postgres, kind: Kind, worker: i64, queue: &str, limit: usize) -> Result<Vec<Row>> {
    let (patience, began) = (driver.claim_within.get(), Instant::now());
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = match kind {
        Kind::Queue => {
            let params: &Params<'_> = &[(&queue, Type::TEXT), (&most, Type::INT8), (&worker, Type::INT8)];
            alone(driver, patience, queue, &driver.statements.claim_limited, params).await
        }
        Kind::Key => {
            let (turn, keyless) = driver.limits.turn(queue);
            let params: &Params<'_> = &[
                (&queue, Type::TEXT),
                (&most, Type::INT8),
                (&worker, Type::INT8),
                (&turn, Type::TEXT),
                (&KEYS, Type::INT8),
                (&keyless, Type::BOOL),
            ];
            alone(driver, patience, queue, &driver.statements.claim_by_key, params).await
        }
    };
    driver.claim_within.learn(patience, began.elapsed());
    rows
}

async fn alone(driver: &Postgres, patience: Duration, queue: &str, sql: &str, params: &Params<'_>) -> Result<Vec<Row>> {
    let lock: &Params<'_> = &[(&queue, Type::TEXT)];
    driver.sessions.query_locked(patience, "claim jobs", (&driver.statements.limit_lock, lock), (sql, params)).await
}
