//! What a job can be enqueued on.

use futures::FutureExt;
use futures::future::BoxFuture;

use tokio_postgres::GenericClient;

use crate::database::Database;
use crate::database::connect::has_met_pooler;
use crate::database::copy::copy;
use crate::database::insert::{Insert, enqueued};
use crate::database::schema::Schema;
use crate::error::{Error, Result};
use crate::job::{Enqueued, NewJob};

/// Something to enqueue on: a client or a transaction of tokio-postgres or deadpool-postgres, a [`Database`], or a
/// driver.
///
/// On a transaction the jobs exist once it commits, and never if it does not.
pub trait Executor: Sync {
    /// Store jobs, all or none; one answer a job, in order. The schema is for clients, which do not know it: others do.
    #[doc(hidden)]
    fn insert<'a>(&'a self, schema: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>;

    /// Store a great many jobs, all or none; returns how many.
    #[doc(hidden)]
    fn copy<'a>(&'a self, schema: &'a str, jobs: &'a mut Jobs<'_>) -> BoxFuture<'a, Result<u64>> {
        async move { Ok(self.insert(schema, &jobs.collect::<Result<Vec<_>>>()?).await?.len() as u64) }.boxed()
    }
}

/// Jobs, one after another.
#[doc(hidden)]
pub type Jobs<'a> = dyn Iterator<Item = Result<NewJob>> + Send + 'a;

/// Clients of tokio-postgres keep no statements, so the statement goes in one round trip, unnamed.
macro_rules! insert_unnamed {
    ($($client:ty),+) => {$(
        impl Executor for $client {
            fn insert<'a>(&'a self, schema: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
                async move {
                    let Some(insert) = Insert::of(&Schema::new(schema)?, jobs) else { return Ok(Vec::new()) };
                    enqueued(self.query_typed(&insert.sql, &insert.typed()).await)
                }
                .boxed()
            }

            fn copy<'a>(&'a self, schema: &'a str, jobs: &'a mut Jobs<'_>) -> BoxFuture<'a, Result<u64>> {
                copy(self.client(), schema, jobs).boxed()
            }
        }
    )+};
}

/// Clients of deadpool-postgres keep theirs prepared, unless this process has met a pooler.
macro_rules! insert_prepared {
    ($($client:ty),+) => {$(
        impl Executor for $client {
            fn insert<'a>(&'a self, schema: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
                async move {
                    let Some(insert) = Insert::of(&Schema::new(schema)?, jobs) else { return Ok(Vec::new()) };
                    if has_met_pooler() {
                        return enqueued(self.query_typed(&insert.sql, &insert.typed()).await);
                    }
                    let (types, params) = insert.prepared();
                    let rows = async { self.query(&self.prepare_typed_cached(&insert.sql, &types).await?, &params).await };
                    enqueued(rows.await)
                }
                .boxed()
            }

            fn copy<'a>(&'a self, schema: &'a str, jobs: &'a mut Jobs<'_>) -> BoxFuture<'a, Result<u64>> {
                copy(self.client(), schema, jobs).boxed()
            }
        }
    )+};
}

insert_unnamed!(tokio_postgres::Client, tokio_postgres::Transaction<'_>);
insert_prepared!(deadpool_postgres::Client, deadpool_postgres::Transaction<'_>);

impl Executor for Database {
    fn insert<'a>(&'a self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        async move { self.client().await?.insert(self.schema().name(), jobs).await }.boxed()
    }

    fn copy<'a>(&'a self, _: &'a str, jobs: &'a mut Jobs<'_>) -> BoxFuture<'a, Result<u64>> {
        async move {
            let mut client = self.client().await?;
            // One transaction, one session.
            let failed = |error| Error::database("enqueue", error);
            let transaction = client.transaction().await.map_err(failed)?;
            let copied = transaction.copy(self.schema().name(), jobs).await?;
            transaction.commit().await.map_err(failed)?;
            Ok(copied)
        }
        .boxed()
    }
}
