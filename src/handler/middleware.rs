//! Middleware: code around the enqueue of every job, and around every attempt.

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use futures::future::BoxFuture;
use tracing::Span;

use crate::driver::{Ending, Failure, FailureReason};
use crate::error::{Error, Result};
use crate::handler::Registered;
use crate::handler::extract::Context;
use crate::handler::output::{Output, Outputs};
use crate::job::outcome::{Outcome, panicked};
use crate::job::{NewJob, ReservedJob};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;

/// Code around all jobs: for tracing, metrics, or encryption of payloads.
///
/// `Worker::builder(…).middleware(…)` adds a middleware to a worker. A program that enqueues adds a middleware to its
/// [`Enqueuer`](crate::enqueue::Enqueuer). Each method has a default that changes nothing.
///
/// The first middleware added is the outermost: nearest to the database. A job on its way to the database passes the
/// middlewares from the last to the first. On its way to the handler, the job passes the middlewares from the first to
/// the last. So the changes of the middlewares are undone in the opposite order, and each middleware gets back the
/// payload that it has passed on.
///
/// ```
/// use reveille::handler::{BoxFuture, Middleware, Next};
/// use reveille::{Context, Outcome};
///
/// /// Prints how long each attempt took.
/// struct Timed;
///
/// impl Middleware for Timed {
///     fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
///         Box::pin(async move {
///             let (kind, started) = (context.job().kind.clone(), std::time::Instant::now());
///             let outcome = next.run(context).await;
///             println!("{kind}: {outcome:?} after {:?}", started.elapsed());
///             outcome
///         })
///     }
/// }
/// ```
pub trait Middleware: Send + Sync + 'static {
    /// Changes a job that is about to be enqueued, or refuses it with any error.
    ///
    /// The changed job is checked afterwards, like any job. [`NewJob::set_metadata_member`] changes one member of the
    /// job's metadata.
    ///
    /// # Errors
    /// Any error refuses the job. The enqueue then fails with an error that [is refused](crate::Error::is_refused), and
    /// nothing is stored.
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let _ = job;
        Ok(())
    }

    /// Changes the job of a schedule that a worker is about to declare, as it is stored with the schedule. The worker
    /// fires the schedule with the job that its code declares, and each job then passes
    /// [`enqueue`](Middleware::enqueue).
    ///
    /// # Errors
    /// Any error refuses the declaration, and the worker does not start.
    fn declare(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let _ = job;
        Ok(())
    }

    /// Changes the span of an attempt before the span is entered. A middleware can give the span its parent in a trace
    /// here.
    fn span(&self, job: &ReservedJob, span: &Span) {
        let _ = (job, span);
    }

    /// Makes an attempt: passes the attempt on with [`Next::run`], or ends the attempt with an outcome of its own.
    ///
    /// The payload is not decoded yet. [`Context::with_payload`] replaces the payload. A panic in this method fails the
    /// attempt, as a panic in the handler does. At a timeout, and while the handler sleeps or waits for an event, the
    /// future is dropped, so put code that must always run into a `Drop`.
    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        next.run(context)
    }

    /// Changes what an attempt writes to the store: its result, its progress, the values of its steps, or the text of
    /// its error. This also gets the errors that [`work`](Middleware::work) does not see: of a timeout, and of a panic.
    ///
    /// `job` is the job as reserved, with its stored payload. For the error of a lost attempt, which another worker
    /// writes, this is not called.
    ///
    /// # Errors
    /// After an error or a panic, nothing of the output is stored: a result or a report of progress is dropped, and
    /// the text of the error is replaced. The job ends as it would have ended. The step gets the error.
    fn store(&self, job: &ReservedJob, output: &mut Output) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let _ = (job, output);
        Ok(())
    }

    /// Changes what a handler reads from the store, in the order from the first middleware to the last: the values of
    /// the steps that an earlier attempt has recorded, and the results and errors of the jobs that the handler
    /// [runs](crate::Context::run). This undoes what [`store`](Middleware::store) has changed. `job` is the job that
    /// has stored the output; of a job that the handler runs, only the id and the kind are right.
    ///
    /// # Errors
    /// After an error or a panic, the step or the run gets the error, and the code of the step does not run.
    fn load(&self, job: &ReservedJob, output: &mut Output) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let _ = (job, output);
        Ok(())
    }

    /// Takes note of the end of an attempt, even an end by a timeout, by a panic, or by the death of the worker.
    ///
    /// The worker calls this method once the ending of the job is known and before the ending is recorded, so keep the
    /// method short. For a lost attempt, the worker that rescues the job calls this method. A lost worker that was only
    /// cut off also calls this method for the same attempt, although that ending does not count. A panic in this method
    /// is logged and changes nothing.
    fn ended(&self, end: &AttemptEnd<'_>) {
        let _ = end;
    }
}

