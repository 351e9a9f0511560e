//! Enqueues jobs, and waits for their ends.
//!
//! ```no_run
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # struct SendWelcome { user_id: i64 }
//! # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
//! # async fn example(database: reveille::Database) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use reveille::enqueue;
//!
//! let mut client = database.client().await?;
//! let tx = client.transaction().await?;
//! let welcome = enqueue(&tx, &SendWelcome { user_id: 7 }).delay(Duration::from_secs(300)).tag("signup").await?;
//! tx.commit().await?;
//!
//! let end = welcome.finished(&database).await?;
//! # drop(end);
//! # Ok(())
//! # }
//! ```
//!
//! The guide: [enqueuing](crate::guide::jobs::enqueuing), [unique jobs](crate::guide::features::unique),
//! [results](crate::guide::features::results).

use std::borrow::Cow;
use std::future::Future;

use crate::database::Database;
use crate::database::enqueue_on::EnqueueOn;
use crate::error::{Error, Result};
use crate::handler::extract::{Context, Extract};
use crate::handler::middleware::{Middleware, Middlewares};
use crate::job::{Enqueueable, Enqueued, MAX_PAYLOAD, NewJob};

pub(crate) mod await_end;
mod builder;
mod emit;
mod json;
mod run;

pub use crate::workflow::{EnqueuedWorkflow, Member, Members, Prerequisites, Workflow, WorkflowHandle};
pub use await_end::{Awaiter, FinishedJob};
pub use builder::Enqueue;
pub use emit::emit;
pub use json::to_json_all;

/// Enqueues a job. Chain options on the returned [`Enqueue`], then await it.
///
/// Enqueue a job on the transaction that writes the rows that the job is about. The job exists only once that
/// transaction commits, so it never runs without these rows. For a kind that has no type in this program, enqueue a
/// [`NewJob`].
///
/// In a handler, the new job's `parent_id` is the id of the job that the handler works. A task that the handler spawns
/// does not know that id, and neither does a handler of batches. Use the [`enqueuer`](Context::enqueuer) of the job's
/// context in these two places.
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
/// Invalid, before anything is sent, if the job cannot be stored: for example, a name is too long or the payload is too
/// large. Otherwise the server's error.
pub fn enqueue<'a, E: EnqueueOn + 'a>(on: E, job: &impl Enqueueable) -> Enqueue<'a, E> {
    Enqueuer::new().enqueue(on, job)
}

/// Enqueues many jobs in one statement, all or none. Returns one [`Enqueued`] per job, in the order of the jobs.
///
/// Jobs with unique keys are stored in the order of their unique keys, so that two calls of this function never
/// deadlock.
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
///
/// # Errors
/// As in [`enqueue`].
pub async fn enqueue_all<'a, E: EnqueueOn, J: Enqueueable + 'a>(
    on: E,
    jobs: impl IntoIterator<Item = &'a J>,
) -> Result<Vec<Enqueued>> {
    Enqueuer::new().enqueue_all(on, jobs).await
}

/// Enqueues a great many jobs by COPY, all or none. Returns the number of jobs.
///
/// This is the quickest way to enqueue. It holds only a few jobs in memory at a time. Use it for an import, or for one
/// job per customer. It returns no ids, and the jobs can have no unique keys. For up to a few thousand jobs,
/// [`enqueue_all`] is simpler. Drivers for other stores than Postgres enqueue the jobs as `enqueue_all` does.
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
/// Invalid if a job cannot be stored, or has a unique key. Each job is checked just before it is sent, so earlier jobs
/// may have been sent. After an error, the transaction can only be rolled back.
pub async fn copy_all<'a, E: EnqueueOn, J: Enqueueable + 'a>(
    on: E,
    jobs: impl IntoIterator<Item = &'a J, IntoIter: Send>,
) -> Result<u64> {
    Enqueuer::new().copy_all(on, jobs).await
}

/// Enqueues jobs through [middleware](crate::handler::Middleware), into the tables of any schema. Cheap to clone.
///
/// Make one enqueuer where the program starts, and share it: by [`Enqueuer::new`], or by [`Database::enqueuer`] for the
/// schema of a database. A handler gets its worker's enqueuer as an argument:
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
#[derive(Clone)]
pub struct Enqueuer {
    middlewares: Middlewares,
    schema: Cow<'static, str>,
    max_payload: usize,
    /// The id of the parent of the enqueued jobs, if this enqueuer comes from the context of that parent.
    parent: Option<i64>,
}

tokio::task_local! {
    /// The id of the job whose handler this task runs. `None` in a test that runs a handler without a stored job.
    static PARENT: Option<i64>;
}

/// Runs the handler of a job. The jobs that the handler's task enqueues are children of that job.
pub(crate) fn in_handler_of<F: Future>(job: Option<i64>, handler: F) -> impl Future<Output = F::Output> {
    PARENT.scope(job, handler)
}

impl Enqueuer {
    /// Returns an enqueuer without middleware, for the schema `reveille`. It enqueues as [`enqueue`] does.
    pub fn new() -> Enqueuer {
        let (middlewares, schema) = (Middlewares::default(), Cow::Borrowed("reveille"));
        Enqueuer { middlewares, schema, max_payload: MAX_PAYLOAD, parent: None }
    }

    pub(crate) fn with(middlewares: Middlewares, schema: &str) -> Enqueuer {
        Enqueuer { middlewares, ..Enqueuer::new() }.schema(schema)
    }

