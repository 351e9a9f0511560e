//! Settling jobs by their ids: one statement for finished jobs, one for jobs that wait again, and one for dead jobs.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::durability::{SETTLE, answer};
use super::fence::{Fence, column, ran, waited};
use crate::database::insert::seconds;
use crate::driver::postgres::session::{Param, Params, Transaction};
use crate::driver::postgres::{ANSWER_WITHIN, Postgres};
use crate::driver::{Ending, Settlement};
use crate::error::Result;
use crate::job::Payload;

/// The statements that settle jobs by their ids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettleStatement {
    Finish,
    PutBack,
    Bury,
    /// Changes no job, since the handlers have already completed these jobs.
    Count,
}

/// The row of counters that a settling statement counts its jobs in, and the transaction that the statement runs in.
#[derive(Clone, Copy)]
pub(crate) enum Counting<'a> {
    /// In the usual row of the counters.
    Usual,
    /// In a separate row of the counters, since another session may have locked the usual row.
    Apart,
    /// In a separate row of the counters, within the transaction that has locked the jobs.
    InTransaction(&'a Transaction),
}

/// Runs a settling statement. Returns the ids of the jobs that the statement has settled.
pub(crate) async fn run(
    driver: &Postgres,
    statement: SettleStatement,
    settlements: &[&Settlement],
    counting: Counting<'_>,
) -> Result<Vec<i64>> {
    let statements = &driver.statements;
    let seconds = match counting {
        Counting::Usual => 0.0,
        Counting::Apart | Counting::InTransaction(_) => some_seconds(),
    };
    let apart: Param<'_> = (&seconds, Type::FLOAT8);
    match statement {
        SettleStatement::Finish => {
            let finishing = Finishing::of(settlements);
            let particular = [&finishing.params()[..], &[apart]].concat();
            let rows = fenced(driver, &statements.settle_finished, settlements, &particular, counting).await?;
            driver.note_linked_ends(&rows);
            Ok(ids(&rows))
        }
        SettleStatement::PutBack => put_back(driver, settlements, apart, counting).await,
        SettleStatement::Bury => bury(driver, settlements, apart, counting).await,
        SettleStatement::Count => {
            count(driver, settlements, apart).await?;
            Ok(column(settlements, |settlement| settlement.reservation.id))
        }
    }
}

/// The parameters of `sql/settle_finished.sql` that follow the fence.
pub(crate) struct Finishing<'a> {
    cancelled: Vec<bool>,
    ran: Vec<f64>,
    waited: Vec<f64>,
    results: Vec<Option<&'a Payload>>,
}

impl<'a> Finishing<'a> {
    pub(crate) fn of(settlements: &[&'a Settlement]) -> Finishing<'a> {
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

    pub(crate) fn params(&self) -> [Param<'_>; 4] {
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

async fn put_back(
    driver: &Postgres,
    settlements: &[&Settlement],
    apart: Param<'_>,
    counting: Counting<'_>,
) -> Result<Vec<i64>> {
    let failure = |settlement: &&Settlement| match &settlement.ending {
        Ending::Waiting { failure: Some(failure), .. } => Some((failure.reason.name(), failure.error.clone())),
        _ => None,
    };
    let (reasons, errors): (Vec<_>, Vec<_>) = settlements.iter().map(failure).map(Option::unzip).unzip();
    let delays = column(settlements, |settlement| match settlement.ending {
        Ending::Waiting { delay, .. } => Some(seconds(delay)),
        _ => None,
    });
    let params: &Params<'_> = &[
        (&reasons, Type::TEXT_ARRAY),
        (&errors, Type::TEXT_ARRAY),
        (&delays, Type::FLOAT8_ARRAY),
        (&ran(settlements), Type::FLOAT8_ARRAY),
        (&waited(settlements), Type::FLOAT8_ARRAY),
        apart,
    ];
    let rows = fenced(driver, &driver.statements.settle_waiting, settlements, params, counting).await?;
    Ok(ids(&rows))
}

async fn bury(
    driver: &Postgres,
    settlements: &[&Settlement],
    apart: Param<'_>,
    counting: Counting<'_>,
) -> Result<Vec<i64>> {
    let failure = |settlement: &&Settlement| match &settlement.ending {
        Ending::Dead(failure) => Some((failure.reason.name(), failure.error.clone())),
        _ => None,
    };
    let (reasons, errors): (Vec<_>, Vec<_>) = settlements.iter().map(failure).map(Option::unzip).unzip();
    let params: &Params<'_> =
        &[(&reasons, Type::TEXT_ARRAY), (&errors, Type::TEXT_ARRAY), (&ran(settlements), Type::FLOAT8_ARRAY), apart];
    let rows = fenced(driver, &driver.statements.settle_dead, settlements, params, counting).await?;
    driver.note_linked_ends(&rows);
    Ok(ids(&rows))
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

/// Runs a settling statement that changes jobs.
async fn fenced(
    driver: &Postgres,
    sql: &str,
    settlements: &[&Settlement],
    particular: &Params<'_>,
    counting: Counting<'_>,
) -> Result<Vec<Row>> {
    let fence = Fence::of(settlements);
    let params = fence.before(particular);
    match counting {
        Counting::InTransaction(transaction) => transaction.query(ANSWER_WITHIN, SETTLE, (sql, &params)).await,
        Counting::Usual | Counting::Apart => answer(driver, sql, &params, settlements.len()).await,
    }
}

fn ids(rows: &[Row]) -> Vec<i64> {
    rows.iter().map(|row| row.get("id")).collect()
}

/// Returns a random part of a second. A settlement that has met a lock adds this to the time of its counters, and a new
/// time gives the counters a separate row. The locked row may be the usual row of the counters.
fn some_seconds() -> f64 {
    f64::from(fastrand::u32(1..10_000_000)) / 1e6
}
