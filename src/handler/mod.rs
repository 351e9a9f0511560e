//! Handlers: async functions of a job and of further arguments.
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # struct SendWelcome { user_id: i64 }
//! # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
//! use reveille::{Attempt, Context, Outcome, State, handler::Cancellation};
//!
//! #[derive(Clone)]
//! struct Mailer;
//!
//! // The job first. Then any of `State`, `Attempt`, `Context` and `Cancellation`, in any order.
//! async fn send_welcome(job: SendWelcome, State(mailer): State<Mailer>, attempt: Attempt) -> Result<(), String> {
//!     println!("user {}, attempt {}", job.user_id, attempt.number);
//!     # drop(mailer);
//!     Ok(())
//! }
//! # drop(reveille::Worker::builder(reveille::driver::Memory::new()).state(Mailer).handle(send_welcome));
//! ```
//!
//! The guide: [the first worker](crate::guide::start::first_worker), [errors and retries](crate::guide::jobs::errors),
//! [timeouts and cancelling](crate::guide::jobs::timeouts), [middleware](crate::guide::features::middleware),
//! [batches](crate::guide::features::batches).

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::ready;

use crate::error::{Error, Result};
use crate::job::linked::{RESERVED_KINDS, WORKFLOW_KIND};
use crate::job::outcome::{IntoOutcome, Outcome};
use crate::job::retry_policy::RetryPolicy;
use crate::job::{Job, check_timeout};

pub(crate) mod attempt;
pub(crate) mod batch;
pub(crate) mod cancellation;
pub(crate) mod durable;
#[cfg(feature = "encryption")]
pub(crate) mod encryption;
pub(crate) mod extract;
pub(crate) mod gather;
pub(crate) mod metadata;
pub(crate) mod middleware;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod propagation;
pub(crate) mod states;
pub(crate) mod steps;

pub use crate::workflow::Inputs;
pub use attempt::Attempt;
pub use batch::{Batch, BatchArguments, BatchHandler, BatchItem, ExtractShared, IntoOutcomes};
pub use cancellation::{Cancellation, KeptSlot, StopReason};
pub use durable::StepError;
#[cfg(feature = "encryption")]
pub use encryption::{EncryptedField, Encryption, EncryptionKey};
pub use extract::{Context, Extract, State};
pub use gather::Gather;
pub use middleware::{AttemptEnd, BoxFuture, EndKind, Middleware, Next};
pub use output::Output;
pub use propagation::Propagation;
pub use states::States;

/// An async function that works jobs of one kind.
///
/// The first argument of the function is the job, and decides the kind. Up to eight further arguments are
/// [extracted](Extract). The function returns anything that is [`IntoOutcome`]. This trait is implemented for all
/// functions and closures of one to nine arguments, never by hand. The trait [`Arguments`] checks the arguments, so
/// that the compiler's message names a wrong argument.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not an async function of a job and up to eight further arguments",
    note = "the first argument is the job, by value: a type that implements `Job`",
    note = "further arguments implement `Extract`: `State<T>`, `Context`, `Attempt`, `Cancellation`, `Enqueuer`",
    note = "the return type implements `IntoOutcome`: `()`, `Outcome`, `Completed<T>`, or a `Result` of one of these"
)]
pub trait Handler<A>: Send + Sync + 'static {
    /// The future that the function returns.
    type Future;

    /// Calls the function.
    fn call(&self, arguments: A) -> Self::Future;
}

/// The arguments of a [`Handler`]: a [`Job`], and up to eight further arguments that are [extracted](Extract).
///
/// This trait is implemented for tuples of these arguments, never by hand.
#[diagnostic::on_unimplemented(
    message = "a handler cannot take the arguments `{Self}`",
    note = "a handler takes a job and up to eight further arguments"
)]
pub trait Arguments: Sized {
    /// The job, which is the first argument.
    type Job: Job;

    /// Makes the arguments for an attempt at a job.
    fn extract(job: Self::Job, context: &Context) -> Self;

    /// Checks whether a worker with these states can make all arguments.
    ///
    /// # Errors
    /// Invalid if an argument cannot be made; the error names what is missing.
    fn check(states: &States) -> Result<()>;
}

