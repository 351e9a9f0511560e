//! What all jobs have in common, written once: around enqueuing, and around the work on a job.

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use futures::future::BoxFuture;
use tracing::Span;

use crate::driver::{Ending, FailureReason};
use crate::error::{Error, Result};
use crate::handler::Registered;
use crate::handler::extract::Context;
use crate::job::outcome::{Outcome, panicked};
pub use crate::job::trace_context::TraceContext;
use crate::job::{NewJob, ReservedJob};

/// Something around all jobs: tracing, metrics, encryption of payloads.
///
/// Given to a worker with `Worker::builder(…).middleware(…)`, and to those who enqueue with an `Enqueuer`. Each method
/// has a default that changes nothing.
///
/// The first one added is the outermost: nearest to the database. A job on its way to the database passes them from the
/// last to the first, and on its way to its handler from the first to the last, so that what one has done to a payload
/// it undoes before the next sees it.
///
/// ```
/// use reveille::handler::{BoxFuture, Middleware, Next};
/// use reveille::{Context, Outcome};
///
/// /// Says how long each attempt took.
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
    /// A job is about to be enqueued: change it, or refuse it with any error.
    ///
    /// What it makes of the job is checked afterwards, as any job is.
    ///
    /// # Errors
    /// Whatever it likes; the enqueue then fails with an error that [is refused](crate::Error::is_refused), and nothing
    /// is stored.
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let _ = job;
        Ok(())
    }

    /// The span of an attempt was made and not yet entered: the place to give it a parent in a trace.
    fn span(&self, job: &ReservedJob, span: &Span) {
        let _ = (job, span);
    }

    /// An attempt is about to be made: pass it on with [`Next::run`], or end it with an outcome of one's own.
    ///
    /// The job's payload has not been decoded yet, and [`Context::with_payload`] replaces it. A panic in here is a
    /// failure of the attempt, and so is one in the handler, which passes through. At a timeout the whole is dropped,
    /// so what must happen in the end belongs into a `Drop`.
    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        next.run(context)
    }

    /// An attempt has ended, however it did: also by a timeout, by a panic, or because its worker died.
    ///
    /// Called once it is known what becomes of the job, and before that is recorded: keep it short. A lost attempt is
    /// told of by the worker that rescues its job. Where the lost worker still lives, cut off, it tells of the same
    /// attempt as well, whose ending does not count. A panic in here is logged, and changes nothing.
    fn ended(&self, end: &AttemptEnd<'_>) {
        let _ = end;
    }
}

/// How an attempt ended: what [`Middleware::ended`] is told.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AttemptEnd<'a> {
    /// The job's id.
    pub id: i64,
    /// The job as it was reserved; `None` for a lost attempt, of which no more than the id is known.
    pub job: Option<&'a ReservedJob>,
    /// How it ended, in a word.
    pub how: How,
    /// What went wrong, as it is recorded with the job; `None` if nothing did.
    pub error: Option<&'a str>,
    /// Whether the job is dead: there will be no further attempt.
    pub is_dead: bool,
    /// How long it ran; `None` for a lost attempt.
    pub ran: Option<Duration>,
}

impl<'a> AttemptEnd<'a> {
    /// `how`: as its handler ended, where what becomes of the job does not say it.
    pub(crate) fn of(job: &'a ReservedJob, ending: &'a Ending, how: How, ran: Duration) -> AttemptEnd<'a> {
        let (how, failure) = match ending {
            Ending::Completed(_) | Ending::Recorded(_) => (How::Completed, None),
            Ending::Cancelled => (How::Cancelled, None),
            Ending::Waiting { failure: None, .. } if how == How::Snoozed => (How::Snoozed, None),
            Ending::Waiting { failure: None, .. } => (How::Released, None),
            Ending::Waiting { failure: Some(failure), .. } | Ending::Dead(failure) => {
                let how = match failure.reason {
                    FailureReason::Failed if how == How::Panicked => How::Panicked,
                    FailureReason::Failed => How::Failed,
                    FailureReason::Permanent => How::Permanent,
                    FailureReason::TimedOut => How::TimedOut,
                    FailureReason::Lost => How::Lost,
                    FailureReason::Undecodable => How::Undecodable,
                };
                (how, Some(failure))
            }
        };
        let (error, is_dead) = (failure.map(|failure| &*failure.error), matches!(ending, Ending::Dead(_)));
        AttemptEnd { id: job.reservation.id, job: Some(job), how, error, is_dead, ran: Some(ran) }
    }
}

