//! The things on which a job can be enqueued.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use crate::database::Database;
use crate::database::connect::has_met_pooler;
use crate::database::copy::copy;
use crate::database::insert::{Insert, enqueued, enqueued_one};
use crate::database::schema::Schema;
use crate::error::{Error, Result};
use crate::job::{Enqueued, LinkedJobs, NewJob, Payload};

/// Something to enqueue on: a reference to a client or a transaction of tokio-postgres or deadpool-postgres, to a
/// [`Database`], or to a driver.
///
/// With the feature `sqlx`, it is also `&pool` of sqlx, or `&mut *tx`, where `tx` is a transaction or a connection of
/// sqlx.
///
/// Jobs that are enqueued on a transaction exist once the transaction commits. If it rolls back, they never exist.
///
/// The trait is implemented for references, and takes `self` by value, so that it can also be implemented for `&mut
/// Client`, as sqlx needs it. For a store outside this crate, implement the trait like this:
///
/// ```
/// use reveille::database::EnqueueOn;
/// use reveille::handler::BoxFuture;
/// use reveille::job::{Enqueued, NewJob};
/// # use reveille::driver::Memory;
/// use reveille::driver::Driver;
///
/// struct Store {
/// #   memory: Memory,
///     // …
/// }
/// # impl Store {
/// #   fn driver(&self) -> &impl Driver { &self.memory }
/// # }
///
/// impl EnqueueOn for &Store {
///     fn insert<'a>(self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, reveille::Result<Vec<Enqueued>>>
///     where
///         Self: 'a,
///     {
///         self.driver().enqueue(jobs)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a job cannot be enqueued on `{Self}`",
    label = "not a client, a transaction, a `Database` or a driver",
    note = "pass a reference: `&client`, `&transaction`, `&database` or `&driver`",
    note = "clients and transactions are those of the versions of tokio-postgres \
        or deadpool-postgres that Reveille uses",
    note = "with the feature `sqlx`, pass `&pool`, or `&mut *transaction` or `&mut *connection`, of sqlx 0.9"
)]
pub trait EnqueueOn: Send + Sized {
    /// Stores all of the jobs or none. Returns one answer for each job, in the order of the jobs.
    ///
    /// The jobs have passed their middleware and were checked. `schema` is the name of the schema in which a client
    /// finds Reveille's tables. A [`Database`] or a driver knows its own schema and ignores this argument.
    fn insert<'a>(self, schema: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
    where
        Self: 'a;

    /// Stores all of a great many jobs or none, in the quickest way. Returns the number of jobs.
    ///
    /// The jobs have no unique keys. The first error among the jobs ends the copy, and nothing is stored. The default
    /// implementation collects the jobs and [inserts](EnqueueOn::insert) them.
    fn copy<'a>(self, schema: &'a str, jobs: &'a mut Jobs<'a>) -> BoxFuture<'a, Result<u64>>
    where
        Self: 'a,
    {
        async move {
            let jobs = jobs.collect::<Result<Vec<_>>>()?;
            Ok(self.insert(schema, &jobs).await?.len() as u64)
        }
        .boxed()
    }

    /// Stores linked jobs, all or none: the jobs of a workflow, or a job that waits for others. Returns the id of the
    /// workflow or of the job.
    ///
    /// The default implementation refuses: the store has no linked jobs.
    fn insert_linked<'a>(self, schema: &'a str, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>>
    where
        Self: 'a,
    {
        let _ = (schema, jobs);
        async { Err(Error::invalid("this store has no workflows, and no jobs that wait for others")) }.boxed()
    }

    /// Emits an event. Returns false, and changes nothing, if an event of this name was emitted before.
    ///
    /// `schema` is as in [`insert`](EnqueueOn::insert). The default implementation refuses: the store has no events.
    fn emit<'a>(self, schema: &'a str, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>>
    where
        Self: 'a,
    {
        let _ = (schema, event, payload);
        ready(Err(Error::invalid("this store keeps no events"))).boxed()
    }
}

/// Jobs to copy, one after another. In place of a job that cannot be enqueued, there is an error.
pub type Jobs<'a> = dyn Iterator<Item = Result<NewJob>> + Send + 'a;

/// Emits an event. A client of tokio-postgres sends the statement unnamed, in one round trip.
async fn emit(client: &Client, schema: &str, event: &str, payload: &Payload) -> Result<bool> {
    let sql = Schema::new(schema)?.apply(include_str!("../../sql/emit.sql"));
    let rows = client.query_typed(&sql, &[(&event, Type::TEXT), (payload, Type::JSONB)]).await;
    let rows = rows.map_err(|error| Error::database("emit an event", error))?;
    Ok(rows.first().is_some_and(|row| row.get("first")))
}

