//! The arguments of a handler besides its job.

use std::any::type_name;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::database::CompleteIn;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::handler::attempt::Attempt;
use crate::handler::cancellation::{Cancellation, KeptSlot};
use crate::handler::output::{Output, Outputs};
use crate::handler::progress::Progress;
use crate::handler::states::States;
use crate::handler::steps::{Pause, Steps};
use crate::job::trace_context::TraceContext;
use crate::job::{Payload, ReservedJob};

/// The longest wait for the rollback of a transaction that the handler has dropped.
const STILL_OPEN: Duration = Duration::from_secs(1);

/// All that is known about the attempt in which a handler runs. Cheap to clone. A handler may take the context as an
/// argument.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
    /// The job with the payload of a middleware, if a middleware has replaced the stored payload.
    changed: Option<Arc<ReservedJob>>,
}

struct Inner {
    driver: Arc<dyn Driver>,
    started: Instant,
    /// The last transaction in which the handler has completed the job.
    completed_in: Mutex<Option<String>>,
    job: Arc<ReservedJob>,
    /// True if a store holds the job. In [`Worker::attempt`](crate::Worker::attempt), no store does.
    is_stored: bool,
    timeout: Option<Duration>,
    cancellation: Cancellation,
    states: Arc<States>,
    outputs: Arc<dyn Outputs>,
    /// The handler's progress, once the handler has reported progress.
    progress: OnceLock<Arc<Progress>>,
    /// The handler's steps, once the handler has used one.
    steps: OnceLock<Steps>,
    pause: Pause,
}

impl Context {
    pub(crate) fn new(
        driver: Arc<dyn Driver>,
        job: ReservedJob,
        is_stored: bool,
        timeout: Option<Duration>,
        cancellation: Cancellation,
        states: Arc<States>,
        outputs: Arc<dyn Outputs>,
    ) -> Context {
        let (job, started, completed_in, progress) = (Arc::new(job), Instant::now(), Mutex::default(), OnceLock::new());
        let (steps, pause) = (OnceLock::new(), Pause::default());
        let inner = Inner {
            driver,
            started,
            completed_in,
            job,
            is_stored,
            timeout,
            cancellation,
            states,
            outputs,
            progress,
            steps,
            pause,
        };
        Context { inner: Arc::new(inner), changed: None }
    }

    /// The store that holds the job.
    pub(crate) fn driver(&self) -> &Arc<dyn Driver> {
        &self.inner.driver
    }

    /// The id of the job.
    pub fn id(&self) -> i64 {
        self.inner.job.reservation.id
    }

    /// The id of the job, if a store holds the job.
    pub(crate) fn stored_id(&self) -> Option<i64> {
        self.inner.is_stored.then(|| self.id())
    }

    /// The job as reserved, but with the payload that the middleware has made of the stored payload.
    pub fn job(&self) -> &ReservedJob {
        self.changed.as_deref().unwrap_or(&self.inner.job)
    }

    /// Returns this context with another payload, so that a middleware can pass the payload on. The stored payload
    /// stays unchanged.
    pub fn with_payload(mut self, payload: Payload) -> Context {
        self.changed = Some(Arc::new(ReservedJob { payload, ..self.job().clone() }));
        self
    }

    /// The trace in which the job was enqueued, if the job's metadata holds a trace.
    pub fn trace(&self) -> Option<TraceContext> {
        self.inner.job.trace()
    }

    /// The number of this attempt, and the failures before it.
    pub fn attempt(&self) -> Attempt {
        let job = &self.inner.job;
        Attempt {
            number: job.reservation.attempt.max(0) as u32,
            failures: job.failures,
            max_attempts: job.max_attempts,
        }
    }

    /// The time that this attempt may take; `None` if the attempt has no timeout.
    pub fn timeout(&self) -> Option<Duration> {
        self.inner.timeout
    }

