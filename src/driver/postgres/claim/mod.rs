//! Claiming: chooses the statement that the queue's limits and pauses need, and isolates odd rows that cannot be
//! claimed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::hint::with_queue;
use super::session::Params;
use super::{Postgres, SLOW_ANSWER_WITHIN};
use crate::driver::{ClaimRequest, Claimed, Mark, Marks};
use crate::error::{Error, Result};
use crate::job::ReservedJob;

pub(crate) mod count_running;
pub(crate) mod isolate;
pub(crate) mod limited;
pub(crate) mod parameters;
pub(crate) mod paused;
pub(crate) mod rows;

use limited::LimitKind;
use parameters::{Claim, Heads, Places};
use rows::{reserved_jobs, seconds};

/// The claim timeout in milliseconds: after this time, the answer to a claim counts as lost. It is 5 s, or longer if
/// claims have taken long, as in a queue with many millions of dead rows. The jobs of a lost claim wait until the
/// timeout has passed.
pub(crate) struct ClaimTimeout(AtomicU64);

/// The shortest claim timeout.
const CLAIM_WITHIN: Duration = Duration::from_secs(5);

impl Default for ClaimTimeout {
    fn default() -> ClaimTimeout {
        ClaimTimeout(AtomicU64::new(CLAIM_WITHIN.as_millis() as u64))
    }
}

impl ClaimTimeout {
    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Sets the timeout of the next claim, after a claim with the timeout `had` took the time `took`.
    pub(crate) fn learn(&self, had: Duration, took: Duration) {
        let next = if took >= had { had * 2 } else { took * 4 };
        self.0.store(next.clamp(CLAIM_WITHIN, SLOW_ANSWER_WITHIN).as_millis() as u64, Ordering::Relaxed);
    }
}

/// Claims, even if the queue has odd rows. After an error that one row may have caused, the claim asks for half as many
/// jobs. If a claim of one job fails, the job's row is isolated.
pub(crate) async fn claim(driver: &Postgres, request: &ClaimRequest<'_>) -> Result<Claimed> {
    let locked_odd_jobs = isolate::lock_odd_jobs(driver, request.queue).await?;
    let claimed = claim_in_parts(driver, request).await;
    let passed_over = locked_odd_jobs.is_some();
    if let Some((transaction, _turn)) = locked_odd_jobs {
        transaction.roll_back().await;
    }
    match claimed {
        Ok(claimed) => {
            if passed_over && !claimed.jobs.is_empty() {
                isolate::bury_odd_jobs(driver, request.queue).await;
            }
            Ok(claimed)
        }
        Err(error) if error.is_about_data() => {
            isolate::isolate(driver, request.queue, request.start.marks, error).await
        }
        Err(error) => Err(error),
    }
}

async fn claim_in_parts(driver: &Postgres, request: &ClaimRequest<'_>) -> Result<Claimed> {
    let mut part = request.clone();
    loop {
        match claim_once(driver, &part).await {
            Err(error) if part.limit > 1 && error.is_about_data() => {
                part.limit /= 2;
                // A shared claim records for other workers the place that it reaches, even if it fails. A second shared
                // claim would start there and miss the jobs that this claim failed to reserve.
                part.start.shared = false;
            }
            Ok(claimed) => {
                let more = part.limit < request.limit && claimed.jobs.len() >= part.limit;
                return Ok(Claimed { more, ..claimed });
            }
            Err(error) => return Err(error),
        }
    }
}

/// What decides by which statement jobs of a queue are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueRules {
    /// The scope of the queue's limits.
    limits: Option<LimitKind>,
    /// True if a kind or a key is paused in the queue.
    pauses: bool,
}

/// Claims by the statement that the queue's rules need. The driver remembers the rules that the queue had at the last
/// claim.
async fn claim_once(driver: &Postgres, request: &ClaimRequest<'_>) -> Result<Claimed> {
    loop {
        let known = QueueRules { limits: driver.limits.kind(request.queue), pauses: driver.pauses.has(request.queue) };
        let (claimed, actual) = match known {
            QueueRules { limits: Some(kind), .. } => {
                // A limited claim heeds the pauses that it meets, so it need not know of them beforehand.
                let (claimed, limits) = limited::claim(driver, kind, request).await?;
                (claimed, QueueRules { limits, ..known })
            }
            QueueRules { limits: None, pauses: true } => claim_beside_pauses(driver, request).await?,
            QueueRules { limits: None, pauses: false } => claim_freely(driver, request).await?,
        };
        if actual.limits != known.limits {
            driver.limits.set(request.queue, actual.limits);
        }
        driver.pauses.set(request.queue, actual.pauses);
        if actual == known || !claimed.jobs.is_empty() {
            return Ok(claimed);
        }
    }
}

