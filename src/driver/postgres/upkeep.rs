//! Upkeep: one chore at a time. Each chore is done in slices. A slice is a short transaction that locks the chore's
//! row.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use tokio_postgres::types::Type;
use tokio_util::task::AbortOnDropHandle;

use super::session::Params;
use super::statements::Statements;
use super::{Postgres, SLOW_ANSWER_WITHIN};
use crate::error::{Error, Result};

/// The largest number of rows that a slice deletes.
const ROWS: i64 = 1000;
/// The largest number of pages of the history that a slice reads: 4 MB.
const PAGES: i64 = 512;
/// The longest pause after a slice. A pause is as long as its slice took, or this long if the slice took longer. So
/// upkeep takes about half of a session's time.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// A worker checks whether a table needs a vacuum after this many settled jobs.
const ASK_AFTER: usize = 10_000;
/// The longest time that all vacuums of one round may take.
const VACUUMED_WITHIN: Duration = Duration::from_secs(600);

/// The result of a round of upkeep.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    /// The number of daily partitions of the history that were emptied; `None` if another worker was already doing this
    /// chore.
    pub(crate) emptied: Option<u32>,
}

/// A chore that is one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chore {
    Counters,
    OldCounters,
    Kinds,
    Rates,
    Ends,
    Events,
    Steps,
    UniqueKeys,
    OldDays,
    History,
    DeadJobs,
    Actions,
    Statistics,
    Parked,
    Workflows,
    LostEnds,
}

/// The chores of every round.
const OFTEN: [Chore; 3] = [Chore::Counters, Chore::Statistics, Chore::Parked];
/// The chores of every tenth round. A delay of these chores does no harm, and an idle worker should ask little of the
/// server.
const SELDOM: [Chore; 13] = [
    Chore::OldCounters,
    Chore::Kinds,
    Chore::Rates,
    Chore::Ends,
    Chore::Events,
    Chore::Steps,
    Chore::UniqueKeys,
    Chore::OldDays,
    Chore::History,
    Chore::DeadJobs,
    Chore::Actions,
    Chore::Workflows,
    Chore::LostEnds,
];
const SELDOM_ROUNDS: usize = 10;

impl Chore {
    fn statement(self, statements: &Statements) -> &str {
        match self {
            Chore::Counters => &statements.upkeep_counters,
            Chore::OldCounters => &statements.upkeep_old_counters,
            Chore::Kinds => &statements.upkeep_kinds,
            Chore::Rates => &statements.upkeep_rates,
            Chore::Ends => &statements.upkeep_ends,
            Chore::Events => &statements.upkeep_events,
            Chore::Steps => &statements.upkeep_steps,
            Chore::UniqueKeys => &statements.upkeep_unique_keys,
            Chore::OldDays => &statements.upkeep_old_days,
            Chore::History => &statements.upkeep_history,
            Chore::DeadJobs => &statements.upkeep_dead_jobs,
            Chore::Actions => &statements.upkeep_actions,
            Chore::Statistics => &statements.upkeep_statistics,
            Chore::Parked => &statements.upkeep_parked,
            Chore::Workflows => &statements.upkeep_workflows,
            Chore::LostEnds => &statements.upkeep_lost_ends,
        }
    }

    /// Returns true if rows may be left after a slice that did this much. If a slice has finished a day of the history,
    /// another day may be left.
    fn has_more_after(self, done: i64) -> bool {
        match self {
            Chore::OldDays | Chore::History => done > 0,
            Chore::Statistics => false,
            _ => done >= ROWS,
        }
    }
}

impl Postgres {
    /// Does the upkeep that a worker does each minute.
    pub(super) async fn do_upkeep(&self) -> Result<()> {
        // Runs this statement first, so that a failing chore cannot prevent it.
        let passed =
            self.query("move the sequence of ids past the ids in use", &self.statements.pass_given_ids, &[]).await;
        self.do_next_round().await?;
        self.vacuum_due_tables().await?;
        passed?;
        // The last sleeping workers may have died asleep. Without this note, inserts would keep searching for sleeping
        // workers.
        self.note_nobody_sleeps().await
    }

