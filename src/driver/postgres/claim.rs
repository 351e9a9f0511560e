//! Claiming: the marks into the statement, rows out of it as they are on the wire.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Timestamp, Type};

use super::limited::{self, Kind};
use super::place::{Place, with_queue};
use super::session::{Param, Params, Statement};
use super::{Postgres, SLOW_ANSWER_WITHIN, odd};
use crate::driver::{Ask, Claimed, Mark, Marks, Start};
use crate::error::{Error, Result};
use crate::job::{Payload, Priority, Reservation, ReservedJob};

/// Where each column of `sql/claim.sql` stands.
mod column {
    pub const ID: usize = 0;
    pub const KIND: usize = 1;
    pub const PAYLOAD: usize = 2;
    pub const PRIORITY: usize = 3;
    pub const ATTEMPTS: usize = 4;
    pub const FAILURES: usize = 5;
    pub const MAX_ATTEMPTS: usize = 6;
    pub const RESERVED_AT: usize = 7;
    pub const AVAILABLE_AT: usize = 8;
    pub const CREATED_AT: usize = 9;
    pub const KEY: usize = 10;
    pub const TAGS: usize = 11;
    pub const METADATA: usize = 12;
    pub const TIMEOUT_SECONDS: usize = 13;
    pub const CANCEL_REQUESTED: usize = 14;
    pub const PLACE: usize = 15;
}

/// The parameters of a claim from a queue without limits.
pub(super) struct Claim<'a> {
    queue: &'a str,
    most: i64,
    worker: i64,
    from: Places,
}

impl<'a> Claim<'a> {
    pub(super) fn new(queue: &'a str, limit: usize, worker: i64, from: Marks) -> Claim<'a> {
        Claim { queue, most: i64::try_from(limit).unwrap_or(i64::MAX), worker, from: Places::of(from) }
    }

    pub(super) fn params(&self) -> [Param<'_>; 5] {
        let [times, ids] = self.from.params();
        [(&self.queue, Type::TEXT), (&self.most, Type::INT8), (&self.worker, Type::INT8), times, ids]
    }
}

/// The parameters of a look back.
pub(super) struct Heads<'a> {
    queue: &'a str,
    from: Places,
}

impl<'a> Heads<'a> {
    pub(super) fn new(queue: &'a str, from: Marks) -> Heads<'a> {
        Heads { queue, from: Places::of(from) }
    }

    pub(super) fn params(&self) -> [Param<'_>; 3] {
        let [times, ids] = self.from.params();
        [(&self.queue, Type::TEXT), times, ids]
    }
}

/// The marks as parameters: due times, and ids.
pub(super) struct Places(Vec<Timestamp<SystemTime>>, Vec<i64>);

impl Places {
    pub(super) fn of(marks: Marks) -> Places {
        let times = marks.map(|mark| mark.map_or(Timestamp::NegInfinity, |mark| Timestamp::Value(mark.available_at)));
        Places(times.into(), marks.map(|mark| mark.map_or(0, |mark| mark.id)).into())
    }

