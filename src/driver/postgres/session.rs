//! The worker's sessions: their settings, and the ways to run a statement in one of them.
//!
//! A session that belongs to the worker is set up once and keeps its statements prepared. A transaction pooler lends a
//! session for one transaction, and then lends it to other clients. In a lent session, a statement is not prepared. It
//! runs in a transaction that begins with the settings, all in one round trip.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object, Pool};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::database::address::Address;
use crate::database::busy::BusySession;
use crate::database::connect::{self, Opened};
use crate::database::{Database, take};
use crate::error::{Error, Result};

/// Settings of every session, which override the settings that the database's owner has made for other programs. They
/// make each statement read its rows by an index. They also make the server plan a statement once per session and keep
/// this plan. New plans would be no better, because the tables change too fast for the planner's statistics to be of
/// use.
const SETTINGS: [&str; 9] = [
    // Without this, functions and operators from other schemas on the user's search path could be called.
    "search_path = pg_catalog, pg_temp",
    "jit = off",
    "plan_cache_mode = force_generic_plan",
    "enable_seqscan = off",
    "enable_bitmapscan = off",
    "enable_sort = off",
    "statement_timeout = '30s'",
    // Only this timeout ends a commit that waits for the commit of another session, since `statement_timeout` does not
    // apply to commits. It is longer, so that it ends nothing else.
    "lock_timeout = '35s'",
    "idle_in_transaction_session_timeout = 0",
];
/// Further settings of a session that belongs to the worker. In a session lent by a pooler, each transaction sets its
/// isolation level, and the pooler decides when an idle session ends.
const OWN_SESSION: [&str; 2] = ["default_transaction_isolation = 'read committed'", "idle_session_timeout = 0"];

/// With this setting, a crash of the server may undo the last claims and settlements, so that some jobs run again. The
/// crash cannot lose a job.
pub(super) const ASYNCHRONOUS: &str = "synchronous_commit = off";
const DURABLE: &str = "synchronous_commit = on";
/// The commit waits for the disk, but not for a standby: a commit whose synchronous standby is away would hang.
const DURABLE_ONCE: &str = "set local synchronous_commit = local";
/// The commit waits for the disk, and for the standbys that the server is set to wait for.
const AS_DURABLE_AS_AN_ENQUEUE: &str = "set local synchronous_commit = on";

/// Ends a transaction. The `lock_timeout` that a statement has set, which is shorter, must not end the commit.
const COMMIT: &str = "set local lock_timeout = '5s'; commit";

/// The largest number of connections that the driver uses to claim and to settle.
const CONNECTIONS: usize = 4;

/// The longest time that warming the sessions up may take.
const WARM_WITHIN: Duration = Duration::from_secs(5);

/// A statement's parameters and their types.
pub(crate) type Params<'a> = [Param<'a>];
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The pooled sessions. All statements run in them, except those of the heartbeat and the listener.
#[derive(Clone)]
pub(crate) struct Sessions {
    pool: Pool,
    database: Database,
    /// The setting that decides whether commits wait for the disk.
    commits: &'static str,
    /// The commands that begin a transaction in a lent session; `None` if the sessions belong to the worker.
    begin: Option<Arc<str>>,
}

impl Sessions {
    pub(crate) fn new(database: &Database, durable: bool) -> Result<Sessions> {
        let commits = if durable { DURABLE } else { ASYNCHRONOUS };
        let (set, begin) = settings(database, &[commits]);
        let pool = database.pool_with("reveille worker", set, CONNECTIONS)?;
        Ok(Sessions { pool, database: database.clone(), commits, begin })
    }

    /// Returns the statements that set up the listener's session.
    pub(crate) fn of_listener(&self) -> String {
        settings(&self.database, &[self.commits]).0
    }

    pub(crate) async fn client(&self) -> Result<Object> {
        take(&self.pool, self.database.address()).await
    }

    async fn busy_session(&self) -> Result<BusySession> {
        Ok(BusySession::new(self.client().await?, &self.database))
    }

    /// Closes the idle sessions.
    pub(crate) fn forget(&self) {
        self.pool.retain(|_, _| false);
    }

