//! The worker's sessions: what they are set to, and how a statement is run in one.
//!
//! A session of its own is set up once and keeps its statements prepared. One that a transaction pooler lends is
//! another at each transaction and belongs to others afterwards: there each statement goes unnamed, in a transaction
//! with the settings, all in one round trip.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object, Pool};
use futures::FutureExt;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::database::{Database, connect, take};
use crate::error::{Error, Result};

/// Whatever the database's owner has set for others: one row at a time by index, planned once. The tables are churned
/// too fast for the planner's statistics to be of use.
const SETTINGS: [&str; 9] = [
    // Nobody else's functions and operators, in whatever schema the user may have on his path.
    "search_path = pg_catalog, pg_temp",
    "jit = off",
    "plan_cache_mode = force_generic_plan",
    "enable_seqscan = off",
    "enable_bitmapscan = off",
    "enable_sort = off",
    "statement_timeout = '30s'",
    "lock_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
];
/// Of a session that is its own; in one that is lent the transaction says the first, and the pooler sees to the second.
const OWN: [&str; 2] = ["default_transaction_isolation = 'read committed'", "idle_session_timeout = 0"];

/// A crash of the server may undo the last claims and settlements, so that some jobs run again; it can lose none.
const ASYNCHRONOUS: &str = "synchronous_commit = off";
const DURABLE: &str = "synchronous_commit = on";
const DURABLE_ONCE: &str = "set local synchronous_commit = on";

/// How many connections one worker uses to claim and to settle.
const CONNECTIONS: usize = 4;

/// How long it may take to get some of them ready.
const WARM_WITHIN: Duration = Duration::from_secs(5);

/// A statement's parameters and their types.
pub(crate) type Params<'a> = [Param<'a>];
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The sessions that claims, settlements and all else but the heartbeat and the listener share.
#[derive(Clone)]
pub(crate) struct Sessions {
    pool: Pool,
    database: Database,
    /// Whether commits wait for the disk.
    commits: &'static str,
    /// What begins a transaction in a session that is lent.
    begin: Option<Arc<str>>,
}

impl Sessions {
    pub(crate) fn new(database: &Database, durable: bool) -> Result<Sessions> {
        let commits = if durable { DURABLE } else { ASYNCHRONOUS };
        let (set, begin) = settings(database, &[commits]);
        let pool = database.pool_with("reveille worker", set, CONNECTIONS)?;
        Ok(Sessions { pool, database: database.clone(), commits, begin })
    }

    /// What the listener's session starts with.
    pub(crate) fn of_listener(&self) -> String {
        settings(&self.database, &[self.commits]).0
    }

    pub(crate) async fn client(&self) -> Result<Object> {
        take(&self.pool, self.database.address()).await
    }

    /// Closes the sessions that rest.
    pub(crate) fn forget(&self) {
        self.pool.retain(|_, _| false);
    }

