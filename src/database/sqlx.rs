//! Enqueuing and completing jobs on connections of sqlx.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::time::SystemTime;

use ::sqlx::encode::IsNull;
use ::sqlx::pool::PoolConnection;
use ::sqlx::postgres::types::Oid;
use ::sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnection, PgDatabaseError, PgPool, PgRow, PgTypeInfo};
use ::sqlx::{Arguments, AssertSqlSafe, Connection, Encode, Postgres, Row as _, Transaction};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, Type};

use super::Param;
use super::complete_in::{CompleteIn, sealed};
use super::connect::has_met_pooler;
use super::copy::{CLOCK, Row, statement};
use super::enqueue_on::{EnqueueOn, Jobs};
use super::insert::Insert;
use super::schema::Schema;
use crate::error::{Error, Failure, Result};
use crate::job::{Enqueued, LinkedJobs, NewJob, Payload};

/// Rows are sent by COPY once they fill this number of bytes.
const CHUNK: usize = 64 * 1024;
/// The beginning of COPY's binary format: its signature, no flags, and no extension.
const COPY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The end of COPY's binary format.
const COPY_END: [u8; 2] = (-1i16).to_be_bytes();

/// A parameter of a statement in Postgres' binary format, which is that of tokio-postgres, too.
struct Bound<'a>(&'a Param<'a>);

impl Encode<'_, Postgres> for Bound<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, Box<dyn StdError + Send + Sync>> {
        let (value, ty) = self.0;
        let mut bytes = BytesMut::new();
        if let tokio_postgres::types::IsNull::Yes = value.to_sql_checked(ty, &mut bytes)? {
            return Ok(IsNull::Yes);
        }
        buffer.extend_from_slice(&bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.0.1.oid())))
    }
}

impl ::sqlx::Type<Postgres> for Bound<'_> {
    /// Returns any type: each parameter says its own type.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(Type::UNKNOWN.oid()))
    }
}

/// Runs a statement. sqlx keeps it prepared, unless this process has met a pooler.
async fn query(on: &mut PgConnection, sql: &str, params: &[Param<'_>]) -> Result<Vec<PgRow>, ::sqlx::Error> {
    let mut arguments = PgArguments::default();
    for param in params {
        arguments.add(Bound(param)).map_err(::sqlx::Error::Encode)?;
    }
    // The text is a statement of this crate. Only the name of the schema varies, which was checked.
    let query = ::sqlx::query_with(AssertSqlSafe(sql), arguments);
    query.persistent(!has_met_pooler()).fetch_all(on).await
}

async fn insert(on: &mut PgConnection, schema: &str, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
    let Some(insert) = Insert::of(&Schema::new(schema)?, jobs) else { return Ok(Vec::new()) };
    let enqueued = |row: &PgRow| Ok(Enqueued { id: row.try_get("id")?, existed: row.try_get("existed")? });
    let rows = query(on, &insert.sql, &insert.typed()).await;
    let rows = rows.and_then(|rows| rows.iter().map(enqueued).collect::<Result<Vec<_>, _>>());
    rows.map_err(|error| failed("enqueue", error))
}

async fn insert_linked(on: &mut PgConnection, schema: &str, jobs: &LinkedJobs) -> Result<Enqueued> {
    let insert = Insert::of_linked(&Schema::new(schema)?, jobs)?;
    let enqueued = |row: &PgRow| Ok(Enqueued { id: row.try_get("id")?, existed: row.try_get("existed")? });
    let rows = query(on, &insert.sql, &insert.typed()).await.map_err(|error| failed("enqueue", error))?;
    let no_answer = || Error::unavailable("cannot enqueue: the server returned no row; try again");
    enqueued(rows.first().ok_or_else(no_answer)?).map_err(|error| failed("enqueue", error))
}

async fn emit(on: &mut PgConnection, schema: &str, event: &str, payload: &Payload) -> Result<bool> {
    let sql = Schema::new(schema)?.apply(include_str!("../../sql/emit.sql"));
    let rows = query(on, &sql, &[(&event, Type::TEXT), (payload, Type::JSONB)]).await;
    let first = rows.and_then(|rows| rows.first().map_or(Ok(false), |row| row.try_get("first")));
    first.map_err(|error| failed("emit an event", error))
}

async fn copy(on: &mut PgConnection, schema: &str, jobs: &mut Jobs<'_>) -> Result<u64> {
    let failed = |error| failed("enqueue", error);
    let sql = statement(schema)?;
    let clock = query(on, CLOCK, &[]).await.map_err(failed)?;
    let now = clock.first().map(time).transpose().map_err(failed)?.unwrap_or(SystemTime::UNIX_EPOCH);
    let mut sink = on.copy_in_raw(&sql).await.map_err(failed)?;
    let mut rows = BytesMut::from(&COPY_HEADER[..]);
    for job in jobs {
        let written = match job {
            Ok(job) => Row::of(job, now).write(&mut rows).map_err(|error| failed(::sqlx::Error::Encode(error))),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            sink.abort("a job cannot be enqueued").await.map_err(failed)?;
            return Err(error);
        }
        if rows.len() > CHUNK {
            sink.send(&rows[..]).await.map_err(failed)?;
            rows.clear();
        }
    }
    rows.extend_from_slice(&COPY_END);
    sink.send(&rows[..]).await.map_err(failed)?;
    sink.finish().await.map_err(failed)
}

/// Reads the time in a row's first column.
fn time(row: &PgRow) -> Result<SystemTime, ::sqlx::Error> {
    let bytes = row.try_get_raw(0)?.as_bytes().map_err(::sqlx::Error::Decode)?;
    SystemTime::from_sql(&Type::TIMESTAMPTZ, bytes).map_err(::sqlx::Error::Decode)
}

async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>> {
    pool.acquire().await.map_err(|error| failed("connect", error))
}

impl EnqueueOn for &mut PgConnection {
    fn insert<'a>(self, schema: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
    where
        Self: 'a,
    {
        insert(self, schema, jobs).boxed()
    }

    fn copy<'a>(self, schema: &'a str, jobs: &'a mut Jobs<'a>) -> BoxFuture<'a, Result<u64>>
    where
        Self: 'a,
    {
        copy(self, schema, jobs).boxed()
    }

    fn insert_linked<'a>(self, schema: &'a str, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>>
    where
        Self: 'a,
    {
        insert_linked(self, schema, jobs).boxed()
    }

    fn emit<'a>(self, schema: &'a str, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>>
    where
        Self: 'a,
    {
        emit(self, schema, event, payload).boxed()
    }
}