    /// Opens a session of the worker beside the pooled ones. If a limit on connections refuses the session, this closes
    /// the idle pooled sessions, so that a later try finds room. Otherwise idle sessions could keep out the listener
    /// for as long as the worker runs.
    pub(crate) async fn open_beside(&self, address: &Address, name: &str) -> Result<Opened> {
        let opened = connect::open(&self.database.for_worker(address, name)).await;
        if opened.as_ref().is_err_and(|error| error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)) {
            self.forget();
        }
        opened
    }

    /// Opens this many sessions and runs the statements in each of them, all at the same time. Does nothing if the
    /// sessions are lent, since a lent session keeps no prepared statements.
    pub(crate) async fn warm_up(&self, sessions: usize, statements: &[Statement<'_>]) -> Result<()> {
        if self.begin.is_some() {
            return Ok(());
        }
        let sessions = futures::future::try_join_all((0..sessions).map(|_| self.busy_session())).await?;
        let clients = sessions.iter().map(BusySession::client).collect::<Result<Vec<_>>>()?;
        let all_in = async |client: &Object| {
            for statement in statements {
                run(client, *statement).await?;
            }
            Ok(())
        };
        let all = futures::future::try_join_all(clients.into_iter().map(all_in));
        let warm = in_time(WARM_WITHIN, "open sessions in advance", all).await;
        sessions.into_iter().for_each(|session| session.finish_after(&warm));
        warm.map(drop)
    }

    /// Runs a statement. If the answer takes longer than `patience`, cancels the statement, closes the connection and
    /// returns an error.
    pub(crate) async fn query(
        &self,
        patience: Duration,
        what: &str,
        sql: &str,
        params: &Params<'_>,
    ) -> Result<Vec<Row>> {
        self.answer(patience, what, None, (sql, params)).await
    }

    /// Runs `lock` and then `statement`, in one transaction. The statement sees all changes that were committed before
    /// the lock was acquired.
    pub(crate) async fn query_locked(
        &self,
        patience: Duration,
        what: &str,
        lock: Statement<'_>,
        statement: Statement<'_>,
    ) -> Result<Vec<Row>> {
        self.answer(patience, what, Some(lock), statement).await
    }

    /// Runs `settings` and then `statement`, in one transaction. The statement is not prepared, since preparing it
    /// would lock its tables before the settings are made.
    pub(crate) async fn query_set(
        &self,
        patience: Duration,
        what: &str,
        settings: &str,
        statement: Statement<'_>,
    ) -> Result<Vec<Row>> {
        let session = self.busy_session().await?;
        let begin = self.begin.as_deref().unwrap_or("begin");
        let answer = in_transaction(session.client()?, begin, Some((settings, &[])), statement);
        let answer = in_time(patience, what, answer).await;
        session.finish_after(&answer);
        answer
    }

    /// Runs a statement whose commit waits for the disk, even if the driver is not durable.
    pub(crate) async fn query_durably(
        &self,
        patience: Duration,
        what: &str,
        sql: &str,
        params: &Params<'_>,
    ) -> Result<Vec<Row>> {
        let first = (self.commits != DURABLE).then_some((DURABLE_ONCE, [].as_slice()));
        self.answer(patience, what, first, (sql, params)).await
    }

    /// Runs a statement whose commit waits for the disk, and for the standbys that the server is set to wait for.
    pub(crate) async fn query_as_durable(
        &self,
        patience: Duration,
        what: &str,
        sql: &str,
        params: &Params<'_>,
    ) -> Result<Vec<Row>> {
        let first = (self.commits != DURABLE).then_some((AS_DURABLE_AS_AN_ENQUEUE, [].as_slice()));
        self.answer(patience, what, first, (sql, params)).await
    }

    /// Begins a transaction of several statements, for a statement that depends on the answer to an earlier one.
    pub(crate) async fn begin(&self, patience: Duration, what: &str) -> Result<Transaction> {
        let transaction = Transaction { session: self.busy_session().await?, is_lent: self.begin.is_some() };
        transaction.run(patience, what, self.begin.as_deref().unwrap_or("begin")).await?;
        Ok(transaction)
    }

    async fn answer(
        &self,
        patience: Duration,
        what: &str,
        first: Option<Statement<'_>>,
        statement: Statement<'_>,
    ) -> Result<Vec<Row>> {
        let session = self.busy_session().await?;
        let client = session.client()?;
        let answer = async {
            match (&self.begin, first) {
                (Some(begin), first) => in_transaction(client, begin, first, statement).await,
                (None, None) => run(client, statement).await,
                (None, Some(first)) => {
                    let (first, statement) = (prepared(client, first).await?, prepared(client, statement).await?);
                    let (begun, done, rows, committed) = futures::join!(
                        client.batch_execute("begin"),
                        first.query(client),
                        statement.query(client),
                        client.batch_execute("commit")
                    );
                    begun?;
                    done?;
                    let rows = rows?;
                    committed.map(|()| rows)
                }
            }
        };
        let answer = in_time(patience, what, answer).await;
        session.finish_after(&answer);
        answer
    }
}

