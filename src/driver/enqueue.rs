//! Enqueuing on a driver, whichever it is.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Driver;
use crate::database::enqueue_on::{Executor, Jobs};
use crate::error::Result;
use crate::job::{Enqueued, NewJob};

impl<D: Driver + ?Sized> Executor for D {
    fn insert<'a>(&'a self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        Driver::enqueue(self, jobs)
    }

    fn copy<'a>(&'a self, schema: &'a str, jobs: &'a mut Jobs<'_>) -> BoxFuture<'a, Result<u64>> {
        async move {
            match self.postgres() {
                Some(postgres) => postgres.database().copy(schema, jobs).await,
                None => Ok(Driver::enqueue(self, &jobs.collect::<Result<Vec<_>>>()?).await?.len() as u64),
            }
        }
        .boxed()
    }
}