    /// Does the chores of this driver's next round.
    async fn do_next_round(&self) -> Result<()> {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        if round.is_multiple_of(SELDOM_ROUNDS) {
            self.do_all_chores(None).await.map(drop)
        } else {
            self.do_chores(OFTEN.iter(), None).await.map(drop)
        }
    }

    /// Does every chore to its end, one after another. `days_before` is for the history: a day whose last reading began
    /// after this time is not read again. `None` stands for 20 minutes ago.
    pub(crate) async fn do_all_chores(&self, days_before: Option<SystemTime>) -> Result<Pruned> {
        self.do_chores(OFTEN.iter().chain(&SELDOM), days_before).await
    }

    /// Does all of these chores, even if one fails. Returns the first error.
    async fn do_chores(&self, chores: impl Iterator<Item = &Chore>, days_before: Option<SystemTime>) -> Result<Pruned> {
        let (mut pruned, mut failed) = (Pruned::default(), None);
        for &chore in chores {
            match self.do_chore(chore, days_before).await {
                Ok(done) if chore == Chore::OldDays => pruned.emptied = done.map(|days| days.max(0) as u32),
                Ok(_) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(pruned), Err)
    }

    /// Does a chore to its end. Returns the amount of work done; `None` if another worker was already doing the chore.
    async fn do_chore(&self, chore: Chore, days_before: Option<SystemTime>) -> Result<Option<i64>> {
        let mut all = None;
        loop {
            let began = Instant::now();
            let Some(done) = self.do_slice(chore, days_before).await? else { return Ok(all) };
            all = Some(all.unwrap_or(0) + done);
            if !chore.has_more_after(done) {
                return Ok(all);
            }
            tokio::time::sleep(began.elapsed().min(LONGEST_REST)).await;
        }
    }

    /// Does a slice of a chore. Returns the amount of work done; `None` if another worker is already doing the chore,
    /// or there is nothing to do.
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

    /// Vacuums the tables with many dead rows, if this driver has settled 10,000 jobs since it last checked the tables.
    pub(crate) async fn vacuum(&self) -> Result<()> {
        if self.settled.load(Ordering::Relaxed) < ASK_AFTER { Ok(()) } else { self.vacuum_due_tables().await }
    }

    /// Vacuums the tables with many dead rows, one after another.
    ///
    /// Autovacuum checks the tables once a minute at most, and its workers may be busy with other tables. At 25,000
    /// jobs a second, a minute leaves two gigabytes of dead rows. The vacuum has a separate session, because claims and
    /// settlements cannot wait for it.
    async fn vacuum_due_tables(&self) -> Result<()> {
        self.settled.store(0, Ordering::Relaxed);
        let due = self.query("choose the tables to vacuum", &self.statements.upkeep_vacuum, &[]).await?;
        if due.is_empty() {
            return Ok(());
        }
        let tables = due.iter().map(|row| row.get::<_, String>("name"));
        let vacuumed = tokio::time::timeout(VACUUMED_WITHIN, self.vacuum_tables(tables)).await;
        self.query("note the vacuumed tables", &self.statements.upkeep_vacuumed, &[]).await?;
        vacuumed.map_err(|_| {
            Error::unavailable(format!("cannot vacuum: the server did not answer within {VACUUMED_WITHIN:?}"))
        })?
    }

    async fn vacuum_tables(&self, tables: impl Iterator<Item = String>) -> Result<()> {
        let failed = |error| Error::database("vacuum", error);
        let (client, connection) = self.sessions.open_beside(self.database.address(), "reveille upkeep").await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection.map(drop)));
        if !self.database.is_pooled() {
            client.batch_execute("set statement_timeout = 0; set lock_timeout = 0").await.map_err(failed)?;
        }
        for table in tables {
            // A locked table is skipped. Truncating a table would take a lock that claims would wait for.
            let vacuum = format!("vacuum (skip_locked, truncate false) {}.{table}", self.database.schema_name());
            client.batch_execute(&vacuum).await.map_err(failed)?;
        }
        Ok(())
    }
}
