//! What all jobs have in common, written once: around enqueuing, and around the work on a job.

use std::error::Error as StdError;
use std::sync::Arc;

pub use futures::future::BoxFuture;
use tracing::Span;

use crate::error::{Error, Result};
use crate::extract::Context;
use crate::handler::Registered;
use crate::job::{NewJob, ReservedJob};
use crate::outcome::Outcome;
pub use crate::trace::TraceContext;

/// Something around all jobs: tracing, metrics, encryption of payloads.
///
/// Given to a worker with `Worker::builder(…).middleware(…)`, and to those who enqueue with an `Enqueuer`. Each method has a
/// default that changes nothing.
///
/// The first one added is the outermost: nearest to the database. A job on its way to the database passes them from the last
/// to the first, and on its way to its handler from the first to the last, so that what one has done to a payload it undoes
/// before the next sees it.
///
/// ```
/// use reveille::middleware::{BoxFuture, Middleware, Next};
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
    /// Whatever it likes; the enqueue then fails with an error that [is refused](crate::Error::is_refused), and nothing is
    /// stored.
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
    /// The job's payload has not been decoded yet, and [`Context::with_payload`] replaces it. A panic in here is a failure of the
    /// attempt, and so is one in the handler, which passes through. At a timeout the whole is dropped, so what must happen in
    /// the end belongs into a `Drop`.
    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        next.run(context)
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
}

/// The rest of an attempt: the middlewares within, and the handler.
pub struct Next<'a> {
    within: &'a [Arc<dyn Middleware>],
    handler: &'a Registered,
}

impl<'a> Next<'a> {
    /// Go on with it. How it ends is the handler's outcome, or [`Outcome::Undecodable`] if the payload does not fit its kind.
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
/// use reveille::middleware::{Propagation, TraceContext};
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

    /// What to do with the span of each attempt at a job that has a trace context, before it is entered: give it that parent.
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
