//! Claiming: in the way that a queue's limits ask for, and around rows that cannot be claimed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::hint::with_queue;
use super::session::Params;
use super::{Postgres, SLOW_ANSWER_WITHIN};
use crate::driver::{Claimed, Mark, Marks, Start};
use crate::error::Result;

pub(crate) mod count_running;
pub(crate) mod isolate;
pub(crate) mod limited;
pub(crate) mod parameters;
pub(crate) mod rows;

use limited::Kind;
use parameters::{Claim, Heads, Places};
use rows::{reserved_jobs, seconds};

/// How long a claim may take until its answer is held for lost: not long, since what it reserved waits for its end; but
/// longer where claims do take long, as in a queue with many millions of dead rows.
pub(crate) struct Patience(AtomicU64);

impl Default for Patience {
    fn default() -> Patience {
        Patience(AtomicU64::new(CLAIM_WITHIN.as_millis() as u64))
    }
}

impl Patience {
    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn learn(&self, had: Duration, took: Duration) {
        let next = if took >= had { had * 2 } else { took * 4 };
        self.0.store(next.clamp(CLAIM_WITHIN, SLOW_ANSWER_WITHIN).as_millis() as u64, Ordering::Relaxed);
    }
}

/// How long a claim may take at first.
const CLAIM_WITHIN: Duration = Duration::from_secs(5);

/// Claims, whatever single rows hold. After an error that may be one row's, half as many are asked for; where a claim
/// of one fails, its row is isolated.
pub(crate) async fn claim(driver: &Postgres, worker: i64, queue: &str, limit: usize, from: Start) -> Result<Claimed> {
    let aside = isolate::pass_over(driver, queue).await?;
    let claimed = claim_in_parts(driver, worker, queue, limit, from).await;
    let passed_over = aside.is_some();
    if let Some((aside, _turn)) = aside {
        aside.roll_back().await;
    }
    match claimed {
        Ok(claimed) => {
            if passed_over && !claimed.jobs.is_empty() {
                isolate::others_pass(driver, queue).await;
            }
            Ok(claimed)
        }
        Err(error) if error.is_about_data() => isolate::isolate(driver, queue, from.marks, error).await,
        Err(error) => Err(error),
    }
}

async fn claim_in_parts(driver: &Postgres, worker: i64, queue: &str, limit: usize, mut from: Start) -> Result<Claimed> {
    let mut most = limit;
    loop {
        match claim_once(driver, worker, queue, most, from).await {
            Err(error) if most > 1 && error.is_about_data() => {
                most /= 2;
                // A claim beside others tells how far it gets, even if it fails.
                from.shared = false;
            }
            Ok(claimed) => return Ok(Claimed { more: most < limit && claimed.jobs.len() >= most, ..claimed }),
            Err(error) => return Err(error),
        }
    }
}

/// Claims in the way that the queue's limits ask for. Which they are is remembered from the last claim.
async fn claim_once(driver: &Postgres, worker: i64, queue: &str, limit: usize, from: Start) -> Result<Claimed> {
    loop {
        let known = driver.limits.kind(queue);
        let (claimed, actual) = match known {
            None => claim_freely(driver, worker, queue, limit, from).await?,
            Some(kind) => limited::claim(driver, kind, worker, queue, limit).await?,
        };
        if actual == known {
            return Ok(claimed);
        }
        driver.limits.set(queue, actual);
    }
}

async fn claim_freely(
    driver: &Postgres,
    worker: i64,
    queue: &str,
    limit: usize,
    from: Start,
) -> Result<(Claimed, Option<Kind>)> {
    let began = Instant::now();
    let mut jobs = reserved_jobs(&look(driver, queue, limit, worker, from).await?, queue, worker)?;
    let number = driver.queues.number(queue);
    jobs.iter_mut().for_each(|job| job.reservation.hint = with_queue(number, job.reservation.hint));
    match jobs.first() {
        Some(first) => {
            let looked_at = Some(first.reservation.reserved_at);
            Ok((Claimed { looked_at, jobs, ..Claimed::default() }, None))
        }
        None => next_due(driver, worker, queue, from, began).await,
    }
}

async fn look(driver: &Postgres, queue: &str, limit: usize, worker: i64, from: Start) -> Result<Vec<Row>> {
    let (patience, began, what) = (driver.claim_within.get(), Instant::now(), "claim jobs");
    let claim = Claim::new(queue, limit, worker, from.marks);
    let statements = &driver.statements;
    let sql = if from.shared { &statements.claim_shared } else { &statements.claim };
    let rows = driver.sessions.query(patience, what, sql, &claim.params()).await;
    driver.claim_within.learn(patience, began.elapsed());
    rows
}

/// What there is to know where nothing was claimed since then: when there will be something, or that the queue has
/// limits.
async fn next_due(
    driver: &Postgres,
    worker: i64,
    queue: &str,
    from: Start,
    began: Instant,
) -> Result<(Claimed, Option<Kind>)> {
    let places = Places::of(from.marks);
    let [times, ids] = places.params();
    let params: &Params<'_> = &[(&queue, Type::TEXT), (&worker, Type::INT8), times, ids];
    let (patience, what) = (driver.claim_within.get(), "look for the next job");
    let rows = driver.sessions.query(patience, what, &driver.statements.next_due, params).await?;
    let Some(row) = rows.first() else { return Ok((Claimed::default(), None)) };
    let now: Option<SystemTime> = row.get("looked_at");
    let claimed = Claimed {
        due_in: seconds(row.get("next_due_seconds")),
        // The claim has seen nothing of what came after it.
        looked_at: now.and_then(|now| now.checked_sub(began.elapsed())),
        ..Claimed::default()
    };
    Ok((claimed, Kind::named(row.get("limited"))))
}

pub(crate) async fn heads(driver: &Postgres, queue: &str, from: Marks) -> Result<Marks> {
    let look = Heads::new(queue, from);
    let mut heads = Marks::default();
    for row in driver.sessions.query(SLOW_ANSWER_WITHIN, "look back", &driver.statements.heads, &look.params()).await? {
        let level = usize::try_from(row.get::<_, i16>("priority")).unwrap_or_default();
        if let Some(head) = heads.get_mut(level) {
            *head = Some(Mark { available_at: row.get("available_at"), id: row.get("id") });
        }
    }
    Ok(heads)
}
