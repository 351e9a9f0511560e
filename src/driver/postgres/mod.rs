//! Jobs in Postgres: the driver that Reveille is for.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use deadpool_postgres::Pool;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::Mutex;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::{Beat, Driver, IntoDriver, Peer, Rescue, Settlement, Signal, WorkerInfo};
use crate::database::{Database, connect, migrate, take};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::job::{Enqueued, NewJob, Priority, Reservation, ReservedJob};

mod listen;
mod settle;
pub(crate) mod statements;

use statements::Statements;

/// What the worker's sessions are set to, whatever the database's owner has set for others: one row at a time by index,
/// planned once. The tables are churned too fast for the planner's statistics to be of use.
const SETTINGS: &str = "set default_transaction_isolation = 'read committed'; set jit = off; \
    set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off; \
    set application_name = 'reveille worker'; set statement_timeout = '30s'; set lock_timeout = 0; set idle_in_transaction_session_timeout = 0";

/// How many connections one worker uses to claim and to settle.
const CONNECTIONS: usize = 4;

/// The driver for Postgres.
pub struct Postgres {
    database: Database,
    statements: Statements,
    pool: Pool,
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
            pool: database.pool_with(SETTINGS, CONNECTIONS)?,
            heart: Mutex::new(None),
            database,
        })
    }

    async fn query(&self, what: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let client = take(&self.pool, self.database.address()).await?;
        let failed = |error| Error::database(what, error);
        let statement = client.prepare_cached(sql).await.map_err(failed)?;
        client.query(&statement, params).await.map_err(failed)
    }

    /// Runs one statement on the heartbeat's connection, which is opened anew after any error.
    async fn on_heart<T>(&self, run: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
        let mut heart = self.heart.lock().await;
        let client = match heart.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => open(&self.database).await?,
        };
        let answer = run(&client).await;
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

    fn claim<'a>(&'a self, worker: i64, queue: &'a str, limit: usize) -> BoxFuture<'a, Result<Vec<ReservedJob>>> {
        boxed(async move {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = self.query("claim jobs", &self.statements.claim, &[&queue, &limit, &worker]).await?;
            let mut jobs = rows.iter().map(|row| reserved_job(row, queue, worker)).collect::<Result<Vec<_>>>()?;
            jobs.sort_by_key(|job| (job.priority, job.available_at, job.reservation.id));
            Ok(jobs)
        })
    }

    fn due_in<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<Duration>>> {
        boxed(async move {
            let rows = self.query("look for the next due job", &self.statements.due_in, &[&queue]).await?;
            let seconds: Option<f64> = rows.first().and_then(|row| row.get("seconds"));
            Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
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
            Ok(Beat { alive: row.get("alive"), peers, cancel: row.get("cancel") })
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

    fn listen(&self) -> BoxFuture<'_, Result<BoxStream<'static, Result<Signal>>>> {
        boxed(listen::listen(self.database.clone()))
    }

    fn prune(&self) -> BoxFuture<'_, Result<()>> {
        boxed(async { self.query("prune", &self.statements.prune, &[]).await.map(drop) })
    }
}

impl Executor for Postgres {
    fn insert<'a>(&'a self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        Driver::enqueue(self, jobs)
    }
}

fn reserved_job(row: &Row, queue: &str, worker: i64) -> Result<ReservedJob> {
    let unreadable = |error| Error::database("read a claimed job", error);
    let timeout: Option<f64> = row.try_get("timeout_seconds").map_err(unreadable)?;
    let count = |name| row.try_get::<_, i32>(name).map(|count| count.max(0) as u32).map_err(unreadable);
    Ok(ReservedJob {
        reservation: Reservation {
            id: row.try_get("id").map_err(unreadable)?,
            worker,
            attempt: row.try_get("attempts").map_err(unreadable)?,
            reserved_at: row.try_get("reserved_at").map_err(unreadable)?,
        },
        queue: queue.to_owned(),
        kind: row.try_get("kind").map_err(unreadable)?,
        payload: row.try_get("payload").map_err(unreadable)?,
        priority: Priority::from_level(row.try_get("priority").map_err(unreadable)?),
        failures: count("failures")?,
        max_attempts: count("max_attempts")?,
        available_at: row.try_get("available_at").map_err(unreadable)?,
        created_at: row.try_get("created_at").map_err(unreadable)?,
        key: row.try_get("key").map_err(unreadable)?,
        tags: row.try_get::<_, Option<Vec<String>>>("tags").map_err(unreadable)?.unwrap_or_default(),
        metadata: row.try_get("metadata").map_err(unreadable)?,
        timeout: timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        cancel_requested: row.try_get("cancel_requested").map_err(unreadable)?,
    })
}

impl IntoDriver for Database {
    fn into_driver(self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Postgres::new(self)?))
    }
}