    pub(super) fn params(&self) -> [Param<'_>; 2] {
        [(&self.0, Type::TIMESTAMPTZ_ARRAY), (&self.1, Type::INT8_ARRAY)]
    }
}

/// How long a claim may take until its answer is held for lost: not long, since what it reserved waits for its end; but longer
/// where claims do take long, as in a queue with many millions of dead rows.
pub(super) struct Patience(AtomicU64);

impl Default for Patience {
    fn default() -> Patience {
        Patience(AtomicU64::new(CLAIM_WITHIN.as_millis() as u64))
    }
}

impl Patience {
    pub(super) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn learn(&self, had: Duration, took: Duration) {
        let next = if took >= had { had * 2 } else { took * 4 };
        self.0.store(next.clamp(CLAIM_WITHIN, SLOW_ANSWER_WITHIN).as_millis() as u64, Ordering::Relaxed);
    }
}

/// How long a claim may take at first.
const CLAIM_WITHIN: Duration = Duration::from_secs(5);

/// Claims, whatever single rows hold. After an error that may be one row's, half as many are asked for; where a claim
/// of one fails, its row is isolated.
pub(super) async fn claim(driver: &Postgres, worker: i64, queue: &str, limit: usize, from: Start) -> Result<Claimed> {
    let aside = odd::pass_over(driver, queue).await?;
    let claimed = claim_in_parts(driver, worker, queue, limit, from).await;
    let passed_over = aside.is_some();
    if let Some((aside, _turn)) = aside {
        aside.roll_back().await;
    }
    match claimed {
        Ok(claimed) => {
            if passed_over && !claimed.jobs.is_empty() {
                odd::others_pass(driver, queue).await;
            }
            Ok(claimed)
        }
        Err(error) if error.is_about_data() => odd::isolate(driver, queue, from.marks, error).await,
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
    if from.ask == Ask::Before {
        let asked = next_due(driver, worker, queue, from, Instant::now()).await?;
        if asked.0.due_in != Some(Duration::ZERO) {
            return Ok(asked);
        }
    }
    let began = Instant::now();
    let mut jobs = reserved_jobs(&look(driver, queue, limit, worker, from).await?, queue, worker)?;
    let number = driver.queues.number(queue);
    jobs.iter_mut().for_each(|job| job.reservation.hint = with_queue(number, job.reservation.hint));
    match jobs.first() {
        Some(first) => {
            let looked_at = Some(first.reservation.reserved_at);
            Ok((Claimed { look_again: jobs.len() < limit, looked_at, jobs, ..Claimed::default() }, None))
        }
        None if from.ask == Ask::Not => Ok((Claimed { look_again: true, ..Claimed::default() }, None)),
        None => next_due(driver, worker, queue, from, began).await,
    }
}

/// Makes a claim; the one that a bell asks for, where the bell was heard.
pub(super) async fn look(driver: &Postgres, queue: &str, limit: usize, worker: i64, from: Start) -> Result<Vec<Row>> {
    let (patience, began, what) = (driver.claim_within.get(), Instant::now(), "claim jobs");
    let claim = Claim::new(queue, limit, worker, from.marks);
    let statements = &driver.statements;
    let sql = if from.shared { &statements.claim_shared } else { &statements.claim };
    let rows = query(driver, from.rung && !from.shared, what, (sql, &claim.params())).await;
    driver.claim_within.learn(patience, began.elapsed());
    rows
}

/// Runs a statement that looks for jobs, and after a bell where that was heard.
async fn query(driver: &Postgres, rung: bool, what: &str, statement: Statement<'_>) -> Result<Vec<Row>> {
    let patience = driver.claim_within.get();
    let heard = if rung { driver.line.query(patience, what, statement).await } else { None };
    match heard {
        Some(rows) => rows,
        None => driver.sessions.query(patience, what, statement.0, statement.1).await,
    }
}

/// What there is to know where nothing was claimed since then: when there will be something, or that the queue has limits.
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
    let rows = query(driver, from.rung, "look for the next job", (&driver.statements.next_due, params)).await?;
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

pub(super) fn seconds(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// Those of the rows that are jobs, in the order in which they are to run.
pub(super) fn reserved_jobs(rows: &[Row], queue: &str, worker: i64) -> Result<Vec<ReservedJob>> {
    let jobs =
        rows.iter().filter_map(|row| Some(reserved_job(row, row.get::<_, Option<i64>>(column::ID)?, queue, worker)));
    let mut jobs = jobs.collect::<Result<Vec<_>>>()?;
    jobs.sort_by_key(|job| (job.priority, job.available_at, job.reservation.id));
    Ok(jobs)
}

pub(super) async fn heads(driver: &Postgres, queue: &str, from: Marks) -> Result<Marks> {
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

fn reserved_job(row: &Row, id: i64, queue: &str, worker: i64) -> Result<ReservedJob> {
    let unreadable = |error| Error::database("read a claimed job", error);
    let place: Option<Place> = row.try_get(column::PLACE).map_err(unreadable)?;
    let reservation = Reservation {
        id,
        worker,
        attempt: row.try_get(column::ATTEMPTS).map_err(unreadable)?,
        reserved_at: row.try_get(column::RESERVED_AT).map_err(unreadable)?,
        hint: place.map_or(0, Place::hint),
    };
    let mut read = Columns { row, undecodable: None };
    let timeout: Option<f64> = read.get(column::TIMEOUT_SECONDS);
    let mut count = |column| read.get::<i32>(column).map_or(0, |count| count.max(0) as u32);
    let (failures, max_attempts) = (count(column::FAILURES), count(column::MAX_ATTEMPTS));
    Ok(ReservedJob {
        queue: queue.to_owned(),
        kind: read.get(column::KIND).unwrap_or_default(),
        payload: match read.get(column::PAYLOAD) {
            Some(payload) => payload,
            None => Payload::encode(&())?,
        },
        priority: Priority::from_level(read.get(column::PRIORITY).unwrap_or_default()),
        failures,
        max_attempts,
        available_at: read.get(column::AVAILABLE_AT).unwrap_or(reservation.reserved_at),
        created_at: read.get(column::CREATED_AT).unwrap_or(reservation.reserved_at),
        key: read.get(column::KEY),
        tags: read.get(column::TAGS).unwrap_or_default(),
        metadata: read.get(column::METADATA),
        timeout: timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        cancel_requested: read.get(column::CANCEL_REQUESTED).unwrap_or_default(),
        undecodable: read.undecodable,
        reservation,
    })
}

/// The columns of one row: where one cannot be read, that is noted, and the others are read all the same.
struct Columns<'a> {
    row: &'a Row,
    undecodable: Option<String>,
}

impl<'a> Columns<'a> {
    /// `None` for null, or what cannot be read.
    fn get<T: FromSql<'a>>(&mut self, column: usize) -> Option<T> {
        self.row.try_get(column).unwrap_or_else(|error| {
            let name = self.row.columns().get(column).map_or("row", |column| column.name());
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            self.undecodable.get_or_insert_with(|| format!("its {name} cannot be read: {cause}"));
            None
        })
    }
}
