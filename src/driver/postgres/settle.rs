//! Endings of attempts, sorted by what becomes of the job: one statement each for those that end, wait again, and die.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::locked;
use super::session::{Param, Params, Transaction};
use super::{ANSWER_WITHIN, Postgres, alike};
use crate::database::insert::seconds;
use crate::driver::{Ending, Settled, Settlement};
use crate::error::Result;
use crate::job::Reservation;
use crate::job::payload::Payload;

/// Settles all of them; returns what became of each that still stood.
pub(super) async fn settle(driver: &Postgres, settlements: &[Settlement]) -> Result<HashMap<Reservation, Settled>> {
    let mut left: Vec<&Settlement> = settlements.iter().collect();
    left.sort_by_key(|settlement| settlement.reservation.id);
    let mut all = HashMap::new();
    while !left.is_empty() {
        // A job may be there twice, if its reservation was lost and it was claimed again.
        let mut last = None;
        let is_first =
            |settlement: &&Settlement| last.replace(settlement.reservation.id) != Some(settlement.reservation.id);
        let (batch, again) = left.into_iter().partition::<Vec<_>, _>(is_first);
        let settled = settle_each(driver, &batch).await?;
        all.extend(batch.iter().filter_map(|settlement| {
            let settled = settled.get(&settlement.reservation.id)?;
            Some((settlement.reservation, settled.clone()))
        }));
        left = again;
    }
    Ok(all)
}

/// What is being done, for errors.
pub(super) const SETTLE: &str = "settle jobs";

/// What became of jobs that still stood, by their ids.
pub(super) type Answers = HashMap<i64, Settled>;

/// Settles these, of which each has an id of its own, in the order of their ids.
async fn settle_each(driver: &Postgres, settlements: &[&Settlement]) -> Result<Answers> {
    let (mut finished, mut waiting, mut dead, mut recorded) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for &settlement in settlements {
        match settlement.ending {
            Ending::Completed(_) | Ending::Cancelled => finished.push(settlement),
            Ending::Waiting { .. } => waiting.push(settlement),
            Ending::Dead(_) => dead.push(settlement),
            Ending::Recorded(_) => recorded.push(settlement),
        }
    }
    // Each to its end: a statement that is given up in its middle would be in the way of the next try.
    let (mut answers, waiting, dead, recorded) = futures::join!(
        finish(driver, &finished),
        by_id(driver, Kind::PutBack, &waiting),
        by_id(driver, Kind::Bury, &dead),
        by_id(driver, Kind::Count, &recorded),
    );
    for more in [waiting?, dead?, recorded?] {
        answers.as_mut().map(|answers| answers.extend(more)).ok();
    }
    answers
}

async fn finish(driver: &Postgres, settlements: &[&Settlement]) -> Result<Answers> {
    let (alike, others) = alike::part(settlements);
    // First those that may be refused, while nothing is settled yet.
    let mut answers = by_id(driver, Kind::Finish, &others).await?;
    let mut left = Vec::new();
    for claim in alike {
        let completed = match driver.locks.are_about() {
            true => HashSet::new(),
            false => match alike::complete(driver, &claim).await {
                Err(error) if error.is_locked() => {
                    driver.locks.met();
                    HashSet::new()
                }
                completed => completed?,
            },
        };
        left.extend(claim.into_iter().filter(|settlement| !completed.contains(&settlement.reservation.id)));
        answers.extend(completed.into_iter().map(|id| (id, Settled::Counted)));
    }
    left.sort_by_key(|settlement| settlement.reservation.id);
    answers.extend(by_id(driver, Kind::Finish, &left).await?);
    Ok(answers)
}

/// Which statement settles a job by its id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Finish,
    PutBack,
    Bury,
    /// It touches no job: their handlers have completed them.
    Count,
}

/// Settles these, and passes over those whose rows others have locked.
async fn by_id(driver: &Postgres, kind: Kind, settlements: &[&Settlement]) -> Result<Answers> {
    if settlements.is_empty() {
        return Ok(Answers::new());
    }
    if !driver.locks.are_about() {
        match run(driver, kind, settlements, On::Usual).await {
            Err(error) if error.is_locked() => driver.locks.met(),
            settled => return Ok(counted(settled?)),
        }
    }
    if kind == Kind::Count {
        return Ok(counted(run(driver, kind, settlements, On::Apart).await?));
    }
    locked::settle(driver, kind, settlements).await
}

