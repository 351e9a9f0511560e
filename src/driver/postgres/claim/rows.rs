//! The rows that a claim returns, read as jobs.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::driver::ClaimRequest;
use crate::driver::postgres::hint::Place;
use crate::error::{Error, Result};
use crate::job::{Payload, Priority, Reservation, ReservedJob};

/// The positions of the columns of `sql/claim.sql`.
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

/// Returns the jobs among the rows of a claim, in the order in which the jobs are to run.
pub(crate) fn reserved_jobs(rows: &[Row], request: &ClaimRequest<'_>) -> Result<Vec<ReservedJob>> {
    let jobs = rows.iter().filter_map(|row| Some(reserved_job(row, row.get::<_, Option<i64>>(column::ID)?, request)));
    let mut jobs = jobs.collect::<Result<Vec<_>>>()?;
    jobs.sort_by_key(|job| (job.priority, job.available_at, job.reservation.id));
    Ok(jobs)
}

fn reserved_job(row: &Row, id: i64, request: &ClaimRequest<'_>) -> Result<ReservedJob> {
    let unreadable = |error| Error::database("read a claimed job", error);
    let place: Option<Place> = row.try_get(column::PLACE).map_err(unreadable)?;
    let reservation = Reservation {
        id,
        worker: request.worker,
        attempt: row.try_get(column::ATTEMPTS).map_err(unreadable)?,
        reserved_at: row.try_get(column::RESERVED_AT).map_err(unreadable)?,
        hint: place.map_or(0, Place::hint),
    };
    let mut read = Columns { row, undecodable: None };
    let timeout: Option<f64> = read.get(column::TIMEOUT_SECONDS);
    let mut count = |column| read.get::<i32>(column).map_or(0, |count| count.max(0) as u32);
    let (failures, max_attempts) = (count(column::FAILURES), count(column::MAX_ATTEMPTS));
    Ok(ReservedJob {
        queue: request.queue.to_owned(),
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

/// The columns of one row. If a column cannot be read, the first error is kept, and the other columns are still read.
struct Columns<'a> {
    row: &'a Row,
    undecodable: Option<String>,
}

impl<'a> Columns<'a> {
    /// Returns the value of a column; `None` if it is null or cannot be read.
    fn get<T: FromSql<'a>>(&mut self, column: usize) -> Option<T> {
        self.row.try_get(column).unwrap_or_else(|error| {
            let name = self.row.columns().get(column).map_or("row", |column| column.name());
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            self.undecodable.get_or_insert_with(|| format!("its {name} cannot be read: {cause}"));
            None
        })
    }
}

/// Returns this number of seconds as a duration, which is zero for a negative number.
pub(crate) fn seconds(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}