/// The end of an attempt, for [`Middleware::ended`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AttemptEnd<'a> {
    /// The id of the job.
    pub id: i64,
    /// The job as reserved; `None` for a lost attempt, since only the id of a lost job is known.
    pub job: Option<&'a ReservedJob>,
    /// The kind of the end.
    pub kind: EndKind,
    /// The error of the failure, before [`Middleware::store`] changes it; `None` if the attempt did not fail.
    pub error: Option<&'a str>,
    /// True if the job is dead, so that no further attempt is made.
    pub is_dead: bool,
    /// The duration of the attempt; `None` for a lost attempt.
    pub ran: Option<Duration>,
}

impl<'a> AttemptEnd<'a> {
    /// Returns the end of an attempt. `kind` tells what the ending does not say: whether the job was snoozed or
    /// released, and whether the handler panicked.
    pub(crate) fn of(job: &'a ReservedJob, ending: &'a Ending, kind: EndKind, ran: Duration) -> AttemptEnd<'a> {
        let (kind, failure) = match ending {
            Ending::Completed(_) | Ending::Recorded(_) => (EndKind::Completed, None),
            Ending::Cancelled => (EndKind::Cancelled, None),
            Ending::Waiting { failure: None, .. } if kind == EndKind::Snoozed => (EndKind::Snoozed, None),
            Ending::Waiting { failure: None, .. } | Ending::Released => (EndKind::Released, None),
            Ending::Waiting { failure: Some(failure), .. } | Ending::Dead(failure) => {
                let kind = match failure.reason {
                    FailureReason::Failed if kind == EndKind::Panicked => EndKind::Panicked,
                    FailureReason::Failed => EndKind::Failed,
                    FailureReason::Permanent => EndKind::Permanent,
                    FailureReason::TimedOut => EndKind::TimedOut,
                    FailureReason::Lost => EndKind::Lost,
                    FailureReason::Undecodable => EndKind::Undecodable,
                };
                (kind, Some(failure))
            }
        };
        let (error, is_dead) = (failure.map(|failure| &*failure.error), matches!(ending, Ending::Dead(_)));
        AttemptEnd { id: job.reservation.id, job: Some(job), kind, error, is_dead, ran: Some(ran) }
    }
}

/// The kinds of ends of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndKind {
    /// The job is completed.
    Completed,
    /// The job is cancelled.
    Cancelled,
    /// The handler snoozed the job: the job is due again later, without a failure.
    Snoozed,
    /// The job was released: the worker shuts down, or has no handler for the job's kind.
    Released,
    /// The handler returned an error.
    Failed,
    /// The handler returned [`Outcome::Dead`].
    Permanent,
    /// The payload does not fit the job's kind.
    Undecodable,
    /// The attempt exceeded its timeout.
    TimedOut,
    /// The handler or a middleware panicked.
    Panicked,
    /// The worker died or was cut off.
    Lost,
}

impl EndKind {
    /// The kind's name, such as `timed_out`, for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            EndKind::Completed => "completed",
            EndKind::Cancelled => "cancelled",
            EndKind::Snoozed => "snoozed",
            EndKind::Released => "released",
            EndKind::Failed => "failed",
            EndKind::Permanent => "permanent",
            EndKind::Undecodable => "undecodable",
            EndKind::TimedOut => "timed_out",
            EndKind::Panicked => "panicked",
            EndKind::Lost => "lost",
        }
    }
}

/// Lets a worker and an `Enqueuer` share a middleware.
impl<M: Middleware + ?Sized> Middleware for Arc<M> {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        (**self).enqueue(job)
    }

    fn declare(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        (**self).declare(job)
    }

    fn span(&self, job: &ReservedJob, span: &Span) {
        (**self).span(job, span);
    }

    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        (**self).work(context, next)
    }

    fn store(&self, job: &ReservedJob, output: &mut Output) -> Result<(), Box<dyn StdError + Send + Sync>> {
        (**self).store(job, output)
    }

    fn load(&self, job: &ReservedJob, output: &mut Output) -> Result<(), Box<dyn StdError + Send + Sync>> {
        (**self).load(job, output)
    }

    fn ended(&self, end: &AttemptEnd<'_>) {
        (**self).ended(end);
    }
}

/// The rest of an attempt: the inner middlewares and the handler.
pub struct Next<'a> {
    within: &'a [Arc<dyn Middleware>],
    handler: &'a Registered,
}