async fn claim_freely(driver: &Postgres, request: &ClaimRequest<'_>) -> Result<(Claimed, QueueRules)> {
    let began = Instant::now();
    let mut jobs = reserved_jobs(&look(driver, request).await?, request)?;
    number_queue(driver, request, &mut jobs);
    match jobs.first() {
        Some(first) => {
            let looked_at = Some(first.reservation.reserved_at);
            Ok((Claimed { looked_at, ..Claimed::new(jobs) }, QueueRules { limits: None, pauses: false }))
        }
        None => next_due(driver, request, began).await,
    }
}

async fn claim_beside_pauses(driver: &Postgres, request: &ClaimRequest<'_>) -> Result<(Claimed, QueueRules)> {
    let began = Instant::now();
    match paused::claim(driver, request).await? {
        Some((mut claimed, pauses)) => {
            number_queue(driver, request, &mut claimed.jobs);
            Ok((claimed, QueueRules { limits: None, pauses }))
        }
        None => next_due(driver, request, began).await,
    }
}

/// Adds the queue's number to the places of the jobs, so that they can be settled by place.
fn number_queue(driver: &Postgres, request: &ClaimRequest<'_>, jobs: &mut [ReservedJob]) {
    let number = driver.queues.number(request.queue);
    jobs.iter_mut().for_each(|job| job.reservation.hint = with_queue(number, job.reservation.hint));
}

async fn look(driver: &Postgres, request: &ClaimRequest<'_>) -> Result<Vec<Row>> {
    let (patience, began) = (driver.claim_timeout.get(), Instant::now());
    let ClaimRequest { worker, queue, limit, start } = *request;
    let claim = Claim::new(queue, limit, worker, start.marks);
    let statements = &driver.statements;
    let sql = if start.shared { &statements.claim_shared } else { &statements.claim };
    let rows = driver.sessions.query(patience, "claim jobs", sql, &claim.params()).await;
    driver.claim_timeout.learn(patience, began.elapsed());
    rows
}

/// Returns the time until the next job is due, and the queue's rules. Runs after a claim that began at `began` and
/// reserved no job. If the queue has parked jobs whose pause is over, lets them go.
async fn next_due(driver: &Postgres, request: &ClaimRequest<'_>, began: Instant) -> Result<(Claimed, QueueRules)> {
    let places = Places::of(request.start.marks);
    let [times, ids] = places.params();
    let params: &Params<'_> = &[(&request.queue, Type::TEXT), (&request.worker, Type::INT8), times, ids];
    let (patience, what) = (driver.claim_timeout.get(), "find the next job");
    let rows = driver.sessions.query(patience, what, &driver.statements.next_due, params).await?;
    let Some(row) = rows.first() else {
        return Err(Error::unavailable("cannot find the next job: the server returned no row"));
    };
    let rules = QueueRules { limits: LimitKind::named(row.get("limited")), pauses: row.get("pauses") };
    if row.get("parked") && paused::unpark(driver).await? {
        return Ok((Claimed { more: true, ..Claimed::default() }, rules));
    }
    let now: Option<SystemTime> = row.get("looked_at");
    let claimed = Claimed {
        due_in: seconds(row.get("next_due_seconds")),
        // The claim saw only the changes that were committed before it began, so this is the time at which it began.
        looked_at: now.and_then(|now| now.checked_sub(began.elapsed())),
        ..Claimed::default()
    };
    Ok((claimed, rules))
}

impl Postgres {
    /// Returns for each level the place of the first due and unreserved job at or above the mark of the level; `None`
    /// if the level has no due and unreserved job there.
    pub(crate) async fn heads(&self, queue: &str, from: Marks) -> Result<Marks> {
        let look = Heads::new(queue, from);
        let (statement, params) = (&self.statements.heads, look.params());
        let mut heads = Marks::default();
        for row in self.sessions.query(SLOW_ANSWER_WITHIN, "look back", statement, &params).await? {
            let level = usize::try_from(row.get::<_, i16>("priority")).unwrap_or_default();
            if let Some(head) = heads.get_mut(level) {
                *head = Some(Mark { available_at: row.get("available_at"), id: row.get("id") });
            }
        }
        Ok(heads)
    }
}