    /// Reports the progress of the work: any JSON of up to 8 KiB. It is shown with the job while the job runs and after
    /// the job has ended.
    ///
    /// Report as often as you like: at most two reports a second are written, and the latest report is always written.
    /// A handler cannot read the reports of earlier attempts here, only in the table. While the database is
    /// unavailable, reports are dropped without an error.
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
    /// Invalid if the report is too large or does not serialize to JSON. Lost if this worker no longer holds the job:
    /// then stop the work.
    pub async fn progress<T: Serialize + ?Sized>(&self, progress: &T) -> Result<()> {
        self.reports().report(Payload::encode_as("progress", progress)?).await
    }

    /// Writes the latest report, if it is not yet written.
    pub(crate) async fn close_progress(&self) {
        if let Some(progress) = self.inner.progress.get() {
            progress.close().await;
        }
    }

    fn reports(&self) -> &Arc<Progress> {
        let Inner { driver, job, outputs, .. } = &*self.inner;
        let progress = || Progress::new(Arc::clone(driver), Arc::clone(job), Arc::clone(outputs));
        self.inner.progress.get_or_init(|| Arc::new(progress()))
    }

    /// Completes the job in a transaction of the handler. After this, commit the transaction and return. The handler's
    /// writes in the transaction and the completion are committed together or not at all, so the writes happen exactly
    /// once. The transaction is `&tx` of tokio-postgres or deadpool-postgres; with the feature `sqlx` also `&mut tx` of
    /// sqlx.
    ///
    /// Once the transaction is committed, the job is completed, whatever the handler returns. A result is not kept, and
    /// later progress is dropped. If the transaction is rolled back, the job is not completed, and the attempt fails
    /// even if the handler returns success. After a serialization failure or a deadlock, the handler can roll back and
    /// complete the job in another transaction. The transaction locks the job's row until the transaction ends, so end
    /// it soon.
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
    /// Lost if this worker no longer holds the job: then roll the transaction back. Invalid if the job is already
    /// completed, if another open transaction has completed the job, or if the job is not stored in Postgres.
    pub async fn complete_in(&self, mut transaction: impl CompleteIn) -> Result<()> {
        let inner = &self.inner;
        let before = self.completed_in();
        if let Some(before) = &before {
            self.wait_until_undone(before, &mut transaction).await?;
        }
        let reservation = &inner.job.reservation;
        // The latest progress is written first. Once the transaction has locked the job's row, a write of progress
        // would wait for this lock.
        self.reports().close().await;
        match inner.driver.complete_in(&mut transaction, reservation, inner.started.elapsed()).await? {
            Some(id) => {
                *self.last_completion() = Some(id);
                Ok(())
            }
            None if before.is_some() => Err(already_completed()),
            None => Err(Error::lost(format!(
                "this worker no longer holds job {}; roll your transaction back",
                reservation.id
            ))),
        }
    }

    /// Notes that another program has completed the job for this handler, in the transaction with this id: by the SQL
    /// function `reveille.complete_in`, which returns the id. After this, return from the handler.
    ///
    /// The worker waits for the end of the transaction. If it was committed, the job is completed, whatever the handler
    /// returns. If it was rolled back, the attempt fails even if the handler returns success.
    pub fn note_completion(&self, transaction: impl Into<String>) {
        *self.last_completion() = Some(transaction.into());
    }

    /// The last transaction in which the handler has completed the job, if there is one.
    pub(crate) fn completed_in(&self) -> Option<String> {
        self.last_completion().clone()
    }

    fn last_completion(&self) -> MutexGuard<'_, Option<String>> {
        self.inner.completed_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits up to a second for the rollback of an earlier transaction in which the job was completed. While the
    /// earlier transaction is open, completing the job in another transaction would block on its lock. If `transaction`
    /// is this earlier transaction, returns at once.
    async fn wait_until_undone(&self, before: &str, transaction: &mut impl CompleteIn) -> Result<()> {
        const OWN: &str = "select pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text";
        if transaction.text(OWN, &[]).await?.as_deref() == Some(before) {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            match self.inner.driver.is_recorded(before, &self.inner.job.reservation).await? {
                Some(false) => return Ok(()),
                Some(true) => return Err(already_completed()),
                None if began.elapsed() > STILL_OPEN => {
                    return Err(Error::invalid(
                        "the job was completed in another transaction, which is still open; \
                         commit that transaction or roll it back",
                    ));
                }
                // The earlier transaction is open. If it was dropped just now, its rollback has yet to reach the
                // server.
                None => tokio::time::sleep(STILL_OPEN / 100).await,
            }
        }
    }