/// A transaction of several statements. If the transaction is dropped before a commit or a rollback, its session is
/// closed, and the server rolls the transaction back.
pub(crate) struct Transaction {
    session: BusySession,
    is_lent: bool,
}

impl Transaction {
    pub(crate) async fn query(&self, patience: Duration, what: &str, statement: Statement<'_>) -> Result<Vec<Row>> {
        let client = self.session.client()?;
        let answer = async {
            if self.is_lent { client.query_typed(statement.0, statement.1).await } else { run(client, statement).await }
        };
        in_time(patience, what, answer).await
    }

    /// Commits. A commit that notifies waits for other notifying commits. If it waits for more than 5 s, the
    /// transaction is rolled back, and the error says that another session holds a lock.
    pub(crate) async fn commit(self, patience: Duration, what: &str) -> Result<()> {
        self.run(patience, what, COMMIT).await?;
        self.session.finish();
        Ok(())
    }

    /// Rolls the transaction back. If the rollback fails, closes the session.
    pub(crate) async fn roll_back(self) {
        if let Ok(client) = self.session.client()
            && client.batch_execute("rollback").await.is_ok()
        {
            self.session.finish();
        }
    }

    async fn run(&self, patience: Duration, what: &str, command: &str) -> Result<()> {
        in_time(patience, what, self.session.client()?.batch_execute(command)).await
    }
}

/// Waits for the server's answer, for at most `patience`.
pub(crate) async fn in_time<T>(
    patience: Duration,
    what: &str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer.map_err(|error| Error::database(what, error)),
        Err(_) => Err(Error::unavailable(format!("cannot {what}: the server did not answer within {patience:?}"))),
    }
}

/// A statement with its parameters.
pub(crate) type Statement<'a> = (&'a str, &'a Params<'a>);

/// A statement that the session has prepared, with its parameters.
struct Prepared<'a> {
    statement: tokio_postgres::Statement,
    values: Vec<&'a (dyn ToSql + Sync)>,
}

impl Prepared<'_> {
    async fn query(&self, client: &ClientWrapper) -> Result<Vec<Row>, tokio_postgres::Error> {
        client.query(&self.statement, &self.values).await
    }
}

async fn prepared<'a>(
    client: &ClientWrapper,
    (sql, params): Statement<'a>,
) -> Result<Prepared<'a>, tokio_postgres::Error> {
    let (values, types): (Vec<_>, Vec<_>) = params.iter().cloned().unzip();
    Ok(Prepared { statement: client.prepare_typed_cached(sql, &types).await?, values })
}

/// Runs a statement in a session that belongs to the worker. Prepares the statement if this session has not prepared it
/// yet.
pub(crate) async fn run(client: &ClientWrapper, statement: Statement<'_>) -> Result<Vec<Row>, tokio_postgres::Error> {
    prepared(client, statement).await?.query(client).await
}

/// The time at which the server plans a statement.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    /// Once in a session: for a statement that runs often and has one good plan.
    Kept,
    /// At each run: for a statement whose best plan depends on the number of rows. Planning may cost more than the run.
    Fresh,
}

/// Returns the commands that a session starts with, and the commands that begin each transaction in a lent session. For
/// lent sessions, the second has all settings and the first is empty. For other sessions, the first has all settings,
/// and the second is `None`.
pub(super) fn settings(database: &Database, particular: &[&str]) -> (String, Option<Arc<str>>) {
    let all = |set: &str, is_local: bool| -> String {
        let settings = SETTINGS.iter().chain(particular).map(|setting| format!("{set} {setting};"));
        // Servers before version 17 do not have this setting.
        let known =
            format!("select set_config(name, '0', {is_local}) from pg_settings where name = 'transaction_timeout'");
        settings.chain([known]).collect()
    };
    if database.is_pooled() {
        (String::new(), Some(format!("begin isolation level read committed; {}", all("set local", true)).into()))
    } else {
        let own: String = OWN_SESSION.iter().map(|setting| format!("set {setting};")).collect();
        (own + &all("set", false), None)
    }
}

/// Runs the statements in one transaction, and sends all messages at once.
pub(super) async fn in_transaction(
    client: &Client,
    begin: &str,
    first: Option<Statement<'_>>,
    (sql, params): Statement<'_>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let first = async {
        match first {
            Some((sql, params)) => client.query_typed(sql, params).await.map(drop),
            None => Ok(()),
        }
    };
    let (begun, done, rows, committed) = futures::join!(
        client.batch_execute(begin),
        first,
        client.query_typed(sql, params),
        client.batch_execute("commit")
    );
    begun?;
    done?;
    let rows = rows?;
    committed.map(|()| rows)
}
