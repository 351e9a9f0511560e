//! What a handler can ask for besides its job.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::handler::progress::Progress;
use crate::job::trace_context::TraceContext;
use crate::job::{Payload, ReservedJob};

/// How long a transaction that was dropped may take to end.
const STILL_OPEN: Duration = Duration::from_secs(1);

/// Everything known about the attempt that a handler runs in; cheap to clone. Itself an argument that a handler may
/// take.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
    /// The job with another payload than it was stored with.
    changed: Option<Arc<ReservedJob>>,
}

struct Inner {
    driver: Arc<dyn Driver>,
    started: Instant,
    /// The last transaction in which the handler has completed the job.
    completed_in: Mutex<Option<String>>,
    job: ReservedJob,
    /// Whether the job is stored anywhere: not in a test that makes one attempt at a job of its own.
    is_stored: bool,
    timeout: Option<Duration>,
    cancellation: CancellationToken,
    states: Arc<States>,
    /// Of a handler that says something of it.
    progress: OnceLock<Arc<Progress>>,
}

impl Context {
    pub(crate) fn new(
        driver: Arc<dyn Driver>,
        job: ReservedJob,
        is_stored: bool,
        timeout: Option<Duration>,
        cancellation: CancellationToken,
        states: Arc<States>,
    ) -> Context {
        let (started, completed_in) = (Instant::now(), Mutex::default());
        let progress = OnceLock::new();
        let inner =
            Arc::new(Inner { driver, started, completed_in, job, is_stored, timeout, cancellation, states, progress });
        Context { inner, changed: None }
    }

    /// The job's id.
    pub fn id(&self) -> i64 {
        self.inner.job.reservation.id
    }

    /// The job's id, if it is stored anywhere.
    pub(crate) fn stored_id(&self) -> Option<i64> {
        self.inner.is_stored.then(|| self.id())
    }

    /// The job as it was reserved, with the payload that the middlewares have made of its own.
    pub fn job(&self) -> &ReservedJob {
        self.changed.as_deref().unwrap_or(&self.inner.job)
    }

    /// The same attempt, the job having another payload: for a middleware to pass on. What is stored stays
    /// as it is.
    pub fn with_payload(mut self, payload: Payload) -> Context {
        self.changed = Some(Arc::new(ReservedJob { payload, ..self.job().clone() }));
        self
    }

    /// The trace that the job was enqueued in, if its metadata says one.
    pub fn trace(&self) -> Option<TraceContext> {
        self.inner.job.trace()
    }

    /// Which attempt this is.
    pub fn attempt(&self) -> Attempt {
        let job = &self.inner.job;
        Attempt {
            number: job.reservation.attempt.max(0) as u32,
            failures: job.failures,
            max_attempts: job.max_attempts,
        }
    }

    /// How long this attempt may take; `None`: as long as it likes.
    pub fn timeout(&self) -> Option<Duration> {
        self.inner.timeout
    }

    /// The job's metadata; empty if it has none.
    ///
    /// Where a member is what [`Value`] cannot hold, [`member`](Context::member) still reads the others.
    ///
    /// # Errors
    /// Invalid if it is no JSON object, is nested more than 128 levels deep, or holds a number that is larger than any
    /// `f64`: the table takes all of these.
    pub fn metadata(&self) -> Result<Map<String, Value>> {
        let Some(metadata) = &self.inner.job.metadata else { return Ok(Map::new()) };
        metadata.decode().map_err(|error| self.unreadable("metadata", &error))
    }

