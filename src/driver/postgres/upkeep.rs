//! Upkeep: one chore at a time, each in slices, each slice a short transaction under the lock of the chore's row.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use tokio_postgres::types::Type;
use tokio_util::task::AbortOnDropHandle;

use super::session::Params;
use super::statements::Statements;
use super::{Postgres, SLOW_ANSWER_WITHIN};
use crate::database::connect;
use crate::error::{Error, Result};

/// How many rows a slice deletes at most.
const ROWS: i64 = 1000;
/// How many pages of the history a slice goes through at most: 4 MB.
const PAGES: i64 = 512;
/// How long the rest after a slice is at most. It is as long as the slice took, so that upkeep takes at most half of a
/// session's time.
const REST: Duration = Duration::from_secs(1);

/// After how many settled jobs to ask whether a vacuum is due.
const ASK_AFTER: usize = 10_000;
/// How long a vacuum may take.
const VACUUMED_WITHIN: Duration = Duration::from_secs(600);

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
    Ends,
    UniqueKeys,
    OldDays,
    History,
    DeadJobs,
    Statistics,
}

/// Those that cannot wait.
const OFTEN: [Chore; 2] = [Chore::Counters, Chore::Statistics];
/// Those that are done in every tenth round: nobody sees how late they are, and an idle worker is to ask for little.
const SELDOM: [Chore; 7] =
    [Chore::OldCounters, Chore::Rates, Chore::Ends, Chore::UniqueKeys, Chore::OldDays, Chore::History, Chore::DeadJobs];
const SELDOM_ROUNDS: usize = 10;

impl Chore {
    fn statement(self, statements: &Statements) -> &str {
        match self {
            Chore::Counters => &statements.upkeep_counters,
            Chore::OldCounters => &statements.upkeep_old_counters,
            Chore::Rates => &statements.upkeep_rates,
            Chore::Ends => &statements.upkeep_ends,
            Chore::UniqueKeys => &statements.upkeep_unique_keys,
            Chore::OldDays => &statements.upkeep_old_days,
            Chore::History => &statements.upkeep_history,
            Chore::DeadJobs => &statements.upkeep_dead_jobs,
            Chore::Statistics => &statements.upkeep_statistics,
        }
    }

    /// Whether there may be more to do after a slice that did so much. A day of the history that was gone through to
    /// its end is followed by another.
    fn goes_on(self, done: i64) -> bool {
        match self {
            Chore::OldDays | Chore::History => done > 0,
            Chore::Statistics => false,
            _ => done >= ROWS,
        }
    }
}

impl Postgres {
    /// What a worker does each minute.
    pub(super) async fn do_upkeep(&self) -> Result<()> {
        // First, since it is no matter of the history's, and whatever fails there must not keep it from being done.
        let passed = self.query("pass the ids that were given out", &self.statements.pass_given_ids, &[]).await;
        self.do_next_round().await?;
        self.vacuum_what_is_due().await?;
        passed?;
        // Workers that died may have been the last asleep.
        self.note_nobody_sleeps().await
    }

    /// Does the chores that are to be done in a worker's next round.
    async fn do_next_round(&self) -> Result<()> {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        if round.is_multiple_of(SELDOM_ROUNDS) {
            self.do_all_chores(None).await.map(drop)
        } else {
            self.do_chores(OFTEN.iter(), None).await.map(drop)
        }
    }

    /// Does every chore to its end, one after another. `days_before`: a day of the history whose last round began
    /// before this is gone through anew; `None`: 20 minutes ago.
    pub(crate) async fn do_all_chores(&self, days_before: Option<SystemTime>) -> Result<Pruned> {
        self.do_chores(OFTEN.iter().chain(&SELDOM), days_before).await
    }

    /// A chore that fails keeps none of the others from being done; the first error is returned.
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

    pub(super) async fn vacuum_after_many_jobs(&self) -> Result<()> {
        if self.settled.load(Ordering::Relaxed) < ASK_AFTER { Ok(()) } else { self.vacuum_what_is_due().await }
    }

    /// Vacuums the tables of which many rows are dead, one after another.
    ///
    /// Autovacuum comes once a minute at most, and one of its workers may be busy elsewhere for long: at 25,000 jobs a
    /// second a minute is two gigabytes. In a session of its own, since it may take longer than claims and settlements
    /// can wait for theirs.
    async fn vacuum_what_is_due(&self) -> Result<()> {
        self.settled.store(0, Ordering::Relaxed);
        let due = self.query("see what to vacuum", &self.statements.upkeep_vacuum, &[]).await?;
        if due.is_empty() {
            return Ok(());
        }
        let tables = due.iter().map(|row| row.get::<_, String>("name"));
        let vacuumed = tokio::time::timeout(VACUUMED_WITHIN, self.vacuum_tables(tables)).await;
        self.query("note what was vacuumed", &self.statements.upkeep_vacuumed, &[]).await?;
        vacuumed
            .map_err(|_| Error::unavailable(format!("vacuum: the server did not answer within {VACUUMED_WITHIN:?}")))?
    }

    async fn vacuum_tables(&self, tables: impl Iterator<Item = String>) -> Result<()> {
        let failed = |error| Error::database("vacuum", error);
        let (client, connection) =
            connect::open(&self.database.for_worker(self.database.address(), "reveille upkeep")).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection.map(drop)));
        if !self.database.is_pooled() {
            client.batch_execute("set statement_timeout = 0; set lock_timeout = 0").await.map_err(failed)?;
        }
        for table in tables {
            // Where it would wait for a lock, it does without. To truncate the table would take one that claims wait
            // for.
            let vacuum = format!("vacuum (skip_locked, truncate false) {}.{table}", self.database.schema_name());
            client.batch_execute(&vacuum).await.map_err(failed)?;
        }
        Ok(())
    }
}
