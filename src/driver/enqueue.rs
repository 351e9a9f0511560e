//! Enqueuing on any driver.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Driver;
use crate::database::enqueue_on::{EnqueueOn, Jobs};
use crate::error::Result;
use crate::job::{Enqueued, LinkedJobs, NewJob, Payload};

impl<D: Driver + ?Sized> EnqueueOn for &D {
    fn insert<'a>(self, _: &'a str, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>>
    where
        Self: 'a,
    {
        Driver::enqueue(self, jobs)
    }

    fn copy<'a>(self, schema: &'a str, jobs: &'a mut Jobs<'a>) -> BoxFuture<'a, Result<u64>>
    where
        Self: 'a,
    {
        if let Some(postgres) = self.postgres() {
            return postgres.database().copy(schema, jobs);
        }
        async move {
            let jobs = jobs.collect::<Result<Vec<_>>>()?;
            Ok(Driver::enqueue(self, &jobs).await?.len() as u64)
        }
        .boxed()
    }

    fn insert_linked<'a>(self, _: &'a str, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>>
    where
        Self: 'a,
    {
        Driver::enqueue_linked(self, jobs)
    }

    fn emit<'a>(self, _: &'a str, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>>
    where
        Self: 'a,
    {
        Driver::emit(self, event, payload)
    }
}
