//! Handlers: async functions of a job and whatever else they ask for.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::ready;

use crate::error::{Error, Result};
use crate::job::outcome::{IntoOutcome, Outcome};
use crate::job::retry_policy::RetryPolicy;
use crate::job::{Job, check_timeout};

pub(crate) mod batch;
pub(crate) mod extract;
pub(crate) mod middleware;
pub(crate) mod progress;

pub use batch::{Batch, BatchHandler, BatchItem, Gather, IntoOutcomes};
pub use extract::{Attempt, Cancellation, Context, Extract, State, States};
pub use middleware::{AttemptEnd, BoxFuture, How, Middleware, Next, Propagation};

/// An async function that works jobs of one kind.
///
/// Its first argument is the job, and says the kind; up to eight more are [extracted](Extract); it returns anything
/// that is [`IntoOutcome`]. Implemented for such functions and closures, never by hand.
pub trait Handler<Arguments>: Send + Sync + 'static {
    /// What it works.
    type Job: Job;

    /// Run it once.
    fn call(&self, job: Self::Job, context: &Context) -> BoxFuture<'static, Outcome>;

    /// Whether all its arguments can be made.
    ///
    /// # Errors
    /// Invalid, saying what is missing.
    fn check(states: &States) -> Result<()>;
}

macro_rules! handler {
    ($($argument:ident),*) => {
        impl<F, Fut, J, $($argument,)*> Handler<(J, $($argument,)*)> for F
        where
            F: Fn(J, $($argument,)*) -> Fut + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: IntoOutcome,
            J: Job,
            $($argument: Extract,)*
        {
            type Job = J;

            fn call(&self, job: J, context: &Context) -> BoxFuture<'static, Outcome> {
                let _ = context;
                self(job, $($argument::extract(context),)*).map(IntoOutcome::into_outcome).boxed()
            }

            fn check(states: &States) -> Result<()> {
                let _ = states;
                $($argument::check(states)?;)*
                Ok(())
            }
        }
    };
}

handler!();
handler!(A);
handler!(A, B);
handler!(A, B, C);
handler!(A, B, C, D);
handler!(A, B, C, D, E);
handler!(A, B, C, D, E, G);
handler!(A, B, C, D, E, G, H);
handler!(A, B, C, D, E, G, H, I);

pub(crate) type Call = dyn Fn(&Context) -> BoxFuture<'static, Outcome> + Send + Sync;

/// A handler with its kind's settings, its type forgotten.
pub(crate) struct Registered {
    pub(crate) call: Box<Call>,
    pub(crate) check: fn(&States) -> Result<()>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry_policy: RetryPolicy,
    /// What gathers the jobs, if they are worked in batches.
    pub(crate) gathers: Option<Box<dyn Gathers>>,
}

/// What gathers jobs for a handler of batches.
pub(crate) trait Gathers: Send + Sync {
    /// Learns which queues are worked here, with how many slots each.
    ///
    /// # Errors
    /// Invalid if its batches cannot be gathered there.
    fn fit(&self, queues: &[(String, usize)]) -> Result<()>;

    /// Nothing more is to come for now: run what is there.
    fn run_gathered(&self);

    /// The worker shuts down: from here on wait for nothing more.
    fn hurry(&self);
}

impl Registered {
    fn new<A, H: Handler<A>>(handler: H) -> Registered {
        Registered {
            call: Box::new(move |context| match context.job().payload.decode() {
                Ok(job) => handler.call(job, context),
                Err(error) => ready(Outcome::Undecodable(does_not_fit(&error))).boxed(),
            }),
            check: H::check,
            timeout: H::Job::TIMEOUT,
            retry_policy: H::Job::retry_policy(),
            gathers: None,
        }
    }

    /// Decode the job and start on it.
    pub(crate) fn call(&self, context: &Context) -> BoxFuture<'static, Outcome> {
        (self.call)(context)
    }
}

/// What is said of a payload that cannot be decoded.
pub(crate) fn does_not_fit(error: &serde_json::Error) -> String {
    if error.is_data() {
        return error.to_string();
    }
    // What stands in the table is well-formed.
    format!("the payload is JSON that only a handler of raw JSON can take: {error}")
}

/// The handlers of a worker, by kind.
#[derive(Default)]
pub(crate) struct Handlers {
    by_kind: HashMap<&'static str, Registered>,
    any: Option<Registered>,
    twice: Option<&'static str>,
}

impl Handlers {
    pub(crate) fn add<A, H: Handler<A>>(&mut self, handler: H) {
        self.insert(H::Job::KIND, Registered::new(handler));
    }

    pub(crate) fn insert(&mut self, kind: &'static str, handler: Registered) {
        if self.by_kind.insert(kind, handler).is_some() {
            self.twice = Some(kind);
        }
    }

    pub(crate) fn add_any<F, Fut>(&mut self, handler: F, retry_policy: RetryPolicy)
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoOutcome,
    {
        let handler = Arc::new(handler);
        self.any = Some(Registered {
            call: Box::new(move |context| handler(context.clone()).map(IntoOutcome::into_outcome).boxed()),
            check: |_| Ok(()),
            timeout: None,
            retry_policy,
            gathers: None,
        });
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Registered> {
        self.by_kind.get(kind).or(self.any.as_ref())
    }

    /// What gathers jobs for those that work batches.
    pub(crate) fn gather(&self) -> impl Iterator<Item = &dyn Gathers> {
        self.by_kind.values().filter_map(|handler| handler.gathers.as_deref())
    }

    /// Whether they can work in these queues, with these states.
    pub(crate) fn check(&self, states: &States, queues: &[(String, usize)]) -> Result<()> {
        if let Some(kind) = self.twice {
            return Err(Error::invalid(format!("two handlers for the kind {kind:?}; a worker has one a kind")));
        }
        if self.by_kind.is_empty() && self.any.is_none() {
            return Err(Error::invalid("a worker needs a handler: give it one with .handle(…)"));
        }
        self.by_kind.iter().try_for_each(|(kind, handler)| {
            let of_it = |error| Error::invalid(format!("kind {kind:?}: {error}"));
            handler.timeout.map_or(Ok(()), check_timeout).map_err(of_it)?;
            (handler.check)(states)?;
            handler.gathers.as_ref().map_or(Ok(()), |gathers| gathers.fit(queues))
        })
    }
}
