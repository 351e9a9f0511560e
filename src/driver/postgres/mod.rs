//! Jobs in Postgres: the driver that Reveille is for.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::Row;

use crate::database::Database;
use crate::driver::Silent;
use crate::error::{Error, Result};

mod claim;
mod driver;
mod hint;
mod listen;
mod rescue;
#[cfg(feature = "schedules")]
mod schedules;
mod session;
mod settle;
pub(crate) mod statements;
mod upkeep;
mod warm;

use session::{Heart, Params, Plan, Sessions, Statement};
use statements::Statements;

/// How long it may take to answer a heartbeat.
const HEART_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long the server may take to answer one of the short statements.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// And one of those whose length depends on what there is; longer than the sessions' `statement_timeout`.
const SLOW_ANSWER_WITHIN: Duration = Duration::from_secs(35);

/// The driver for Postgres.
pub struct Postgres {
    database: Database,
    statements: Statements,
    sessions: Sessions,
    /// How long a claim may take.
    claim_within: claim::Patience,
    limits: claim::limited::Limits,
    odd: claim::isolate::Odd,
    waits: claim::count_running::Waits,
    lull: settle::durability::Lull,
    locks: settle::locked::Locks,
    queues: settle::by_place::Queues,
    /// The sessions have been got ready, or that was tried.
    warm: AtomicBool,
    /// How many jobs were settled since it was last asked whether a vacuum is due.
    settled: AtomicUsize,
    /// How many rounds of upkeep it has made.
    rounds: AtomicUsize,
    /// The heartbeat's connection, opened in the heartbeat's own runtime.
    heart: Mutex<Option<Heart>>,
}

impl Postgres {
    /// A driver on a database, with connections of its own, opened when they are needed, or before that while there is
    /// nothing to do: up to four to claim and to settle, and one for the heartbeat and one to listen for each worker.
    ///
    /// # Errors
    /// Invalid if the address asks for something that cannot be had.
    pub fn new(database: Database) -> Result<Postgres> {
        Ok(Postgres {
            statements: Statements::new(database.schema()),
            sessions: Sessions::new(&database, false)?,
            claim_within: claim::Patience::default(),
            limits: claim::limited::Limits::default(),
            odd: claim::isolate::Odd::default(),
            waits: claim::count_running::Waits::default(),
            lull: settle::durability::Lull::default(),
            locks: settle::locked::Locks::default(),
            queues: settle::by_place::Queues::default(),
            warm: AtomicBool::new(false),
            settled: AtomicUsize::new(0),
            rounds: AtomicUsize::new(0),
            heart: Mutex::new(None),
            database,
        })
    }

    /// Wait for the disk at each claim and settlement; default no.
    ///
    /// Without it, a crash of the server (not of a worker) may undo those of its last half second or so: jobs that ran
    /// then run again, as they may after any crash. With it, fewer do; each claim and settlement takes a write to disk
    /// longer. The ending of a job that ran alone, after a quiet moment, waits for the disk in any case. What is
    /// enqueued, armed or administered is always as durable as the server is set to be.
    ///
    /// # Errors
    /// As in [`Postgres::new`].
    pub fn durable(mut self, durable: bool) -> Result<Postgres> {
        self.sessions = Sessions::new(&self.database, durable)?;
        Ok(self)
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// One of the short statements.
    async fn query(&self, what: &str, sql: &str, params: &Params<'_>) -> Result<Vec<Row>> {
        self.sessions.query(ANSWER_WITHIN, what, sql, params).await
    }

    /// The transactions that may have enqueued already and not committed yet.
    async fn silent(&self) -> Result<Vec<Silent>> {
        let rows = self.query("look for silent transactions", &self.statements.silent_transactions, &[]).await?;
        Ok(rows.iter().map(|row| Silent(row.get(0))).collect())
    }

    /// Spares those who enqueue the question whom to ring for, if nobody sleeps.
    async fn note_nobody_sleeps(&self) -> Result<()> {
        self.query("note that nobody sleeps", &self.statements.note_nobody_sleeps, &[]).await.map(drop)
    }

    /// Runs one statement on the heartbeat's connection, which is opened anew after any error.
    async fn on_heart(&self, what: &str, plan: Plan, statement: Statement<'_>) -> Result<Vec<Row>> {
        let mut heart = self.heart.lock().await;
        let session = match heart.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => Heart::open(&self.database).await?,
        };
        match tokio::time::timeout(HEART_ANSWERS_WITHIN, session.query(plan, statement)).await {
            Ok(Ok(rows)) => {
                *heart = Some(session);
                Ok(rows)
            }
            Ok(Err(error)) => Err(Error::database(what, error)),
            Err(_) => {
                // Nor will it on the sessions that rest: others have to be opened, elsewhere after a fail-over.
                self.sessions.forget();
                Err(Error::unavailable(format!("{what}: the server does not answer")))
            }
        }
    }
}