/// Implements the trait for clients of tokio-postgres. They keep no prepared statements, so the statement is sent
/// unnamed, in one round trip.
macro_rules! insert_unnamed {
    ($($client:ty),+) => {$(
        impl EnqueueOn for &$client {
            fn insert<'a>(self, schema: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
            where
                Self: 'a,
            {
                async move {
                    let Some(insert) = Insert::of(&Schema::new(schema)?, jobs) else { return Ok(Vec::new()) };
                    enqueued(self.query_typed(&insert.sql, &insert.typed()).await)
                }
                .boxed()
            }

            fn copy<'a>(self, schema: &'a str, jobs: &'a mut Jobs<'a>) -> BoxFuture<'a, Result<u64>>
            where
                Self: 'a,
            {
                copy(self.client(), schema, jobs).boxed()
            }

            fn insert_linked<'a>(self, schema: &'a str, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>>
            where
                Self: 'a,
            {
                async move {
                    let insert = Insert::of_linked(&Schema::new(schema)?, jobs)?;
                    enqueued_one(self.query_typed(&insert.sql, &insert.typed()).await)
                }
                .boxed()
            }

            fn emit<'a>(self, schema: &'a str, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>>
            where
                Self: 'a,
            {
                emit(self.client(), schema, event, payload).boxed()
            }
        }
    )+};
}

/// Implements the trait for clients of deadpool-postgres. They keep statements prepared, unless this process has met a
/// pooler.
macro_rules! insert_prepared {
    ($($client:ty),+) => {$(
        impl EnqueueOn for &$client {
            fn insert<'a>(self, schema: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
            where
                Self: 'a,
            {
                async move {
                    let Some(insert) = Insert::of(&Schema::new(schema)?, jobs) else { return Ok(Vec::new()) };
                    if has_met_pooler() {
                        return enqueued(self.query_typed(&insert.sql, &insert.typed()).await);
                    }
                    let (types, params) = insert.prepared();
                    let rows = async {
                        let statement = self.prepare_typed_cached(&insert.sql, &types).await?;
                        self.query(&statement, &params).await
                    };
                    enqueued(rows.await)
                }
                .boxed()
            }

            fn copy<'a>(self, schema: &'a str, jobs: &'a mut Jobs<'a>) -> BoxFuture<'a, Result<u64>>
            where
                Self: 'a,
            {
                copy(self.client(), schema, jobs).boxed()
            }

            fn insert_linked<'a>(self, schema: &'a str, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>>
            where
                Self: 'a,
            {
                // Workflows are too seldom to keep their statement prepared.
                let client: &tokio_postgres::Client = self.client();
                client.insert_linked(schema, jobs)
            }

            fn emit<'a>(self, schema: &'a str, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>>
            where
                Self: 'a,
            {
                emit(self.client(), schema, event, payload).boxed()
            }
        }
    )+};
}

insert_unnamed!(tokio_postgres::Client, tokio_postgres::Transaction<'_>);
insert_prepared!(deadpool_postgres::Client, deadpool_postgres::Transaction<'_>);

impl EnqueueOn for &Database {
    fn insert<'a>(self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
    where
        Self: 'a,
    {
        async move {
            let client = self.client().await?;
            client.insert(self.schema().name(), jobs).await
        }
        .boxed()
    }

    fn copy<'a>(self, _: &'a str, jobs: &'a mut Jobs<'a>) -> BoxFuture<'a, Result<u64>>
    where
        Self: 'a,
    {
        async move {
            let mut client = self.client().await?;
            // COPY takes two statements, and both must run in one session.
            let failed = |error| Error::database("enqueue", error);
            let transaction = client.transaction().await.map_err(failed)?;
            let copied = copy(transaction.client(), self.schema().name(), jobs).await?;
            transaction.commit().await.map_err(failed)?;
            Ok(copied)
        }
        .boxed()
    }

    fn insert_linked<'a>(self, _: &'a str, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>>
    where
        Self: 'a,
    {
        async move {
            let client = self.client().await?;
            client.insert_linked(self.schema().name(), jobs).await
        }
        .boxed()
    }

    fn emit<'a>(self, _: &'a str, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>>
    where
        Self: 'a,
    {
        async move {
            let client = self.client().await?;
            client.emit(self.schema().name(), event, payload).await
        }
        .boxed()
    }
}

impl<'c, T: ?Sized + Send + Sync> EnqueueOn for &'c Arc<T>
where
    &'c T: EnqueueOn,
{
    fn insert<'a>(self, schema: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
    where
        Self: 'a,
    {
        let inner: &'c T = self;
        inner.insert(schema, jobs)
    }

    fn copy<'a>(self, schema: &'a str, jobs: &'a mut Jobs<'a>) -> BoxFuture<'a, Result<u64>>
    where
        Self: 'a,
    {
        let inner: &'c T = self;
        inner.copy(schema, jobs)
    }

    fn insert_linked<'a>(self, schema: &'a str, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>>
    where
        Self: 'a,
    {
        let inner: &'c T = self;
        inner.insert_linked(schema, jobs)
    }

    fn emit<'a>(self, schema: &'a str, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>>
    where
        Self: 'a,
    {
        let inner: &'c T = self;
        inner.emit(schema, event, payload)
    }
}