pub(super) fn counted(ids: Vec<i64>) -> Answers {
    ids.into_iter().map(|id| (id, Settled::Counted)).collect()
}

/// Where a settling statement is run.
#[derive(Clone, Copy)]
pub(super) enum On<'a> {
    Usual,
    /// The usual row of the counters may be locked: it counts in one of its own.
    Apart,
    /// The same, in the transaction that has locked the rows.
    Transaction(&'a Transaction),
}

/// Runs a settling statement; returns the ids of those that were settled.
pub(super) async fn run(driver: &Postgres, kind: Kind, settlements: &[&Settlement], on: On<'_>) -> Result<Vec<i64>> {
    let statements = &driver.statements;
    let seconds = match on {
        On::Usual => 0.0,
        On::Apart | On::Transaction(_) => locked::some_seconds(),
    };
    let apart: Param<'_> = (&seconds, Type::FLOAT8);
    match kind {
        Kind::Finish => {
            let finishing = Finishing::of(settlements);
            let particular = [&finishing.params()[..], &[apart]].concat();
            fenced(driver, &statements.settle_finished, settlements, &particular, on).await
        }
        Kind::PutBack => put_back(driver, settlements, apart, on).await,
        Kind::Bury => bury(driver, settlements, apart, on).await,
        Kind::Count => {
            count(driver, settlements, apart).await?;
            Ok(column(settlements, |settlement| settlement.reservation.id))
        }
    }
}

/// What is particular to the endings of jobs that are done.
pub(super) struct Finishing<'a> {
    cancelled: Vec<bool>,
    ran: Vec<f64>,
    waited: Vec<f64>,
    results: Vec<Option<&'a Payload>>,
}

impl<'a> Finishing<'a> {
    pub(super) fn of(settlements: &[&'a Settlement]) -> Finishing<'a> {
        Finishing {
            cancelled: column(settlements, |settlement| matches!(settlement.ending, Ending::Cancelled)),
            ran: ran(settlements),
            waited: waited(settlements),
            results: if settlements.iter().any(|settlement| result(settlement).is_some()) {
                column(settlements, |settlement| result(settlement))
            } else {
                Vec::new()
            },
        }
    }

    pub(super) fn params(&self) -> [Param<'_>; 4] {
        [
            (&self.cancelled, Type::BOOL_ARRAY),
            (&self.ran, Type::FLOAT8_ARRAY),
            (&self.waited, Type::FLOAT8_ARRAY),
            (&self.results, Type::JSONB_ARRAY),
        ]
    }
}

fn result(settlement: &Settlement) -> Option<&Payload> {
    match &settlement.ending {
        Ending::Completed(result) => result.as_ref(),
        _ => None,
    }
}

async fn put_back(driver: &Postgres, settlements: &[&Settlement], apart: Param<'_>, on: On<'_>) -> Result<Vec<i64>> {
    let failure = |settlement: &&Settlement| match &settlement.ending {
        Ending::Waiting { failure: Some(failure), .. } => Some((failure.reason.name(), failure.error.clone())),
        _ => None,
    };
    let (reasons, errors): (Vec<_>, Vec<_>) = settlements.iter().map(failure).map(Option::unzip).unzip();
    let delays = column(settlements, |settlement| match settlement.ending {
        Ending::Waiting { delay, .. } => seconds(delay),
        _ => 0.0,
    });
    let params: &Params<'_> = &[
        (&reasons, Type::TEXT_ARRAY),
        (&errors, Type::TEXT_ARRAY),
        (&delays, Type::FLOAT8_ARRAY),
        (&ran(settlements), Type::FLOAT8_ARRAY),
        (&waited(settlements), Type::FLOAT8_ARRAY),
        apart,
    ];
    fenced(driver, &driver.statements.settle_waiting, settlements, params, on).await
}

async fn bury(driver: &Postgres, settlements: &[&Settlement], apart: Param<'_>, on: On<'_>) -> Result<Vec<i64>> {
    let failure = |settlement: &&Settlement| match &settlement.ending {
        Ending::Dead(failure) => Some((failure.reason.name(), failure.error.clone())),
        _ => None,
    };
    let (reasons, errors): (Vec<_>, Vec<_>) = settlements.iter().map(failure).map(Option::unzip).unzip();
    let params: &Params<'_> =
        &[(&reasons, Type::TEXT_ARRAY), (&errors, Type::TEXT_ARRAY), (&ran(settlements), Type::FLOAT8_ARRAY), apart];
    fenced(driver, &driver.statements.settle_dead, settlements, params, on).await
}

async fn count(driver: &Postgres, settlements: &[&Settlement], apart: Param<'_>) -> Result<()> {
    let queues = column(settlements, |settlement| match &settlement.ending {
        Ending::Recorded(queue) => queue.as_str(),
        _ => "",
    });
    let workers: Vec<i64> = column(settlements, |settlement| settlement.reservation.worker);
    let params: &Params<'_> = &[
        (&queues, Type::TEXT_ARRAY),
        (&workers, Type::INT8_ARRAY),
        (&ran(settlements), Type::FLOAT8_ARRAY),
        (&waited(settlements), Type::FLOAT8_ARRAY),
        apart,
    ];
    driver.query("count jobs", &driver.statements.settle_recorded, params).await.map(drop)
}