    /// One member of the job's metadata, as the type that is asked for; `None` if there is none of that name.
    ///
    /// Only this member is parsed. As a [`RawValue`](serde_json::value::RawValue) it comes as it is stored, with all
    /// digits of its numbers.
    ///
    /// ```
    /// # use reveille::{Context, Job};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Report;
    /// # impl Job for Report { const KIND: &'static str = "report"; }
    /// async fn report(_: Report, context: Context) -> reveille::Result<()> {
    ///     let tick: Option<String> = context.member("tick")?;
    ///     // …
    /// #   let _ = tick;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Invalid if the metadata is no JSON object, or the member is no such value.
    pub fn member<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(metadata) = &self.inner.job.metadata else { return Ok(None) };
        metadata.member(name).map_err(|error| self.unreadable(&format!("member {name:?} of the metadata"), &error))
    }

    fn unreadable(&self, what: &str, error: &serde_json::Error) -> Error {
        Error::invalid(format!("the {what} of job {} cannot be read: {error}", self.id()))
    }

    /// Say how far the work is: any JSON of up to 8 KiB, shown with the job while it runs and after it has ended.
    ///
    /// Say it as often as you like: it is written at most twice a second, the latest in any case. A further attempt
    /// finds what the one before said last only in the table, not here. While the database is away nothing is written,
    /// and that is no error.
    ///
    /// ```
    /// # use reveille::{Context, Job};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Import { rows: Vec<String> }
    /// # impl Job for Import { const KIND: &'static str = "import"; }
    /// async fn import(job: Import, context: Context) -> reveille::Result<()> {
    ///     for (done, row) in job.rows.iter().enumerate() {
    ///         context.progress(&serde_json::json!({ "done": done, "of": job.rows.len() })).await?;
    ///         // …
    /// #       let _ = row;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Invalid if it is too large or no JSON; lost if the job is no longer this worker's: stop.
    pub async fn progress<T: Serialize + ?Sized>(&self, progress: &T) -> Result<()> {
        self.said().say(Payload::encode_as("progress", progress)?).await
    }

    /// Write what is still to be written of the progress.
    pub(crate) async fn close_progress(&self) {
        if let Some(progress) = self.inner.progress.get() {
            progress.close().await;
        }
    }

    fn said(&self) -> &Arc<Progress> {
        let Inner { driver, job, .. } = &*self.inner;
        self.inner.progress.get_or_init(|| Arc::new(Progress::new(Arc::clone(driver), job.reservation)))
    }

    /// Complete the job in a transaction of the handler's own: what it writes there and the completion commit together,
    /// or neither does, so that they happen exactly once. Then commit, and return.
    ///
    /// Whatever the handler returns, a committed job is done; a result to be kept is not, nor is progress said from
    /// here on. If the transaction is rolled back, the attempt has failed, unless the job is completed in another one:
    /// after a serialization failure or a deadlock, roll back and do the whole once more. The transaction holds the
    /// job's row until it ends, so end it soon.
    ///
    /// ```no_run
    /// # use reveille::{Context, Database, Job, State};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Charge { account: i64, cents: i64 }
    /// # impl Job for Charge { const KIND: &'static str = "charge"; }
    /// async fn charge(
    ///     job: Charge,
    ///     State(database): State<Database>,
    ///     context: Context,
    /// ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///     let mut client = database.client().await?;
    ///     let tx = client.transaction().await?;
    ///     tx.execute("update accounts set cents = cents - $2 where id = $1", &[&job.account, &job.cents]).await?;
    ///     context.complete_in(&tx).await?;
    ///     tx.commit().await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Lost if the job is no longer this worker's: roll back. Invalid if it is completed already, or in another
    /// transaction that has not ended, or is not stored in Postgres.
    pub async fn complete_in(&self, transaction: &tokio_postgres::Transaction<'_>) -> Result<()> {
        let inner = &self.inner;
        let before = self.completed_in();
        if let Some(before) = &before {
            self.is_undone(before, transaction).await?;
        }
        let reservation = &inner.job.reservation;
        // The row will be the transaction's.
        self.said().close().await;
        match inner.driver.complete_in(transaction, reservation, inner.started.elapsed()).await? {
            Some(transaction) => {
                *self.last_completion() = Some(transaction);
                Ok(())
            }
            None if before.is_some() => Err(completed_already()),
            None => Err(Error::lost(format!("job {} is no longer this worker's; roll back", reservation.id))),
        }
    }

    /// The transaction in which the handler has completed the job, if it has.
    pub(crate) fn completed_in(&self) -> Option<String> {
        self.last_completion().clone()
    }

    fn last_completion(&self) -> MutexGuard<'_, Option<String>> {
        self.inner.completed_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a moment for the end of a transaction in which the job was completed, unless it is this one. To complete
    /// the job while another one is open would wait for it, and its handler with it.
    async fn is_undone(&self, before: &str, transaction: &tokio_postgres::Transaction<'_>) -> Result<()> {
        const OWN: &str = "select pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text";
        let own = transaction.query_typed(OWN, &[]).await;
        let own = own.map_err(|error| Error::database("complete the job", error))?;
        if own.first().and_then(|row| row.get::<_, Option<&str>>(0)) == Some(before) {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            match self.inner.driver.is_recorded(before, &self.inner.job.reservation).await? {
                Some(false) => return Ok(()),
                Some(true) => return Err(completed_already()),
                None if began.elapsed() > STILL_OPEN => {
                    return Err(Error::invalid("another transaction in which the job is completed has not ended"));
                }
                // Dropped a moment ago: the server has still to hear of it.
                None => tokio::time::sleep(STILL_OPEN / 100).await,
            }
        }
    }

    /// The values that the worker's handlers share.
    pub(crate) fn states(&self) -> &States {
        &self.inner.states
    }

    /// Tells when the handler had better stop.
    pub fn cancellation(&self) -> Cancellation {
        Cancellation(self.inner.cancellation.clone())
    }
}

