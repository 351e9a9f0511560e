//! A job that is about to be enqueued, with its options.

use std::borrow::Cow;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;

use crate::database::enqueue_on::EnqueueOn;
use crate::error::{Error, Result};
use crate::handler::middleware::Middlewares;
use crate::job::linked::{LinkedJobs, LinkedTarget, check_has_no_unique_key};
use crate::job::{Enqueued, FiresOn, MAX_PAYLOAD, NewJob, Priority, UniqueMode, UniqueUntil};

/// The jobs that a job waits for.
#[derive(Debug, Clone, Default)]
struct After {
    ids: Vec<i64>,
    fires_on: FiresOn,
    cancel_if_dead: bool,
    needs_one: bool,
}

/// A job that is about to be enqueued: chain options, then await it.
#[must_use = "a job is enqueued only when this is awaited"]
pub struct Enqueue<'a, E> {
    on: E,
    job: Result<NewJob>,
    middlewares: Middlewares,
    schema: Cow<'static, str>,
    max_payload: usize,
    after: Option<After>,
    /// The lifetime of `on`. The type of the enqueuing future has to name this lifetime.
    lifetime: PhantomData<&'a ()>,
}

impl<E> Enqueue<'_, E> {
    pub(super) fn new(on: E, job: Result<NewJob>, middlewares: Middlewares, schema: Cow<'static, str>) -> Self {
        Enqueue { on, job, middlewares, schema, max_payload: MAX_PAYLOAD, after: None, lifetime: PhantomData }
    }

    fn change(self, change: impl FnOnce(NewJob) -> NewJob) -> Self {
        self.try_change(|job| Ok(change(job)))
    }

    fn try_change(self, change: impl FnOnce(NewJob) -> Result<NewJob>) -> Self {
        Enqueue { job: self.job.and_then(change), ..self }
    }

    /// Sends the job to this queue, instead of the queue of its kind.
    pub fn queue(self, queue: impl Into<String>) -> Self {
        self.change(|job| job.queue(queue))
    }

    /// Makes the job due after this delay.
    pub fn delay(self, delay: Duration) -> Self {
        self.change(|job| job.delay(delay))
    }

    /// Makes the job due at this time, by the database's clock.
    pub fn at(self, time: SystemTime) -> Self {
        self.change(|job| job.at(time))
    }

    /// Sets the priority, which decides whether the job starts before or after other jobs of its queue.
    pub fn priority(self, priority: Priority) -> Self {
        self.change(|job| job.priority(priority))
    }

    /// Sets the number of failures after which the job is dead; at least 1.
    pub fn max_attempts(self, max_attempts: u32) -> Self {
        self.change(|job| job.max_attempts(max_attempts))
    }

    /// Sets the timeout of each attempt; at least a microsecond.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.change(|job| job.timeout(timeout))
    }

    /// Adds the job only if no other job of its kind holds this unique key, 1 to 512 bytes. If another job holds the
    /// unique key, [`Enqueued::existed`] is true.
    pub fn unique_key(self, key: impl Into<String>) -> Self {
        self.change(|job| job.unique_key(key))
    }

    /// Adds the job only if no other job of its kind is unique by the same payload. The unique key is a hash of the
    /// payload.
    pub fn unique_by_payload(self) -> Self {
        self.try_change(NewJob::unique_by_payload)
    }

    /// Adds the job only if no other job of its kind is unique by its kind. All jobs of the kind that use this option
    /// have the same unique key.
    pub fn unique_by_kind(self) -> Self {
        self.change(NewJob::unique_by_kind)
    }

    /// Sets what happens to the other job that already holds the unique key; [`UniqueMode::Keep`] by default.
    pub fn unique_mode(self, mode: UniqueMode) -> Self {
        self.change(|job| job.unique_mode(mode))
    }

    /// Sets the end of the time in which the job holds its unique key; [`UniqueUntil::Finished`] by default.
    pub fn unique_until(self, until: UniqueUntil) -> Self {
        self.change(|job| job.unique_until(until))
    }

    /// Lets the job hold its unique key for this period after the enqueue, and in any case until the job has ended.
    pub fn unique_for(self, period: Duration) -> Self {
        self.unique_until(UniqueUntil::Period(period))
    }

    /// Sets the job's key, such as the tenant that the job belongs to; 1 to 512 bytes.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.change(|job| job.key(key))
    }

    /// Adds a tag; a job has at most 64 tags.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.change(|job| job.tag(tag))
    }

    /// Adds metadata: further facts about the job, such as a trace context. The value must serialize to a JSON object.
    ///
    /// Awaiting the enqueue fails if the value serializes to anything else, or to JSON that Postgres cannot store. Pass
    /// a [`Payload`](crate::job::Payload) to keep all digits of numbers.
    pub fn metadata(self, metadata: impl Serialize) -> Self {
        self.try_change(|job| job.metadata(&metadata))
    }

    /// Refuses a payload of more than this number of bytes; 1 MiB by default, or as the
    /// [`Enqueuer`](super::Enqueuer::max_payload) is set. The table takes payloads of at most 8 MiB.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Lets the job wait until the jobs with these ids are completed. While one of them is dead, the job waits until
    /// that job is revived or purged. If one of them is cancelled, the job is cancelled, too.
    ///
    /// The job cannot have a unique key, and its delay counts from the last end.
    pub fn after(self, ids: impl IntoIterator<Item = i64>) -> Self {
        self.wait(ids, FiresOn::Completed)
    }

    /// Lets the job wait for this outcome of the jobs with these ids. If another outcome comes, the job is cancelled.
    /// A second call, or a call of [`after`](Enqueue::after), replaces the first.
    pub fn after_outcome(self, fires_on: FiresOn, ids: impl IntoIterator<Item = i64>) -> Self {
        self.wait(ids, fires_on)
    }

    /// Cancels the job once one of the jobs that it waits for is dead, instead of waiting until that job is revived.
    pub fn cancel_if_dead(self) -> Self {
        let after = After { cancel_if_dead: true, ..self.after.unwrap_or_default() };
        Enqueue { after: Some(after), ..self }
    }

    /// Starts the job once the first of the jobs that it waits for has the outcome.
    pub fn on_first(self) -> Self {
        let after = After { needs_one: true, ..self.after.unwrap_or_default() };
        Enqueue { after: Some(after), ..self }
    }

    fn wait(self, ids: impl IntoIterator<Item = i64>, fires_on: FiresOn) -> Self {
        let after = After { ids: ids.into_iter().collect(), fires_on, ..self.after.unwrap_or_default() };
        Enqueue { after: Some(after), ..self }
    }

    /// Enqueues into the tables of this schema, instead of the schema of the [`Enqueuer`](super::Enqueuer).
    ///
    /// A [`Database`](crate::Database) or a driver knows its own schema and ignores this option.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Cow::Owned(schema.into());
        self
    }
}

impl<'a, E: EnqueueOn + 'a> IntoFuture for Enqueue<'a, E> {
    type Output = Result<Enqueued>;
    type IntoFuture = BoxFuture<'a, Result<Enqueued>>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let job = self.middlewares.enqueue(self.job?)?;
            job.check(self.max_payload)?;
            if let Some(After { ids, fires_on, cancel_if_dead, needs_one }) = self.after {
                check_has_no_unique_key(&job)?;
                let target = LinkedTarget::Jobs { ids, job: Box::new(job), fires_on, cancel_if_dead, needs_one };
                return self.on.insert_linked(&self.schema, &LinkedJobs { target, jobs: Vec::new() }).await;
            }
            let enqueued = self.on.insert(&self.schema, std::slice::from_ref(&job)).await?;
            let no_answer = || Error::unavailable("cannot enqueue: the store returned no id for the job; try again");
            let Enqueued { id, existed } = enqueued.first().copied().ok_or_else(no_answer)?;
            tracing::debug!(
                name: "job.enqueued", target: "reveille::enqueue", id, kind = job.kind, queue = job.queue, existed,
                "enqueued"
            );
            Ok(Enqueued { id, existed })
        }
        .boxed()
    }
}
