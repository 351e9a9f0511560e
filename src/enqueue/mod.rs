//! Sending jobs.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Map, Value};

use crate::database::enqueue_on::EnqueueOn;
use crate::error::{Error, Result};
use crate::handler::extract::{Context, Extract};
use crate::handler::middleware::{Middleware, Middlewares};
use crate::job::{Due, Enqueueable, Enqueued, MAX_PAYLOAD, NewJob, Priority, UniqueMode, UniqueUntil};

pub(crate) mod await_end;

pub use await_end::{Awaiter, Ended, Finished};

/// Enqueue a job; await it, after any options. A [`NewJob`] serves for kinds that have no type here.
///
/// On a transaction the job exists once it commits, and never if it does not: enqueue where you write what the job is
/// about.
///
/// In a handler, the new job's `parent_id` is the job that the handler works, whatever it is enqueued on. Tasks that
/// the handler spawns and handlers of batches do not know that job: there the [`enqueuer`](Context::enqueuer) of its
/// context does.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
/// # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
/// # async fn signup(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let tx = client.transaction().await?;
/// let user_id = tx.query_one("insert into users default values returning id", &[]).await?.get(0);
/// reveille::enqueue(&tx, &SendWelcome { user_id }).delay(Duration::from_secs(60)).await?;
/// tx.commit().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Invalid, before anything is sent, if the job could not be stored (a name too long, a payload too large); else what
/// the server says.
pub fn enqueue<'a, E: EnqueueOn + 'a>(on: E, job: &impl Enqueueable) -> Enqueue<'a, E> {
    Enqueuer::new().enqueue(on, job)
}

/// Enqueue many jobs, all or none, in one statement; ids in order. Errors as in [`enqueue`].
///
/// Jobs with a unique key are stored in the order of their keys, whoever enqueues them, so that two such statements
/// never wait for each other in a circle; the answers are in the order of the jobs all the same.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
/// # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
/// # async fn example(client: &tokio_postgres::Client) -> reveille::Result<()> {
/// let jobs: Vec<SendWelcome> = (1..=1000).map(|user_id| SendWelcome { user_id }).collect();
/// reveille::enqueue::enqueue_all(client, &jobs).await?;
/// # Ok(())
/// # }
/// ```
pub async fn enqueue_all<'a, J: Enqueueable + 'a>(
    on: impl EnqueueOn,
    jobs: impl IntoIterator<Item = &'a J>,
) -> Result<Vec<Enqueued>> {
    Enqueuer::new().enqueue_all(on, jobs).await
}

/// Enqueue a great many jobs by COPY, all or none; returns how many.
///
/// The quickest way in, and it holds no more than a few of them in memory at a time: for an import, or a fan-out to
/// every customer. In return there are no ids and no unique keys: where these are wanted, or the jobs are a few
/// thousand at most, [`enqueue_all`] is simpler. A driver other than for Postgres enqueues them as `enqueue_all` does.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
/// # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
/// # async fn example(tx: &tokio_postgres::Transaction<'_>) -> reveille::Result<()> {
/// let jobs: Vec<SendWelcome> = (1..=1_000_000).map(|user_id| SendWelcome { user_id }).collect();
/// let enqueued = reveille::enqueue::copy_all(tx, &jobs).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Invalid if a job could not be stored, or has a unique key. Jobs are looked at as they are sent, so that a
/// transaction in which this fails can only be rolled back.
pub async fn copy_all<'a, J: Enqueueable + 'a>(
    on: impl EnqueueOn,
    jobs: impl IntoIterator<Item = &'a J, IntoIter: Send>,
) -> Result<u64> {
    Enqueuer::new().copy_all(on, jobs).await
}

/// Enqueues jobs through [middlewares](crate::handler::Middleware); cheap to clone.
///
/// Make one where the program starts, and share it. A handler gets its worker's by asking for it:
///
/// ```no_run
/// # use reveille::enqueue::Enqueuer;
/// # use reveille::{Database, Job, State, Worker};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
/// # impl Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
/// # #[derive(Serialize, Deserialize)] struct SendTips { user_id: i64 }
/// # impl Job for SendTips { const KIND: &'static str = "send_tips"; }
/// async fn send_welcome(job: SendWelcome, database: State<Database>, enqueuer: Enqueuer) -> reveille::Result<()> {
///     enqueuer.enqueue(&*database, &SendTips { user_id: job.user_id }).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone, Default)]
pub struct Enqueuer {
    middlewares: Middlewares,
    /// The job in whose handler it enqueues, where it was got from that job's context.
    parent: Option<i64>,
}