fn completed_already() -> Error {
    Error::invalid("the job is completed already")
}

/// An argument of a handler behind its job: made from the attempt's [`Context`].
///
/// Built in: [`State`], [`Attempt`], [`Cancellation`] and [`Context`] itself.
pub trait Extract: Sized + Send {
    /// Make it.
    fn extract(context: &Context) -> Self;

    /// Whether it can be made on this worker; asked once, when the worker is built.
    ///
    /// # Errors
    /// Invalid, saying what is missing.
    fn check(states: &States) -> Result<()> {
        let _ = states;
        Ok(())
    }
}

/// A value shared by the worker's handlers, by its type: what the builder's `state` was given.
#[derive(Debug, Clone)]
pub struct State<T>(pub T);

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone + Send + Sync + 'static> Extract for State<T> {
    fn extract(context: &Context) -> State<T> {
        match context.inner.states.get::<T>() {
            Some(state) => State(state.clone()),
            // `check` has refused to build such a worker.
            None => unreachable!("no state of type {}", type_name::<T>()),
        }
    }

    fn check(states: &States) -> Result<()> {
        states.get::<T>().map(drop).ok_or_else(|| {
            let name = type_name::<T>();
            Error::invalid(format!("a handler wants State<{name}>, which the worker has not: give it with .state(…)"))
        })
    }
}

/// The values shared by a worker's handlers, one of each type.
#[derive(Default)]
pub struct States(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl States {
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&mut self, state: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(state));
    }

    pub(crate) fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

/// Which attempt at a job this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 1, over all the times that the job was reserved.
    pub number: u32,
    /// How many attempts have failed before this one.
    pub failures: u32,
    /// At how many failures the job is dead.
    pub max_attempts: u32,
}

impl Attempt {
    /// Whether the job is dead if this attempt fails.
    pub fn is_last(&self) -> bool {
        self.failures + 1 >= self.max_attempts
    }
}

impl Extract for Attempt {
    fn extract(context: &Context) -> Attempt {
        context.attempt()
    }
}

/// Tells a handler when it had better stop: its job is to be cancelled, its time is up, its worker shuts down, or its
/// reservation is lost. A handler that does not look at it is not stopped by a cancel.
#[derive(Debug, Clone)]
pub struct Cancellation(pub(crate) CancellationToken);

impl Cancellation {
    /// Waits until the handler had better stop; for `tokio::select!`.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// Whether it had better stop now.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl Extract for Cancellation {
    fn extract(context: &Context) -> Cancellation {
        context.cancellation()
    }
}

impl Extract for Context {
    fn extract(context: &Context) -> Context {
        context.clone()
    }
}
