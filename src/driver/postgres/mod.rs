//! Jobs in Postgres: the driver that Reveille is for.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use deadpool_postgres::{Object, Pool};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::Mutex;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::{Beat, Claimed, Driver, IntoDriver, Marks, Peer, Rescue, Settlement, Signal, Silent, WorkerInfo};
use crate::database::{Database, connect, migrate, take};
use crate::error::{Error, Result};
use crate::executor::{Executor, Jobs};
use crate::job::{Enqueued, NewJob, Reservation};

mod claim;
mod listen;
mod settle;
pub(crate) mod statements;

use statements::Statements;

/// What the worker's sessions are set to, whatever the database's owner has set for others: one row at a time by index,
/// planned once. The tables are churned too fast for the planner's statistics to be of use.
const SETTINGS: &str = "set default_transaction_isolation = 'read committed'; set jit = off; \
    set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off; \
    set application_name = 'reveille worker'; set statement_timeout = '30s'; set lock_timeout = 0; set idle_in_transaction_session_timeout = 0";

/// A crash of the server may undo the last claims and settlements, so that some jobs run again; it can lose none.
const ASYNCHRONOUS: &str = "set synchronous_commit = off";
const DURABLE: &str = "set synchronous_commit = on";

/// How long it may take to answer a heartbeat.
const HEART_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long the server may take to answer one of the short statements.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// And one of those whose length depends on what there is; longer than the sessions' `statement_timeout`.
const SLOW_ANSWER_WITHIN: Duration = Duration::from_secs(35);

/// How many connections one worker uses to claim and to settle.
const CONNECTIONS: usize = 4;

/// The driver for Postgres.
pub struct Postgres {
    database: Database,
    statements: Statements,
    pool: Pool,
    /// How long a claim may take.
    claim_within: claim::Patience,
    /// The heartbeat's connection, opened in the heartbeat's own runtime.
    heart: Mutex<Option<Client>>,
}

impl Postgres {
    /// A driver on a database, with connections of its own, opened when they are needed.
    ///
    /// # Errors
    /// Invalid if the address asks for something that cannot be had.
    pub fn new(database: Database) -> Result<Postgres> {
        Ok(Postgres {
            statements: Statements::new(database.schema()),
            pool: database.pool_with(&[SETTINGS, ASYNCHRONOUS], CONNECTIONS)?,
            claim_within: claim::Patience::default(),
            heart: Mutex::new(None),
            database,
        })
    }

    /// Wait for the disk at each claim and settlement; default no.
    ///
    /// Without it, a crash of the server (not of a worker) may undo those of its last half second or so: jobs that ran then
    /// run again, as they may after any crash. With it, fewer do; each claim and settlement takes a write to disk longer.
    /// What is enqueued, armed or administered is always as durable as the server is set to be.
    ///
    /// # Errors
    /// As in [`Postgres::new`].
    pub fn durable(mut self, durable: bool) -> Result<Postgres> {
        let commits = if durable { DURABLE } else { ASYNCHRONOUS };
        self.pool = self.database.pool_with(&[SETTINGS, commits], CONNECTIONS)?;
        Ok(self)
    }

    /// One of the short statements.
    async fn query(&self, what: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.query_within(ANSWER_WITHIN, what, sql, params).await
    }

    async fn query_within(
        &self,
        patience: Duration,
        what: &str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let client = take(&self.pool, self.database.address()).await?;
        let answer = async { client.query(&client.prepare_cached(sql).await?, params).await };
        match tokio::time::timeout(patience, answer).await {
            Ok(answer) => answer.map_err(|error| Error::database(what, error)),
            Err(_) => {
                // It may be cut off without a sign of it.
                drop(Object::take(client));
                Err(Error::unavailable(format!("{what}: the server did not answer within {patience:?}")))
            }
        }
    }

    /// The transactions that may have enqueued already and not committed yet.
    async fn silent(&self) -> Result<Vec<Silent>> {
        let rows = self.query("look for silent transactions", &self.statements.silent_transactions, &[]).await?;
        Ok(rows.iter().map(|row| Silent(row.get(0))).collect())
    }

