//! Steps and events in Postgres.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::session::{Param, Params};
use super::{ANSWER_WITHIN, Postgres};
use crate::database::insert::seconds;
use crate::driver::{Pausing, Recorded, SleepState, Step, WaitState};
use crate::error::{Error, Result};
use crate::job::{NewJob, Payload, Reservation};

/// The largest number of new events, and of new waits, that one statement pairs.
const MOST_NEW: i64 = 1000;

/// Returns the steps of a job by their names.
pub(super) async fn steps(driver: &Postgres, job: i64) -> Result<Vec<(String, Step)>> {
    let rows = driver.query("read the job's steps", &driver.statements.steps, &[(&job, Type::INT8)]).await?;
    rows.iter().map(|row| Ok((row.get("name"), step(row)?))).collect()
}

/// Records the value of a step. Returns `None` if the reservation does not stand.
pub(super) async fn record_step(
    driver: &Postgres,
    reservation: &Reservation,
    name: &str,
    value: &Payload,
) -> Result<Option<Recorded>> {
    let particular: &Params<'_> = &[(&name, Type::TEXT), (value, Type::JSONB)];
    record(driver, &driver.statements.record_step, reservation, particular).await
}

/// Begins a sleep or a wait, or goes on with it. Returns `None` if the reservation does not stand.
pub(super) async fn record_wait(
    driver: &Postgres,
    reservation: &Reservation,
    name: &str,
    pausing: Pausing,
) -> Result<Option<Recorded>> {
    let (kind, limit) = match pausing {
        Pausing::Sleep(limit) => ("sleep", limit),
        Pausing::Event(limit) => ("wait", limit),
    };
    let seconds = seconds(limit);
    let particular: &Params<'_> = &[(&name, Type::TEXT), (&kind, Type::TEXT), (&seconds, Type::FLOAT8)];
    record(driver, &driver.statements.record_wait, reservation, particular).await
}

/// Enqueues a job and records its id as a step. Returns `None` if the reservation does not stand.
pub(super) async fn run_child(
    driver: &Postgres,
    reservation: &Reservation,
    name: &str,
    job: &NewJob,
) -> Result<Option<Recorded>> {
    let job = job.to_json()?;
    let particular: &Params<'_> = &[(&name, Type::TEXT), (&job, Type::TEXT)];
    record(driver, &driver.statements.run_child, reservation, particular).await
}

/// Runs a statement that records a step. Its commit waits for the disk: a step that a crash of the server undid would
/// run a second time.
async fn record(
    driver: &Postgres,
    sql: &str,
    reservation: &Reservation,
    particular: &Params<'_>,
) -> Result<Option<Recorded>> {
    let Reservation { id, worker, attempt, reserved_at, .. } = reservation;
    let fence: &[Param<'_>] =
        &[(id, Type::INT8), (worker, Type::INT8), (attempt, Type::INT4), (reserved_at, Type::TIMESTAMPTZ)];
    let params = [fence, particular].concat();
    let rows = driver.sessions.query_as_durable(ANSWER_WITHIN, "record a step", sql, &params).await?;
    let recorded = |row: &Row| {
        let failures = u32::try_from(row.get::<_, i32>("failures")).unwrap_or_default();
        let left = Duration::try_from_secs_f64(row.get("seconds")).unwrap_or_default();
        Ok(Recorded::new(step(row)?, failures).left(left))
    };
    rows.first().map(recorded).transpose()
}

/// Reads a step from a row with the columns `kind`, `value` and `outcome`.
fn step(row: &Row) -> Result<Step> {
    let (kind, outcome): (String, Option<String>) = (row.get("kind"), row.get("outcome"));
    let value: Option<Payload> = row.get("value");
    match (kind.as_str(), outcome.as_deref(), value) {
        ("step", _, Some(value)) => Ok(Step::Value(value)),
        ("sleep", None, _) => Ok(Step::Sleep(SleepState::Open)),
        ("sleep", Some(_), _) => Ok(Step::Sleep(SleepState::Over)),
        ("wait", None, _) => Ok(Step::Wait(WaitState::Open)),
        ("wait", Some("timed_out"), _) => Ok(Step::Wait(WaitState::TimedOut)),
        ("wait", Some(_), Some(payload)) => Ok(Step::Wait(WaitState::Event(payload))),
        (kind, ..) => Err(Error::invalid(format!(
            "a step of the kind {kind:?} cannot be read; was it recorded by a newer version of the program?"
        ))),
    }
}

impl Postgres {
    /// Pairs new events and waits, and makes the waiting jobs due. Returns whether there may be more, or a job was made
    /// due.
    pub(super) async fn serve_waits(&self) -> Result<bool> {
        let params: &Params<'_> = &[(&MOST_NEW, Type::INT8)];
        let rows = self.query("pair events with waits", &self.statements.serve_waits, params).await?;
        Ok(rows.iter().any(|row| row.get("more") || row.get::<_, i64>("woken") > 0))
    }
}
