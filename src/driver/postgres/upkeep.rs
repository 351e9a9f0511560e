//! Upkeep: one chore at a time, each in slices, each slice a short transaction under the lock of the chore's row.

use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::types::Type;

use super::session::Params;
use super::statements::Statements;
use super::{Postgres, SLOW_ANSWER_WITHIN};
use crate::error::Result;

/// How many rows a slice deletes at most.
const ROWS: i64 = 1000;
/// How many pages of the history a slice goes through at most: 4 MB.
const PAGES: i64 = 512;
/// How long the rest after a slice is at most. It is as long as the slice took, so that upkeep takes at most half of a session's time.
const REST: Duration = Duration::from_secs(1);

/// What a round of upkeep came to.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    /// How many days of the history were emptied; `None` if another worker was at it.
    pub(crate) emptied: Option<u32>,
}

/// The chores that are statements, in the order in which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chore {
    Counters,
    OldCounters,
    Rates,
    UniqueKeys,
    OldDays,
    History,
    DeadJobs,
    Statistics,
}

const CHORES: [Chore; 8] = [
    Chore::Counters,
    Chore::OldCounters,
    Chore::Rates,
    Chore::UniqueKeys,
    Chore::OldDays,
    Chore::History,
    Chore::DeadJobs,
    Chore::Statistics,
];

impl Chore {
    fn statement(self, statements: &Statements) -> &str {
        match self {
            Chore::Counters => &statements.upkeep_counters,
            Chore::OldCounters => &statements.upkeep_old_counters,
            Chore::Rates => &statements.upkeep_rates,
            Chore::UniqueKeys => &statements.upkeep_unique_keys,
            Chore::OldDays => &statements.upkeep_old_days,
            Chore::History => &statements.upkeep_history,
            Chore::DeadJobs => &statements.upkeep_dead_jobs,
            Chore::Statistics => &statements.upkeep_statistics,
        }
    }

    /// Whether there may be more to do after a slice that did so much. A day of the history that was gone through to its end is followed
    /// by another.
    fn goes_on(self, done: i64) -> bool {
        match self {
            Chore::OldDays | Chore::History => done > 0,
            Chore::Statistics => false,
            _ => done >= ROWS,
        }
    }
}

impl Postgres {
    /// Does every chore to its end, one after another. A chore that fails keeps none of the others from being done; the first error is
    /// returned. `days_before`: a day of the history whose last round began before this is gone through anew; `None`: 20 minutes ago.
    pub(crate) async fn do_chores(&self, days_before: Option<SystemTime>) -> Result<Pruned> {
        let (mut pruned, mut failed) = (Pruned::default(), None);
        for chore in CHORES {
            match self.do_chore(chore, days_before).await {
                Ok(done) if chore == Chore::OldDays => pruned.emptied = done.map(|days| days.max(0) as u32),
                Ok(_) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(pruned), Err)
    }

    /// How much was done; `None` if another worker was at it from the beginning.
    async fn do_chore(&self, chore: Chore, days_before: Option<SystemTime>) -> Result<Option<i64>> {
        let mut all = None;
        loop {
            let began = Instant::now();
            let Some(done) = self.do_slice(chore, days_before).await? else { return Ok(all) };
            all = Some(all.unwrap_or(0) + done);
            if !chore.goes_on(done) {
                return Ok(all);
            }
            tokio::time::sleep(began.elapsed().min(REST)).await;
        }
    }

    /// How much was done; `None` if another worker is at it, or there is nothing to be at.
    async fn do_slice(&self, chore: Chore, days_before: Option<SystemTime>) -> Result<Option<i64>> {
        let params: &Params<'_> = match chore {
            Chore::OldDays | Chore::Statistics => &[],
            Chore::History => &[(&PAGES, Type::INT8), (&days_before, Type::TIMESTAMPTZ)],
            _ => &[(&ROWS, Type::INT8)],
        };
        let sql = chore.statement(&self.statements);
        let rows = self.sessions.query(SLOW_ANSWER_WITHIN, "do the upkeep", sql, params).await?;
        Ok(rows.first().filter(|row| row.get("mine")).and_then(|row| row.get("done")))
    }
}