impl EnqueueOn for &PgPool {
    fn insert<'a>(self, schema: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
    where
        Self: 'a,
    {
        async move {
            let mut connection = acquire(self).await?;
            if !has_met_pooler() {
                return insert(&mut connection, schema, jobs).await;
            }
            // sqlx sends a statement and its parameters in two messages. Without a transaction, a pooler may pass them
            // to two sessions.
            let failed = |error| failed("enqueue", error);
            let mut transaction = connection.begin().await.map_err(failed)?;
            let enqueued = insert(&mut transaction, schema, jobs).await?;
            transaction.commit().await.map_err(failed)?;
            Ok(enqueued)
        }
        .boxed()
    }

    fn copy<'a>(self, schema: &'a str, jobs: &'a mut Jobs<'a>) -> BoxFuture<'a, Result<u64>>
    where
        Self: 'a,
    {
        async move {
            let mut connection = acquire(self).await?;
            // COPY takes two statements, and both must run in one session.
            let failed = |error| failed("enqueue", error);
            let mut transaction = connection.begin().await.map_err(failed)?;
            let copied = copy(&mut transaction, schema, jobs).await?;
            transaction.commit().await.map_err(failed)?;
            Ok(copied)
        }
        .boxed()
    }

    fn insert_linked<'a>(self, schema: &'a str, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>>
    where
        Self: 'a,
    {
        async move {
            let mut connection = acquire(self).await?;
            // Behind a pooler, the two messages of a statement must reach one session.
            let failed = |error| failed("enqueue", error);
            let mut transaction = connection.begin().await.map_err(failed)?;
            let enqueued = insert_linked(&mut transaction, schema, jobs).await?;
            transaction.commit().await.map_err(failed)?;
            Ok(enqueued)
        }
        .boxed()
    }

    fn emit<'a>(self, schema: &'a str, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>>
    where
        Self: 'a,
    {
        async move {
            let mut connection = acquire(self).await?;
            // Behind a pooler, the statement needs a transaction, as in `insert`.
            let failed = |error| failed("emit an event", error);
            let mut transaction = connection.begin().await.map_err(failed)?;
            let is_first = emit(&mut transaction, schema, event, payload).await?;
            transaction.commit().await.map_err(failed)?;
            Ok(is_first)
        }
        .boxed()
    }
}

impl CompleteIn for &mut Transaction<'_, Postgres> {}

impl sealed::RunIn for &mut Transaction<'_, Postgres> {
    fn text<'a>(&'a mut self, sql: &'a str, params: &'a [Param<'a>]) -> BoxFuture<'a, Result<Option<String>>> {
        text(self, sql, params).boxed()
    }
}

impl CompleteIn for &mut PgConnection {}

impl sealed::RunIn for &mut PgConnection {
    /// Refuses a connection without a transaction, in which the statement would be committed at once.
    fn text<'a>(&'a mut self, sql: &'a str, params: &'a [Param<'a>]) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            if !self.is_in_transaction() {
                return Err(Error::invalid(
                    "a job can only be completed in a transaction, and this connection has none; begin one",
                ));
            }
            text(self, sql, params).await
        }
        .boxed()
    }
}

async fn text(on: &mut PgConnection, sql: &str, params: &[Param<'_>]) -> Result<Option<String>> {
    let rows = query(on, sql, params).await;
    let text = rows.and_then(|rows| rows.first().map_or(Ok(None), |row| row.try_get(0)));
    text.map_err(|error| failed("complete the job", error))
}

/// Returns the error of a failed call of sqlx. `what` says what the program cannot do: "cannot {what}".
fn failed(what: &str, error: ::sqlx::Error) -> Error {
    use ::sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
    if let PoolTimedOut = error {
        // sqlx also waits in vain for a server that refuses connections.
        let message = format!(
            "cannot {what}: the pool got no connection in time; is the server running and reachable? if it is, raise \
                max_connections, or hold connections for less time"
        );
        return Error::unavailable(message).with_source(error);
    }
    let failure = match &error {
        Database(refused) => match refused.try_downcast_ref::<PgDatabaseError>() {
            Some(db) => Failure::of_server(SqlState::from_code(db.code()), db.message(), db.detail(), db.hint()),
            None => Failure::of_client(&error, false),
        },
        Io(io) if matches!(io.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound | ErrorKind::TimedOut) => {
            Failure::of_client(&error, true).while_connecting()
        }
        Io(_) | PoolClosed | WorkerCrashed => Failure::of_client(&error, true),
        Tls(_) => Failure::of_tls(&error),
        _ => Failure::of_client(&error, false),
    };
    Error::failed(what, failure).with_source(error)
}