/// Runs a settling statement that touches jobs.
async fn fenced(
    driver: &Postgres,
    sql: &str,
    settlements: &[&Settlement],
    particular: &Params<'_>,
    on: On<'_>,
) -> Result<Vec<i64>> {
    let fence = Fence::of(settlements);
    let params = fence.before(particular);
    let rows = match on {
        On::Transaction(transaction) => transaction.query(ANSWER_WITHIN, SETTLE, (sql, &params)).await?,
        On::Usual | On::Apart => answer(driver, sql, &params, settlements.len()).await?,
    };
    Ok(rows.iter().map(|row| row.get("id")).collect())
}

/// What the server answers to a statement that settles so many jobs.
pub(super) async fn answer(driver: &Postgres, sql: &str, params: &Params<'_>, jobs: usize) -> Result<Vec<Row>> {
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
/// Who commits and waits for the disk also writes what was committed before without waiting. While there is little to do that
/// would be the next to enqueue, whose job would start later for it. A settlement after a quiet moment can wait for the disk:
/// nobody waits for it.
#[derive(Default)]
pub(super) struct Lull(Mutex<Option<Instant>>);

impl Lull {
    /// Whether it was long enough; and the next one begins.
    fn ends(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.replace(Instant::now()).is_none_or(|last| last.elapsed() >= QUIET)
    }
}

/// By what a settlement counts only while its reservation stands: the first four parameters of all settling statements, which
/// look up each row's place in them by its id.
pub(super) struct Fence {
    ids: Vec<i64>,
    workers: Vec<i64>,
    attempts: Vec<i32>,
    reserved_at: Vec<SystemTime>,
}

impl Fence {
    pub(super) fn of(settlements: &[&Settlement]) -> Fence {
        Fence {
            ids: column(settlements, |settlement| settlement.reservation.id),
            workers: column(settlements, |settlement| settlement.reservation.worker),
            attempts: column(settlements, |settlement| settlement.reservation.attempt),
            reserved_at: column(settlements, |settlement| settlement.reservation.reserved_at),
        }
    }

    pub(super) fn before<'a>(&'a self, particular: &Params<'a>) -> Vec<Param<'a>> {
        let fence: &Params<'_> = &[
            (&self.ids, Type::INT8_ARRAY),
            (&self.workers, Type::INT8_ARRAY),
            (&self.attempts, Type::INT4_ARRAY),
            (&self.reserved_at, Type::TIMESTAMPTZ_ARRAY),
        ];
        [fence, particular].concat()
    }
}

pub(super) fn ran(settlements: &[&Settlement]) -> Vec<f64> {
    column(settlements, |settlement| settlement.ran.as_secs_f64())
}

pub(super) fn waited(settlements: &[&Settlement]) -> Vec<f64> {
    column(settlements, |settlement| settlement.waited.as_secs_f64())
}

pub(super) fn column<'a, T>(settlements: &[&'a Settlement], field: impl Fn(&'a Settlement) -> T) -> Vec<T> {
    settlements.iter().map(|settlement| field(settlement)).collect()
}
