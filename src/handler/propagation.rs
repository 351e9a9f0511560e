//! A middleware that carries traces from the enqueues of jobs to their attempts.

use std::error::Error as StdError;

use tracing::Span;

use crate::handler::middleware::Middleware;
use crate::job::trace_context::TraceContext;
use crate::job::{NewJob, ReservedJob};

/// Carries a trace context from the place where a job is enqueued to the spans of its attempts.
///
/// `current` returns the caller's trace from the tracing system of your choice. If a job's metadata already has a
/// `traceparent`, the job keeps it. The guide `tracing` connects this to OpenTelemetry.
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
    /// Makes the middleware. `current` returns the trace context for a job that is being enqueued, or `None` if there
    /// is no trace.
    pub fn new(current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Propagation {
        Propagation { current: Box::new(current), follow: None }
    }

    /// Sets the function that gives the span of an attempt its parent, before the span is entered. The function is
    /// called only for jobs with a trace context.
    pub fn follow(mut self, follow: impl Fn(&Span, &TraceContext) + Send + Sync + 'static) -> Propagation {
        self.follow = Some(Box::new(follow));
        self
    }
}

impl Middleware for Propagation {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        if job.trace().is_none()
            && let Some(trace) = (self.current)()
        {
            job.set_trace(&trace)?;
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