    /// Adds a middleware for the jobs of this enqueuer. The first one added is the outermost, and changes a job last.
    #[must_use]
    pub fn middleware(mut self, middleware: impl Middleware) -> Enqueuer {
        self.middlewares.add(middleware);
        self
    }

    /// Sets the schema into whose tables this enqueuer enqueues; `reveille` by default.
    ///
    /// This setting is for clients and transactions. A [`Database`] or a driver knows its own schema and ignores this
    /// setting.
    #[must_use]
    pub fn schema(mut self, name: impl Into<String>) -> Enqueuer {
        let name = name.into();
        self.schema = if name == "reveille" { Cow::Borrowed("reveille") } else { Cow::Owned(name) };
        self
    }

    /// Refuses payloads of more than this number of bytes, whether one job, many or a COPY is enqueued; 1 MiB by
    /// default. The table takes payloads of at most 8 MiB.
    ///
    /// [`Enqueue::max_payload`] sets the limit for one job.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Enqueuer {
        self.max_payload = bytes;
        self
    }

    /// Enqueues a job as [`enqueue`] does, through the middleware. The middleware sees the job with all chained
    /// options.
    ///
    /// # Errors
    /// Refused if a middleware refuses the job; else as in [`enqueue`].
    pub fn enqueue<'a, E: EnqueueOn + 'a>(&self, on: E, job: &impl Enqueueable) -> Enqueue<'a, E> {
        let job = job.to_new_job().map(|job| self.child(job));
        Enqueue::new(on, job, self.middlewares.clone(), self.schema.clone()).max_payload(self.max_payload)
    }

    /// Enqueues many jobs as [`enqueue_all`] does, through the middleware.
    ///
    /// # Errors
    /// Refused if a middleware refuses one of the jobs; else as in [`enqueue`].
    pub async fn enqueue_all<'a, E: EnqueueOn, J: Enqueueable + 'a>(
        &self,
        on: E,
        jobs: impl IntoIterator<Item = &'a J>,
    ) -> Result<Vec<Enqueued>> {
        let jobs = jobs.into_iter().map(|job| self.prepare(job)).collect::<Result<Vec<NewJob>>>()?;
        let enqueued = on.insert(&self.schema, &jobs).await?;
        tracing::debug!(name: "jobs.enqueued", target: "reveille::enqueue", jobs = enqueued.len(), "enqueued");
        Ok(enqueued)
    }

    /// Enqueues a great many jobs as [`copy_all`] does, through the middleware.
    ///
    /// # Errors
    /// Refused if a middleware refuses one of the jobs; else as in [`copy_all`].
    pub async fn copy_all<'a, E: EnqueueOn, J: Enqueueable + 'a>(
        &self,
        on: E,
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
        let copied = on.copy(&self.schema, &mut jobs).await?;
        tracing::debug!(name: "jobs.enqueued", target: "reveille::enqueue", jobs = copied, "enqueued");
        Ok(copied)
    }

    /// Returns the job as it is stored: changed by the middleware, and checked.
    pub(crate) fn prepare(&self, job: &impl Enqueueable) -> Result<NewJob> {
        let job = self.middlewares.enqueue(self.child(job.to_new_job()?))?;
        job.check(self.max_payload)?;
        Ok(job)
    }

    /// Sets the parent of a job that has none.
    fn child(&self, job: NewJob) -> NewJob {
        NewJob { parent_id: job.parent_id.or_else(|| self.parent()), ..job }
    }

    /// Returns the job whose handler enqueues now, if a handler does.
    pub(crate) fn parent(&self) -> Option<i64> {
        let here = || PARENT.try_with(|parent| *parent).ok().flatten();
        self.parent.or_else(here)
    }

    pub(crate) fn schema_name(&self) -> &str {
        &self.schema
    }
}

impl Default for Enqueuer {
    fn default() -> Enqueuer {
        Enqueuer::new()
    }
}

impl Database {
    /// Returns an enqueuer for the schema of this database. The enqueuer can enqueue on this database, on its clients,
    /// and on transactions of other pools.
    ///
    /// ```no_run
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
    /// # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
    /// # async fn example(database: reveille::Database) -> Result<(), Box<dyn std::error::Error>> {
    /// let enqueuer = database.enqueuer();
    /// let mut client = database.client().await?;
    /// let tx = client.transaction().await?;
    /// enqueuer.enqueue_all(&tx, &[SendWelcome { user_id: 7 }, SendWelcome { user_id: 8 }]).await?;
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn enqueuer(&self) -> Enqueuer {
        Enqueuer::new().schema(self.schema_name())
    }
}

/// The worker's enqueuer, as one of the values that the worker shares with its handlers.
#[derive(Clone)]
pub(crate) struct OfWorker(pub(crate) Enqueuer);

impl Extract for Enqueuer {
    fn extract(context: &Context) -> Enqueuer {
        context.enqueuer()
    }
}

impl Context {
    /// Returns an enqueuer for the schema of the worker's database. Its jobs pass through the worker's middleware, and
    /// are children of the job of this context.
    ///
    /// Use it in a task that the handler spawns, and in a handler of batches.
    pub fn enqueuer(&self) -> Enqueuer {
        let enqueuer = self.states().get::<OfWorker>().map(|of_worker| of_worker.0.clone()).unwrap_or_default();
        Enqueuer { parent: self.stored_id(), ..enqueuer }
    }
}