tokio::task_local! {
    /// The job whose handler this task runs, if it is stored anywhere.
    static PARENT: Option<i64>;
}

/// Runs a handler: what its task enqueues is its job's child.
pub(crate) fn in_handler_of<F: Future>(job: Option<i64>, handler: F) -> impl Future<Output = F::Output> {
    PARENT.scope(job, handler)
}

impl Enqueuer {
    /// One that does what [`enqueue`] does.
    pub fn new() -> Enqueuer {
        Enqueuer::default()
    }

    pub(crate) fn with(middlewares: Middlewares) -> Enqueuer {
        Enqueuer { middlewares, parent: None }
    }

    /// Let jobs pass through this middleware, too. The first one added is the outermost, and has a job last.
    #[must_use]
    pub fn middleware(mut self, middleware: impl Middleware) -> Enqueuer {
        self.middlewares.add(middleware);
        self
    }

    /// As [`enqueue`] does, through the middlewares. Options chained come first.
    ///
    /// # Errors
    /// Refused if a middleware refuses the job; else as in [`enqueue`].
    pub fn enqueue<'a, E: EnqueueOn + 'a>(&self, on: E, job: &impl Enqueueable) -> Enqueue<'a, E> {
        Enqueue {
            on,
            job: job.to_new_job().map(|job| self.child(job)),
            middlewares: self.middlewares.clone(),
            schema: "reveille".into(),
            max_payload: MAX_PAYLOAD,
            lives_for: PhantomData,
        }
    }

    /// As [`enqueue_all`] does, through the middlewares.
    ///
    /// # Errors
    /// Refused if a middleware refuses one of the jobs; else as in [`enqueue`].
    pub async fn enqueue_all<'a, J: Enqueueable + 'a>(
        &self,
        on: impl EnqueueOn,
        jobs: impl IntoIterator<Item = &'a J>,
    ) -> Result<Vec<Enqueued>> {
        let jobs = jobs.into_iter().map(|job| self.prepare(job)).collect::<Result<Vec<NewJob>>>()?;
        let enqueued = on.insert("reveille", &jobs).await?;
        tracing::debug!(name: "jobs.enqueued", target: "reveille::enqueue", jobs = enqueued.len(), "enqueued");
        Ok(enqueued)
    }

    /// As [`copy_all`] does, through the middlewares.
    ///
    /// # Errors
    /// Refused if a middleware refuses one of the jobs; else as in [`copy_all`].
    pub async fn copy_all<'a, J: Enqueueable + 'a>(
        &self,
        on: impl EnqueueOn,
        jobs: impl IntoIterator<Item = &'a J, IntoIter: Send>,
    ) -> Result<u64> {
        let mut jobs = jobs.into_iter().map(|job| {
            let job = self.prepare(job)?;
            match job.unique_key {
                Some(_) => {
                    Err(Error::invalid("COPY cannot enqueue a job with a unique key; use enqueue or enqueue_all"))
                }
                None => Ok(job),
            }
        });
        let copied = on.copy("reveille", &mut jobs).await?;
        tracing::debug!(name: "jobs.enqueued", target: "reveille::enqueue", jobs = copied, "enqueued");
        Ok(copied)
    }

    /// A job as it would be stored.
    pub(crate) fn prepare(&self, job: &impl Enqueueable) -> Result<NewJob> {
        let job = self.middlewares.enqueue(self.child(job.to_new_job()?))?;
        job.check(MAX_PAYLOAD)?;
        Ok(job)
    }

    /// The job with the one in whose handler it is enqueued, if that is known and no other was given.
    fn child(&self, job: NewJob) -> NewJob {
        let here = || PARENT.try_with(|parent| *parent).ok().flatten();
        NewJob { parent_id: job.parent_id.or(self.parent).or_else(here), ..job }
    }
}