macro_rules! handler {
    ($($argument:ident),*) => {
        impl<F, Fut, J, $($argument,)*> Handler<(J, $($argument,)*)> for F
        where
            F: Fn(J, $($argument,)*) -> Fut + Send + Sync + 'static,
        {
            type Future = Fut;

            #[allow(non_snake_case)]
            fn call(&self, (job, $($argument,)*): (J, $($argument,)*)) -> Fut {
                self(job, $($argument,)*)
            }
        }

        impl<J: Job, $($argument: Extract,)*> Arguments for (J, $($argument,)*) {
            type Job = J;

            fn extract(job: J, context: &Context) -> Self {
                let _ = context;
                (job, $($argument::extract(context),)*)
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

/// A handler with the settings of its kind. The handler's type is erased.
pub(crate) struct Registered {
    pub(crate) call: Box<Call>,
    pub(crate) check: fn(&States) -> Result<()>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry_policy: RetryPolicy,
    /// Gathers the jobs, if the handler works them in batches.
    pub(crate) gathers: Option<Box<dyn Gathers>>,
}

/// Gathers jobs for a handler of batches.
pub(crate) trait Gathers: Send + Sync {
    /// Limits the batches of each queue to the number of the worker's slots for the queue.
    ///
    /// # Errors
    /// Invalid if no queue has enough slots for a batch.
    fn fit(&self, queues: &[(String, usize)]) -> Result<()>;

    /// Runs the gathered jobs now, since no further jobs will come.
    fn run_gathered(&self);

    /// Starts all later batches without waiting for further jobs, since the worker shuts down.
    fn hurry(&self);
}

impl Registered {
    fn new<A, H>(handler: H) -> Registered
    where
        A: Arguments,
        H: Handler<A>,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        Registered {
            call: Box::new(move |context| match context.job().payload.decode() {
                Ok(job) => handler.call(A::extract(job, context)).map(IntoOutcome::into_outcome).boxed(),
                Err(error) => ready(Outcome::Undecodable(does_not_fit(&error))).boxed(),
            }),
            check: A::check,
            timeout: A::Job::TIMEOUT,
            retry_policy: A::Job::retry_policy(),
            gathers: None,
        }
    }

    fn of_context<F, Fut>(handler: F, retry_policy: RetryPolicy) -> Registered
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoOutcome> + Send + 'static,
    {
        Registered {
            call: Box::new(move |context| handler(context.clone()).map(IntoOutcome::into_outcome).boxed()),
            check: |_| Ok(()),
            timeout: None,
            retry_policy,
            gathers: None,
        }
    }

    /// Decodes the job and calls the handler.
    pub(crate) fn call(&self, context: &Context) -> BoxFuture<'static, Outcome> {
        (self.call)(context)
    }
}

/// Returns the error text for a payload that cannot be decoded to the handler's type.
pub(crate) fn does_not_fit(error: &serde_json::Error) -> String {
    if error.is_data() {
        return error.to_string();
    }
    // Stored JSON has no syntax error. The parser has refused it because it is nested too deep, or because one of its
    // numbers is too large.
    format!("the payload is JSON that only a handler of raw JSON can take: {error}")
}

/// The handlers of a worker, by kind.
#[derive(Default)]
pub(crate) struct Handlers {
    by_kind: HashMap<&'static str, Registered>,
    any: Option<Registered>,
    /// The handler of the jobs that start workflows. Each worker has it, so it is none of the worker's kinds.
    starter: Option<Registered>,
    twice: Option<&'static str>,
}

impl Handlers {
    pub(crate) fn add<A, H>(&mut self, handler: H)
    where
        A: Arguments,
        H: Handler<A>,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.insert(A::Job::KIND, Registered::new(handler));
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
        self.any = Some(Registered::of_context(handler, retry_policy));
    }

    pub(crate) fn add_starter<F, Fut>(&mut self, handler: F)
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.starter = Some(Registered::of_context(handler, RetryPolicy::default()));
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Registered> {
        if kind == WORKFLOW_KIND && self.starter.is_some() {
            return self.starter.as_ref();
        }
        self.by_kind.get(kind).or(self.any.as_ref())
    }

    /// The kinds that have a handler, sorted; `None` if every kind has one. `any`: the kinds that the handler of any
    /// kind works, if that is known.
    pub(crate) fn kinds(&self, any: Option<&[String]>) -> Option<Vec<String>> {
        if self.any.is_some() && any.is_none() {
            return None;
        }
        let mut kinds: Vec<String> = self.by_kind.keys().map(|&kind| kind.into()).collect();
        kinds.extend(any.unwrap_or_default().iter().cloned());
        kinds.sort();
        kinds.dedup();
        Some(kinds)
    }

    /// The gatherers of the handlers of batches.
    pub(crate) fn gatherers(&self) -> impl Iterator<Item = &dyn Gathers> {
        self.by_kind.values().filter_map(|handler| handler.gathers.as_deref())
    }

    /// Checks that a worker with these states and these queues can run all handlers.
    pub(crate) fn check(&self, states: &States, queues: &[(String, usize)]) -> Result<()> {
        if let Some(kind) = self.twice {
            return Err(Error::invalid(format!(
                "the kind {kind:?} has two handlers; give the worker one for each kind"
            )));
        }
        if let Some(kind) = self.by_kind.keys().find(|kind| kind.starts_with(RESERVED_KINDS)) {
            return Err(Error::invalid(format!(
                "the kind {kind:?} begins with {RESERVED_KINDS:?}, as only kinds of Reveille itself do; give the kind \
                 another name"
            )));
        }
        if self.by_kind.is_empty() && self.any.is_none() {
            return Err(Error::invalid("a worker needs a handler; give it one with .handle(…)"));
        }
        self.by_kind.iter().try_for_each(|(kind, handler)| {
            let of_it = |error| Error::invalid(format!("kind {kind:?}: {error}"));
            handler.timeout.map_or(Ok(()), check_timeout).map_err(of_it)?;
            (handler.check)(states)?;
            handler.gathers.as_ref().map_or(Ok(()), |gathers| gathers.fit(queues))
        })
    }
}