    /// The steps of this attempt.
    pub(crate) fn steps(&self) -> &Steps {
        let Inner { driver, job, outputs, cancellation, .. } = &*self.inner;
        let steps = || Steps::new(Arc::clone(driver), Arc::clone(job), Arc::clone(outputs), cancellation.clone());
        self.inner.steps.get_or_init(steps)
    }

    /// Returns a function from the id and the kind of another job, and an output of that job, to the output as its
    /// handler wrote it, by the middlewares of this worker. The function copies this job's payload once.
    ///
    /// # Errors
    /// The function's result is invalid if a middleware cannot read the output.
    pub(crate) fn load_of_others(&self) -> impl FnMut(i64, &str, Output) -> Result<Output> {
        let mut job = ReservedJob::clone(&self.inner.job);
        move |id, kind, output| {
            job.reservation.id = id;
            job.kind = kind.into();
            self.inner.outputs.load(&job, output)
        }
    }

    /// The number of the job's failures: as reserved, or 0 after the handler has recorded a new step.
    pub(crate) fn failures(&self) -> u32 {
        self.inner.steps.get().map_or(self.inner.job.failures, Steps::failures)
    }

    /// Says whether the handler sleeps or waits for an event.
    pub(crate) fn pausing(&self) -> &Pause {
        &self.inner.pause
    }

    /// The values that the worker's handlers share.
    pub(crate) fn states(&self) -> &States {
        &self.inner.states
    }

    /// Says when the handler should stop.
    pub fn cancellation(&self) -> Cancellation {
        self.inner.cancellation.clone()
    }

    /// Keeps the slot of this attempt occupied until the returned value is dropped, even if the attempt ends earlier,
    /// as at a timeout. This is for a handler whose work goes on elsewhere, such as in another process.
    pub fn keep_slot(&self) -> KeptSlot {
        self.inner.cancellation.keep_slot()
    }
}

fn already_completed() -> Error {
    Error::invalid("the job is already completed; return from the handler")
}

/// A further argument of a handler, made from the attempt's [`Context`].
///
/// Built in are [`State`], [`Attempt`], [`Cancellation`], [`Enqueuer`](crate::enqueue::Enqueuer) and [`Context`]
/// itself.
#[diagnostic::on_unimplemented(
    message = "a handler cannot take an argument of type `{Self}`",
    label = "this type does not implement `Extract`",
    note = "the job comes first; further arguments are `State<T>`, `Context`, `Attempt`, `Cancellation`, `Enqueuer`, \
            or a type of yours that implements `Extract`",
    note = "to share a value with handlers, give it to the worker with `.state(value)` and take it as `State<T>`"
)]
pub trait Extract: Sized + Send {
    /// Makes the argument for an attempt.
    fn extract(context: &Context) -> Self;

    /// Checks whether a worker with these states can make the argument. This is called once, when the worker is built.
    ///
    /// # Errors
    /// Invalid if the argument cannot be made; the error names what is missing.
    fn check(states: &States) -> Result<()> {
        let _ = states;
        Ok(())
    }
}

/// A value that the worker's handlers share. A handler names the value by its type, and
/// `Worker::builder(…).state(value)` sets the value.
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
            // `check` has refused to build a worker without this state.
            None => unreachable!("no state of type {}", type_name::<T>()),
        }
    }

    fn check(states: &States) -> Result<()> {
        states.get::<T>().map(drop).ok_or_else(|| {
            let name = type_name::<T>();
            Error::invalid(format!("a handler takes State<{name}>, which the worker lacks; add it with .state(…)"))
        })
    }
}

impl Extract for Attempt {
    fn extract(context: &Context) -> Attempt {
        context.attempt()
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