/// The worker's own among the values that its handlers share.
#[derive(Clone, Default)]
pub(crate) struct OfWorker(pub(crate) Enqueuer);

impl Extract for Enqueuer {
    fn extract(context: &Context) -> Enqueuer {
        context.enqueuer()
    }
}

impl Context {
    /// Enqueues jobs through the middlewares of the worker, as children of this job: also from a task that the
    /// handler spawns, and from the handler of a batch.
    pub fn enqueuer(&self) -> Enqueuer {
        Enqueuer { parent: self.stored_id(), ..self.states().get::<OfWorker>().cloned().unwrap_or_default().0 }
    }
}

/// A job about to be enqueued: chain options, then await.
#[must_use = "a job is enqueued only when this is awaited"]
pub struct Enqueue<'a, E> {
    on: E,
    job: Result<NewJob>,
    middlewares: Middlewares,
    schema: String,
    max_payload: usize,
    /// The future that this becomes holds `on`, and must say for how long.
    lives_for: PhantomData<&'a ()>,
}

impl<E> Enqueue<'_, E> {
    fn set(mut self, set: impl FnOnce(&mut NewJob)) -> Self {
        if let Ok(job) = &mut self.job {
            set(job);
        }
        self
    }

    /// Into this queue, instead of its kind's.
    pub fn queue(self, queue: impl Into<String>) -> Self {
        self.set(|job| job.queue = queue.into())
    }

    /// Not before this long after now.
    pub fn delay(self, delay: Duration) -> Self {
        self.set(|job| job.due = Due::In(delay))
    }

    /// Not before this time, by the database's clock.
    pub fn at(self, time: SystemTime) -> Self {
        self.set(|job| job.due = Due::At(time))
    }

    /// Before or after others of its queue.
    pub fn priority(self, priority: Priority) -> Self {
        self.set(|job| job.priority = priority)
    }

    /// Dead after this many failures, at least 1.
    pub fn max_attempts(self, max_attempts: u32) -> Self {
        self.set(|job| job.max_attempts = max_attempts)
    }

    /// One attempt may take this long.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|job| job.timeout = Some(timeout))
    }

    /// Only if no other job of its kind holds this key; else none is added and [`Enqueued::existed`] is true.
    pub fn unique_key(self, key: impl Into<String>) -> Self {
        self.set(|job| job.unique_key = Some(key.into()))
    }

    /// Only if no other job of its kind has the same payload, by a unique key made of it.
    pub fn unique_by_payload(mut self) -> Self {
        self.job = self.job.and_then(NewJob::unique_by_payload);
        self
    }

    /// Only if there is no other job of its kind that is unique in this way.
    pub fn unique_by_kind(mut self) -> Self {
        self.job = self.job.map(NewJob::unique_by_kind);
        self
    }

    /// What happens to the job that holds the unique key; default: it is kept as it is.
    pub fn unique_mode(self, mode: UniqueMode) -> Self {
        self.set(|job| job.unique_mode = mode)
    }

    /// Until when it holds its unique key; default: until it has ended.
    pub fn unique_until(self, until: UniqueUntil) -> Self {
        self.set(|job| job.unique_until = until)
    }

    /// Holds its unique key until it has ended and this long has passed since it was enqueued.
    pub fn unique_for(self, period: Duration) -> Self {
        self.unique_until(UniqueUntil::Period(period))
    }

    /// What it belongs to, such as a tenant or an account.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.set(|job| job.key = Some(key.into()))
    }

    /// A free label; may be called up to 64 times.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.set(|job| job.tags.push(tag.into()))
    }

    /// Free facts about the job, such as a trace context.
    pub fn metadata(self, metadata: Map<String, Value>) -> Self {
        self.set(|job| job.metadata = Some(metadata))
    }

    /// Refuse a payload above this many bytes; default 1 MiB. The table takes 8 MiB at most.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Into the tables of this schema, instead of `reveille`. A [`Database`](crate::Database) or driver knows its own.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
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
            let enqueued = self.on.insert(&self.schema, std::slice::from_ref(&job)).await?;
            let no_answer = || Error::unavailable("enqueue: the server gave no answer");
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