/// How an attempt ended, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum How {
    /// The job is done.
    Completed,
    /// The job is cancelled.
    Cancelled,
    /// Its handler asked for the job to come again later.
    Snoozed,
    /// The job was given back without a failure: its worker shuts down or has no handler for its kind.
    Released,
    /// Its handler returned an error.
    Failed,
    /// Its handler said that no further attempt can help.
    Permanent,
    /// The payload does not fit the job's kind.
    Undecodable,
    /// It took longer than it may.
    TimedOut,
    /// Its handler, or a middleware, panicked.
    Panicked,
    /// Its worker died or was cut off.
    Lost,
}

impl How {
    /// Its name, as for a metric: `timed_out`.
    pub fn name(self) -> &'static str {
        match self {
            How::Completed => "completed",
            How::Cancelled => "cancelled",
            How::Snoozed => "snoozed",
            How::Released => "released",
            How::Failed => "failed",
            How::Permanent => "permanent",
            How::Undecodable => "undecodable",
            How::TimedOut => "timed_out",
            How::Panicked => "panicked",
            How::Lost => "lost",
        }
    }
}

/// So that one can be shared by a worker and those who enqueue.
impl<M: Middleware + ?Sized> Middleware for Arc<M> {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        (**self).enqueue(job)
    }

    fn span(&self, job: &ReservedJob, span: &Span) {
        (**self).span(job, span);
    }

    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        (**self).work(context, next)
    }

    fn ended(&self, end: &AttemptEnd<'_>) {
        (**self).ended(end);
    }
}

/// The rest of an attempt: the middlewares within, and the handler.
pub struct Next<'a> {
    within: &'a [Arc<dyn Middleware>],
    handler: &'a Registered,
}

impl<'a> Next<'a> {
    /// Go on with it. How it ends is the handler's outcome, or [`Outcome::Undecodable`] if the payload does not fit its
    /// kind.
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

    /// The job as they pass it on to the database.
    pub(crate) fn enqueue(&self, mut job: NewJob) -> Result<NewJob> {
        self.0.iter().rev().try_for_each(|middleware| middleware.enqueue(&mut job)).map_err(Error::refused)?;
        Ok(job)
    }

    pub(crate) fn span(&self, job: &ReservedJob, span: &Span) {
        self.0.iter().for_each(|middleware| middleware.span(job, span));
    }

    /// Tells each of them, also if one panics.
    pub(crate) fn ended(&self, end: &AttemptEnd<'_>) {
        for middleware in &self.0 {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| middleware.ended(end))) {
                let (id, error) = (end.id, panicked(&*panic));
                tracing::error!(
                    name: "job.hook_panicked", target: "reveille::job", id, error,
                    "a middleware panicked when it was told how an attempt ended"
                );
            }
        }
    }

    /// Begins an attempt.
    pub(crate) fn work<'a>(&'a self, handler: &'a Registered, context: &Context) -> BoxFuture<'a, Outcome> {
        if self.0.is_empty() {
            return handler.call(context);
        }
        Next { within: &self.0, handler }.run(context.clone())
    }
}

/// Carries the trace context from where a job is enqueued to the span of the attempt at it.
///
/// `current` says in which trace the caller is; ask the tracing system of your choice. A job whose metadata has a
/// `traceparent` already keeps it. The guide `tracing` connects it to OpenTelemetry.
///
/// ```
/// use reveille::{handler::Propagation, job::TraceContext};
///
/// # fn in_my_tracing_system() -> Option<(String, Option<String>)> { None }
/// let propagation = Propagation::new(|| {
///     let (traceparent, tracestate) = in_my_tracing_system()?;
///     TraceContext::parse(&traceparent, tracestate.as_deref()).ok()
/// })
/// .follow(|span, trace| println!("{span:?} belongs to {}", trace.trace_id()));
/// ```
pub struct Propagation {
    current: Box<dyn Fn() -> Option<TraceContext> + Send + Sync>,
    follow: Option<Box<Follow>>,
}

type Follow = dyn Fn(&Span, &TraceContext) + Send + Sync;

impl Propagation {
    /// `current`: the trace context that a job enqueued now belongs to; `None` if to none.
    pub fn new(current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Propagation {
        Propagation { current: Box::new(current), follow: None }
    }

    /// What to do with the span of each attempt at a job that has a trace context, before it is entered: give it that
    /// parent.
    pub fn follow(mut self, follow: impl Fn(&Span, &TraceContext) + Send + Sync + 'static) -> Propagation {
        self.follow = Some(Box::new(follow));
        self
    }
}

impl Middleware for Propagation {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let has_one = job.metadata.as_ref().is_some_and(|metadata| TraceContext::of(metadata).is_some());
        if !has_one && let Some(trace) = (self.current)() {
            trace.write(job.metadata.get_or_insert_default());
        }
        Ok(())
    }

    fn span(&self, job: &ReservedJob, span: &Span) {
        if let Some(follow) = &self.follow
            && let Some(trace) = job.trace()
        {
            follow(span, &trace);
        }
    }
}