impl<'a> Next<'a> {
    /// Runs the rest of the attempt. The future yields the handler's outcome, or [`Outcome::Undecodable`] if the
    /// payload does not fit the job's kind.
    pub fn run(self, context: Context) -> BoxFuture<'a, Outcome> {
        match self.within.split_first() {
            Some((first, within)) => first.work(context, Next { within, handler: self.handler }),
            None => self.handler.call(&context),
        }
    }
}

/// Middlewares in the order in which they were added.
#[derive(Clone, Default)]
pub(crate) struct Middlewares(Vec<Arc<dyn Middleware>>);

impl Middlewares {
    pub(crate) fn add(&mut self, middleware: impl Middleware) {
        self.0.push(Arc::new(middleware));
    }

    #[cfg(feature = "schedules")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Passes a job through all middlewares on its way to the database.
    pub(crate) fn enqueue(&self, mut job: NewJob) -> Result<NewJob> {
        self.0.iter().rev().try_for_each(|middleware| middleware.enqueue(&mut job)).map_err(Error::refused)?;
        Ok(job)
    }

    /// Returns the schedules as they are stored.
    #[cfg(feature = "schedules")]
    pub(crate) fn declare(&self, schedules: &[Schedule]) -> Result<Vec<Schedule>> {
        let mut schedules = schedules.to_vec();
        for schedule in &mut schedules {
            self.0
                .iter()
                .rev()
                .try_for_each(|middleware| middleware.declare(&mut schedule.job))
                .map_err(Error::refused)?;
            schedule.check()?;
        }
        Ok(schedules)
    }

    /// Returns the ending as it is stored: its result or its error has passed all middlewares.
    pub(crate) fn store_ending(&self, job: &ReservedJob, ending: Ending) -> Ending {
        if self.0.is_empty() {
            return ending;
        }
        let failed = |Failure { reason, error }| match self.pass(job, Output::Error(error)) {
            Ok(Output::Error(error)) => Failure { reason, error },
            _ => {
                Failure { reason, error: "the text of the error was dropped: a middleware refused to store it".into() }
            }
        };
        match ending {
            Ending::Completed(Some(result)) => match self.pass(job, Output::Result(result)) {
                Ok(Output::Result(result)) => Ending::Completed(Some(result)),
                _ => Ending::Completed(None),
            },
            Ending::Waiting { failure, delay } => Ending::Waiting { failure: failure.map(failed), delay },
            Ending::Dead(failure) => Ending::Dead(failed(failure)),
            ending => ending,
        }
    }

    pub(crate) fn span(&self, job: &ReservedJob, span: &Span) {
        self.0.iter().for_each(|middleware| middleware.span(job, span));
    }

    /// Calls each middleware, even if one panics.
    pub(crate) fn ended(&self, end: &AttemptEnd<'_>) {
        for middleware in &self.0 {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| middleware.ended(end))) {
                let (id, error) = (end.id, panicked(&*panic));
                tracing::error!(
                    name: "job.hook_panicked", target: "reveille::job", id, error,
                    "a middleware panicked in `ended`; the job is not affected"
                );
            }
        }
    }

    /// Makes an attempt through all middlewares.
    pub(crate) fn work<'a>(&'a self, handler: &'a Registered, context: &Context) -> BoxFuture<'a, Outcome> {
        if self.0.is_empty() {
            return handler.call(context);
        }
        Next { within: &self.0, handler }.run(context.clone())
    }
}

impl Outputs for Middlewares {
    fn pass(&self, job: &ReservedJob, mut output: Output) -> Result<Output> {
        let (id, name) = (job.reservation.id, output.name());
        let passing = || self.0.iter().rev().try_for_each(|middleware| middleware.store(job, &mut output));
        let passed = catch_unwind(AssertUnwindSafe(passing));
        let passed = passed.unwrap_or_else(|panic| Err(panicked(&*panic).into()));
        let passed = passed.map_err(|error| Error::invalid(format!("a middleware refused the {name}: {error:#}")));
        if let Err(error) = &passed {
            // A log that fails must not change how the job ends.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                tracing::error!(
                    name: "job.output_dropped", target: "reveille::job", id, output = name, %error,
                    "a middleware refused to store what an attempt wrote; it is dropped"
                );
            }));
        }
        passed.map(|()| output)
    }

    fn load(&self, job: &ReservedJob, mut output: Output) -> Result<Output> {
        let name = output.name();
        let loading = || self.0.iter().try_for_each(|middleware| middleware.load(job, &mut output));
        let loaded = catch_unwind(AssertUnwindSafe(loading));
        let loaded = loaded.unwrap_or_else(|panic| Err(panicked(&*panic).into()));
        loaded.map_err(|error| Error::invalid(format!("a middleware cannot read the {name}: {error:#}")))?;
        Ok(output)
    }
}