    /// Runs one statement on the heartbeat's connection, which is opened anew after any error.
    async fn on_heart<T>(&self, run: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
        let mut heart = self.heart.lock().await;
        let client = match heart.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => open(&self.database).await?,
        };
        let answer = tokio::time::timeout(HEART_ANSWERS_WITHIN, run(&client)).await;
        let answer = answer.unwrap_or_else(|_| Err(Error::unavailable("beat: the server does not answer")));
        if answer.is_ok() {
            *heart = Some(client);
        }
        answer
    }
}

/// A session of the driver's own, driven by the runtime that asks for it.
async fn open(database: &Database) -> Result<Client> {
    let (client, connection) = connect::open(database.address()).await?;
    tokio::spawn(connection);
    // A heartbeat that a crash undoes is as good as one that came a moment earlier.
    let settings = format!(
        "{SETTINGS}; set synchronous_commit = off; set statement_timeout = '5s'; set application_name = 'reveille heartbeat'"
    );
    client.batch_execute(&settings).await.map_err(|error| Error::database("set up a session", error))?;
    Ok(client)
}

fn boxed<'a, T>(future: impl Future<Output = Result<T>> + Send + 'a) -> BoxFuture<'a, Result<T>> {
    future.boxed()
}

impl Driver for Postgres {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        boxed(async {
            let client = take(&self.pool, self.database.address()).await?;
            migrate::check(&client, self.database.schema()).await
        })
    }

    fn enqueue<'a>(&'a self, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        boxed(async {
            let client = take(&self.pool, self.database.address()).await?;
            client.insert(self.database.schema().name(), jobs).await
        })
    }

    fn register<'a>(&'a self, worker: &'a WorkerInfo) -> BoxFuture<'a, Result<()>> {
        boxed(async {
            let pid = i32::try_from(worker.pid).unwrap_or_default();
            let slots = i32::try_from(worker.slots).unwrap_or(i32::MAX);
            let version = env!("CARGO_PKG_VERSION");
            let params: [&(dyn ToSql + Sync); 6] = [&worker.id, &worker.host, &pid, &version, &worker.queues, &slots];
            self.query("register the worker", &self.statements.register, &params).await.map(drop)
        })
    }

    fn claim<'a>(&'a self, worker: i64, queue: &'a str, limit: usize, from: Marks) -> BoxFuture<'a, Result<Claimed>> {
        boxed(claim::claim(self, worker, queue, limit, from))
    }

    fn heads<'a>(&'a self, queue: &'a str, from: Marks) -> BoxFuture<'a, Result<Marks>> {
        boxed(claim::heads(self, queue, from))
    }

    fn arm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<Vec<Silent>>> {
        boxed(async move {
            self.query("arm the bell", &self.statements.arm, &[&worker, &queue]).await?;
            self.silent().await
        })
    }

    fn still_silent<'a>(&'a self, silent: &'a [Silent]) -> BoxFuture<'a, Result<Vec<Silent>>> {
        boxed(async move {
            let now = self.silent().await?;
            Ok(silent.iter().filter(|transaction| now.contains(transaction)).cloned().collect())
        })
    }

    fn disarm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<()>> {
        boxed(async move { self.query("disarm the bell", &self.statements.disarm, &[&worker, &queue]).await.map(drop) })
    }

    fn complete_in<'a>(
        &'a self,
        transaction: &'a tokio_postgres::Transaction<'_>,
        reservation: &'a Reservation,
        ran: Duration,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        boxed(async move {
            let Reservation { id, worker, attempt, reserved_at } = reservation;
            let seconds = ran.as_secs_f64();
            let params: [(&(dyn ToSql + Sync), Type); 5] = [
                (id, Type::INT8),
                (worker, Type::INT8),
                (attempt, Type::INT4),
                (reserved_at, Type::TIMESTAMPTZ),
                (&seconds, Type::FLOAT8),
            ];
            let rows = transaction.query_typed(&self.statements.complete, &params).await;
            let rows = rows.map_err(|error| Error::database("complete the job", error))?;
            Ok(rows.first().map(|row| row.get("transaction")))
        })
    }

    fn is_recorded<'a>(
        &'a self,
        transaction: &'a str,
        reservation: &'a Reservation,
    ) -> BoxFuture<'a, Result<Option<bool>>> {
        boxed(async move {
            let Reservation { id, worker, attempt, reserved_at } = reservation;
            let params: [&(dyn ToSql + Sync); 5] = [&transaction, id, worker, attempt, reserved_at];
            let rows = self.query("look for a completion", &self.statements.is_recorded, &params).await?;
            Ok(rows.first().and_then(|row| row.get("recorded")))
        })
    }

    fn settle<'a>(&'a self, settlements: &'a [Settlement]) -> BoxFuture<'a, Result<Vec<bool>>> {
        boxed(async {
            let settled = settle::settle(self, settlements).await?;
            Ok(settlements.iter().map(|settlement| settled.contains(&settlement.reservation.id)).collect())
        })
    }

    fn beat(&self, worker: i64, stopping: bool) -> BoxFuture<'_, Result<Beat>> {
        boxed(self.on_heart(async move |client| {
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(&worker, Type::INT8), (&stopping, Type::BOOL)];
            let failed = |error| Error::database("beat", error);
            let rows = client.query_typed(&self.statements.beat, &params).await.map_err(failed)?;
            let row = rows.first().ok_or_else(|| Error::unavailable("beat: the server gave no answer"))?;
            let ids: Vec<i64> = row.get("peers");
            let seen: Vec<SystemTime> = row.get("seen");
            let peers = ids.into_iter().zip(seen).map(|(id, last_seen_at)| Peer { id, last_seen_at }).collect();
            let sharing = usize::try_from(row.get::<_, i64>("sharing")).unwrap_or_default();
            Ok(Beat { alive: row.get("alive"), peers, gone: row.get("gone"), sharing, cancel: row.get("cancel") })
        }))
    }

    fn rescue<'a>(&'a self, worker: i64, dead: &'a [Peer]) -> BoxFuture<'a, Result<Rescue>> {
        boxed(self.on_heart(async move |client| {
            let ids: Vec<i64> = dead.iter().map(|peer| peer.id).collect();
            let seen: Vec<SystemTime> = dead.iter().map(|peer| peer.last_seen_at).collect();
            let params: [(&(dyn ToSql + Sync), Type); 3] =
                [(&ids, Type::INT8_ARRAY), (&seen, Type::TIMESTAMPTZ_ARRAY), (&worker, Type::INT8)];
            let rows = client
                .query_typed(&self.statements.rescue, &params)
                .await
                .map_err(|error| Error::database("rescue jobs", error))?;
            let mut rescue = Rescue::default();
            for row in rows {
                match (row.get("worker"), row.get("job")) {
                    (_, Some(job)) => rescue.jobs.push(job),
                    (Some(worker), None) => rescue.workers.push(worker),
                    (None, None) => {}
                }
            }
            Ok(rescue)
        }))
    }

    fn release_strays<'a>(&'a self, worker: i64, held: &'a [i64]) -> BoxFuture<'a, Result<Vec<i64>>> {
        boxed(async move {
            let rows = self.query("release strays", &self.statements.release_strays, &[&worker, &held]).await?;
            Ok(rows.iter().map(|row| row.get("id")).collect())
        })
    }

    fn leave(&self, worker: i64) -> BoxFuture<'_, Result<()>> {
        boxed(async move { self.query("take leave", &self.statements.leave, &[&worker]).await.map(drop) })
    }

    fn listen(&self, worker: i64) -> BoxFuture<'_, Result<BoxStream<'static, Result<Signal>>>> {
        boxed(listen::listen(self.database.clone(), self.statements.vouch.to_string(), worker))
    }

    fn prune(&self) -> BoxFuture<'_, Result<()>> {
        boxed(async { self.query_within(SLOW_ANSWER_WITHIN, "prune", &self.statements.prune, &[]).await.map(drop) })
    }
}

impl Executor for Postgres {
    fn insert<'a>(&'a self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        Driver::enqueue(self, jobs)
    }

    fn copy<'a>(&'a self, schema: &'a str, jobs: &'a mut Jobs<'_>) -> BoxFuture<'a, Result<u64>> {
        self.database.copy(schema, jobs)
    }
}

impl IntoDriver for Database {
    fn into_driver(self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Postgres::new(self)?))
    }
}
