//! The driver for jobs in Postgres, the store that Reveille is made for.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio_postgres::Row;

use crate::database::Database;
use crate::driver::OpenTransaction;
use crate::error::{Error, Result};

mod claim;
mod complete;
mod driver;
mod heartbeat;
mod hint;
mod kinds;
mod links;
mod listen;
mod rescue;
#[cfg(feature = "schedules")]
mod schedules;
mod session;
mod settle;
pub(crate) mod statements;
mod steps;
mod upkeep;
mod warm;

use heartbeat::HeartbeatSession;
use session::{Params, Plan, Sessions, Statement};
use statements::Statements;

/// The server must answer a heartbeat within this time.
const HEARTBEAT_ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// The server must answer a short statement within this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The server must answer a statement within this time if the statement's duration depends on the number of rows. The
/// time is longer than the `statement_timeout` of the sessions.
const SLOW_ANSWER_WITHIN: Duration = Duration::from_secs(35);

/// The driver for Postgres.
pub struct Postgres {
    database: Database,
    statements: Statements,
    sessions: Sessions,
    claim_timeout: claim::ClaimTimeout,
    limits: claim::limited::KnownLimits,
    pauses: claim::paused::KnownPauses,
    odd_jobs: claim::isolate::OddJobs,
    claim_waits: claim::count_running::ClaimWaits,
    quiet_time: settle::durability::QuietTime,
    locks: settle::locked::Locks,
    queues: settle::by_place::Queues,
    /// Notified when ends of linked jobs may have to be applied.
    linked_ends: Notify,
    ends_at_once: links::EndsAtOnce,
    /// True once the driver has tried to warm its sessions up.
    warm: AtomicBool,
    /// The number of jobs that were settled since the driver last checked whether a table needs a vacuum.
    settled: AtomicUsize,
    /// The number of upkeep rounds that this driver has begun.
    rounds: AtomicUsize,
    /// The session of the heartbeat, which is opened in the heartbeat's separate runtime.
    heartbeat_session: Mutex<Option<HeartbeatSession>>,
}

impl Postgres {
    /// Returns a driver on a database. The driver opens connections when it needs them, or earlier while its worker has
    /// nothing to do. It opens at most four connections to claim and settle, and for each worker one for the heartbeat
    /// and one to listen.
    ///
    /// # Errors
    /// Invalid if the address asks for an option that is not supported.
    pub fn new(database: Database) -> Result<Postgres> {
        Ok(Postgres {
            statements: Statements::new(database.schema()),
            sessions: Sessions::new(&database, false)?,
            claim_timeout: claim::ClaimTimeout::default(),
            limits: claim::limited::KnownLimits::default(),
            pauses: claim::paused::KnownPauses::default(),
            odd_jobs: claim::isolate::OddJobs::default(),
            claim_waits: claim::count_running::ClaimWaits::default(),
            quiet_time: settle::durability::QuietTime::default(),
            locks: settle::locked::Locks::default(),
            queues: settle::by_place::Queues::default(),
            linked_ends: Notify::new(),
            ends_at_once: links::EndsAtOnce::default(),
            warm: AtomicBool::new(false),
            settled: AtomicUsize::new(0),
            rounds: AtomicUsize::new(0),
            heartbeat_session: Mutex::new(None),
            database,
        })
    }

    /// Sets whether each claim and settlement waits for the disk; default no.
    ///
    /// If they do not wait, a crash of the server may undo the claims and settlements of about the last half second.
    /// The jobs of undone settlements then run again, as jobs may after any crash. If claims and settlements wait,
    /// fewer jobs run again, but each claim and settlement takes longer by one write to disk. If no job was settled in
    /// the last 5 ms, the settlement of a single job waits for the disk in any case. Enqueuing and administration are
    /// always as durable as the server is set to be.
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

    /// Runs a short statement.
    async fn query(&self, what: &str, sql: &str, params: &Params<'_>) -> Result<Vec<Row>> {
        self.sessions.query(ANSWER_WITHIN, what, sql, params).await
    }

    /// Returns the open transactions that may have enqueued jobs.
    async fn open_transactions(&self) -> Result<Vec<OpenTransaction>> {
        let rows = self.query("find open transactions", &self.statements.silent_transactions, &[]).await?;
        Ok(rows.iter().map(|row| OpenTransaction(row.get(0))).collect())
    }

    /// Tells the insert trigger that no worker sleeps, if no worker does. Inserts then skip the search for sleeping
    /// workers.
    async fn note_nobody_sleeps(&self) -> Result<()> {
        self.query("note that no worker sleeps", &self.statements.note_nobody_sleeps, &[]).await.map(drop)
    }

    /// Runs a statement in the heartbeat's session. After an error, the next call opens a new session, unless the error
    /// is about data. The server sends an error before it rolls back, so a new session could still meet the locks.
    async fn on_heartbeat_session(&self, what: &str, plan: Plan, statement: Statement<'_>) -> Result<Vec<Row>> {
        let mut kept = self.heartbeat_session.lock().await;
        let session = match kept.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => HeartbeatSession::open(&self.database, &self.sessions).await?,
        };
        match tokio::time::timeout(HEARTBEAT_ANSWERED_WITHIN, session.query(plan, statement)).await {
            Ok(Ok(rows)) => {
                *kept = Some(session);
                Ok(rows)
            }
            Ok(Err(error)) => {
                let error = Error::database(what, error);
                if error.is_about_data() {
                    *kept = Some(session);
                }
                Err(error)
            }
            Err(_) => {
                session.give_up(&self.database);
                // Closes the pooled sessions, because they lead to the server that did not answer. After a fail-over,
                // new sessions reach the new server.
                self.sessions.forget();
                Err(Error::unavailable(format!(
                    "cannot {what}: the server did not answer within {HEARTBEAT_ANSWERED_WITHIN:?}"
                )))
            }
        }
    }
}
