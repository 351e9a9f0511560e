//! Handlers: async functions of a job and whatever else they ask for.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::{Error, Result};
use crate::extract::{Context, Extract, States};
use crate::job::Job;
pub use crate::outcome::Completed;
use crate::outcome::{IntoOutcome, Outcome};
use crate::retry::RetryPolicy;

/// An async function that works jobs of one kind.
///
/// Its first argument is the job, and says the kind; up to eight more are [extracted](Extract); it returns anything that is
/// [`IntoOutcome`]. Implemented for such functions and closures, never by hand.
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

type Call = dyn Fn(&Context) -> serde_json::Result<BoxFuture<'static, Outcome>> + Send + Sync;

/// A handler with its kind's settings, its type forgotten.
pub(crate) struct Registered {
    call: Box<Call>,
    check: fn(&States) -> Result<()>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry_policy: RetryPolicy,
}

impl Registered {
    fn new<A, H: Handler<A>>(handler: H) -> Registered {
        Registered {
            call: Box::new(move |context| Ok(handler.call(context.job().payload.decode()?, context))),
            check: H::check,
            timeout: H::Job::TIMEOUT,
            retry_policy: H::Job::retry_policy(),
        }
    }

    /// Decode the job and start on it.
    pub(crate) fn call(&self, context: &Context) -> serde_json::Result<BoxFuture<'static, Outcome>> {
        (self.call)(context)
    }
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
        if self.by_kind.insert(H::Job::KIND, Registered::new(handler)).is_some() {
            self.twice = Some(H::Job::KIND);
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
            call: Box::new(move |context| Ok(handler(context.clone()).map(IntoOutcome::into_outcome).boxed())),
            check: |_| Ok(()),
            timeout: None,
            retry_policy,
        });
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Registered> {
        self.by_kind.get(kind).or(self.any.as_ref())
    }

    pub(crate) fn check(&self, states: &States) -> Result<()> {
        if let Some(kind) = self.twice {
            return Err(Error::invalid(format!("two handlers for the kind {kind:?}; a worker has one a kind")));
        }
        if self.by_kind.is_empty() && self.any.is_none() {
            return Err(Error::invalid("a worker needs a handler: give it one with .handle(…)"));
        }
        self.by_kind.values().try_for_each(|handler| (handler.check)(states))
    }
}