    /// Opens so many sessions, and runs these statements in each, at the same time. Nothing where sessions are lent,
    /// which keep nothing.
    pub(crate) async fn warm_up(&self, sessions: usize, statements: &[Statement<'_>]) -> Result<()> {
        if self.begin.is_some() {
            return Ok(());
        }
        let clients = futures::future::try_join_all((0..sessions).map(|_| self.client())).await?;
        let all_in = async |client: &Object| {
            for statement in statements {
                run(client, *statement).await?;
            }
            Ok(())
        };
        let all = futures::future::try_join_all(clients.iter().map(all_in));
        let warm = in_time(WARM_WITHIN, "get sessions ready", all).await;
        if warm.as_ref().is_err_and(Error::is_unavailable) {
            clients.into_iter().map(Object::take).for_each(drop);
        }
        warm.map(drop)
    }

    /// Runs a statement, and gives up on it and its connection if the answer takes longer than `patience`.
    pub(crate) async fn query(
        &self,
        patience: Duration,
        what: &str,
        sql: &str,
        params: &Params<'_>,
    ) -> Result<Vec<Row>> {
        self.answer(patience, what, None, (sql, params)).await
    }

    /// The same in the transaction of another statement, whose lock it needs: it sees all that was committed before the
    /// lock was had.
    pub(crate) async fn query_locked(
        &self,
        patience: Duration,
        what: &str,
        lock: Statement<'_>,
        statement: Statement<'_>,
    ) -> Result<Vec<Row>> {
        self.answer(patience, what, Some(lock), statement).await
    }

    /// The same, without preparing the statement: its tables are locked then, before the settings that the first one
    /// makes.
    pub(crate) async fn query_set(
        &self,
        patience: Duration,
        what: &str,
        settings: &str,
        statement: Statement<'_>,
    ) -> Result<Vec<Row>> {
        let client = self.client().await?;
        let begin = self.begin.as_deref().unwrap_or("begin");
        let answer = in_transaction(&client, begin, Some((settings, &[])), statement);
        let answer = in_time(patience, what, answer).await;
        if answer.as_ref().is_err_and(Error::is_unavailable) {
            drop(Object::take(client));
        }
        answer
    }

    /// The same, waiting for the disk in any case.
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

    /// Begins a transaction of several statements, of which one depends on what another has answered.
    pub(crate) async fn begin(&self, patience: Duration, what: &str) -> Result<Transaction> {
        let client = self.client().await?;
        let transaction = Transaction { client: Some(client), is_lent: self.begin.is_some() };
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
        let client = self.client().await?;
        let answer = async {
            match (&self.begin, first) {
                (Some(begin), first) => in_transaction(&client, begin, first, statement).await,
                (None, None) => run(&client, statement).await,
                (None, Some(first)) => {
                    let (first, statement) = (prepared(&client, first).await?, prepared(&client, statement).await?);
                    let (begun, done, rows, committed) = futures::join!(
                        client.batch_execute("begin"),
                        first.query(&client),
                        statement.query(&client),
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
        if answer.as_ref().is_err_and(Error::is_unavailable) {
            // It may be cut off without a sign of it.
            drop(Object::take(client));
        }
        answer
    }
}

/// A transaction of several statements. One that is not committed ends with its session.
pub(crate) struct Transaction {
    client: Option<Object>,
    is_lent: bool,
}

impl Transaction {
    pub(crate) async fn query(&self, patience: Duration, what: &str, statement: Statement<'_>) -> Result<Vec<Row>> {
        let client = self.client()?;
        let answer = async {
            if self.is_lent { client.query_typed(statement.0, statement.1).await } else { run(client, statement).await }
        };
        in_time(patience, what, answer).await
    }

    pub(crate) async fn commit(mut self, patience: Duration, what: &str) -> Result<()> {
        // Commits that notify wait for each other, which is no reason to give up.
        self.run(patience, what, "set local lock_timeout = 0; commit").await?;
        // It goes back to the others.
        drop(self.client.take());
        Ok(())
    }

    /// Ends it without having changed anything; with its session, if that does not answer.
    pub(crate) async fn roll_back(mut self) {
        if let Some(client) = &self.client
            && client.batch_execute("rollback").await.is_ok()
        {
            drop(self.client.take());
        }
    }

    async fn run(&self, patience: Duration, what: &str, command: &str) -> Result<()> {
        in_time(patience, what, self.client()?.batch_execute(command)).await
    }

    fn client(&self) -> Result<&Object> {
        self.client.as_ref().ok_or_else(|| Error::unavailable("the transaction is over"))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        drop(self.client.take().map(Object::take));
    }
}

/// What the server answers, unless it takes longer than `patience`.
pub(crate) async fn in_time<T>(
    patience: Duration,
    what: &str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer.map_err(|error| Error::database(what, error)),
        Err(_) => Err(Error::unavailable(format!("{what}: the server did not answer within {patience:?}"))),
    }
}

/// A statement with its parameters.
pub(crate) type Statement<'a> = (&'a str, &'a Params<'a>);

/// A statement that the session knows, with its parameters.
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

/// Runs a statement in a session of its own, which knows it from then on.
pub(crate) async fn run(client: &ClientWrapper, statement: Statement<'_>) -> Result<Vec<Row>, tokio_postgres::Error> {
    prepared(client, statement).await?.query(client).await
}

/// How the server is to come by its plan of a statement.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    /// Once in a session: for what is run again and again, and has one good plan.
    Kept,
    /// Anew, which may cost more than the statement: for what depends on how much there is.
    Fresh,
}

/// The heartbeat's session, driven by the runtime that opens it.
pub(crate) struct Heart {
    client: ClientWrapper,
    begin: Option<Arc<str>>,
}

impl Heart {
    pub(crate) async fn open(database: &Database) -> Result<Heart> {
        let (client, connection) =
            connect::open(&database.for_worker(database.address(), "reveille heartbeat")).await?;
        let connection = tokio::spawn(connection.map(drop));
        let client = ClientWrapper::new(client, connection);
        // A heartbeat that a crash undoes is as good as one that came a moment earlier.
        let (set, begin) = settings(database, &[ASYNCHRONOUS, "statement_timeout = '5s'"]);
        client.batch_execute(&set).await.map_err(|error| Error::database("set up a session", error))?;
        Ok(Heart { client, begin })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(crate) async fn query(&self, plan: Plan, statement: Statement<'_>) -> Result<Vec<Row>, tokio_postgres::Error> {
        match (&self.begin, plan) {
            (Some(begin), _) => in_transaction(&self.client, begin, None, statement).await,
            (None, Plan::Kept) => run(&self.client, statement).await,
            (None, Plan::Fresh) => self.client.query_typed(statement.0, statement.1).await,
        }
    }
}

/// What a session starts with, and what each transaction begins with: all in the one, or all in the other.
fn settings(database: &Database, particular: &[&str]) -> (String, Option<Arc<str>>) {
    let all = |set: &str, is_local: bool| -> String {
        let settings = SETTINGS.iter().chain(particular).map(|setting| format!("{set} {setting};"));
        // Servers before 17 do not know it.
        let known =
            format!("select set_config(name, '0', {is_local}) from pg_settings where name = 'transaction_timeout'");
        settings.chain([known]).collect()
    };
    if database.is_pooled() {
        (String::new(), Some(format!("begin isolation level read committed; {}", all("set local", true)).into()))
    } else {
        let own: String = OWN.iter().map(|setting| format!("set {setting};")).collect();
        (own + &all("set", false), None)
    }
}

/// All messages sent at once.
async fn in_transaction(
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
