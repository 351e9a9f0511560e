//! The argument and the result of a handler that works many jobs at once.

use std::fmt::Display;
use std::ops::Deref;

use crate::error::Result;
use crate::handler::cancellation::Cancellation;
use crate::handler::extract::{Context, Extract, State};
use crate::handler::states::States;
use crate::job::Job;
use crate::job::outcome::{IntoOutcome, Outcome};

/// Jobs of one kind and one queue that are worked together: a slice, in the order of their ids.
#[derive(Clone)]
pub struct Batch<J> {
    pub(super) items: Vec<BatchItem<J>>,
    pub(super) stop: Cancellation,
}

/// One job of a batch.
#[derive(Clone)]
#[non_exhaustive]
pub struct BatchItem<J> {
    /// The job.
    pub job: J,
    /// The context of the job's attempt: the job's id, the attempt's number, and the attempt's cancellation.
    pub context: Context,
}

impl<J> Batch<J> {
    /// Returns the cancellation of the whole batch. It says that the handler should stop once every job of the batch
    /// should stop. The context of each job says when that job alone should stop.
    pub fn cancellation(&self) -> Cancellation {
        self.stop.clone()
    }
}

impl<J> Deref for Batch<J> {
    type Target = [BatchItem<J>];

    fn deref(&self) -> &[BatchItem<J>] {
        &self.items
    }
}

impl<J> IntoIterator for Batch<J> {
    type Item = BatchItem<J>;
    type IntoIter = std::vec::IntoIter<BatchItem<J>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, J> IntoIterator for &'a Batch<J> {
    type Item = &'a BatchItem<J>;
    type IntoIter = std::slice::Iter<'a, BatchItem<J>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// Something that a batch handler may return.
///
/// - Anything that is [`IntoOutcome`]: the same outcome for all jobs.
/// - A `Vec` of values that are [`IntoOutcome`]: one value for each job, in the batch's order.
/// - A `Result` with this `Vec`: an error fails every job.
#[diagnostic::on_unimplemented(
    message = "a batch handler cannot return `{Self}`",
    label = "this type says nothing about how the attempts ended",
    note = "return `()`, `Outcome`, a `Vec` of one outcome per job, or a `Result` of one of these with an error that \
            implements `Display`"
)]
pub trait IntoOutcomes {
    /// Returns one outcome for each job of a batch of `jobs` jobs.
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome>;
}

impl<T: IntoOutcome> IntoOutcomes for T {
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome> {
        vec![self.into_outcome(); jobs]
    }
}

impl<T: IntoOutcome> IntoOutcomes for Vec<T> {
    /// A wrong number of outcomes fails all jobs, since no outcome can be assigned to its job.
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome> {
        if self.len() == jobs {
            return self.into_iter().map(IntoOutcome::into_outcome).collect();
        }
        let error = format!("the handler of a batch of {jobs} jobs returned {} outcomes, not one per job", self.len());
        vec![Outcome::Fail(error); jobs]
    }
}

impl<T: IntoOutcome, E: Display> IntoOutcomes for std::result::Result<Vec<T>, E> {
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome> {
        match self {
            Ok(outcomes) => outcomes.into_outcomes(jobs),
            Err(error) => Err::<(), E>(error).into_outcomes(jobs),
        }
    }
}

/// An async function that works many jobs of one kind at once.
///
/// The first argument of the function is the [`Batch`]; the type of its jobs decides the kind. Up to four further
/// arguments are [`State`]s. The function returns anything that is [`IntoOutcomes`]. This trait is implemented for all
/// functions and closures of one to five arguments, never by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of batches",
    label = "not an async function of a `Batch` and up to four further arguments",
    note = "the first argument is a `Batch<J>`, by value, of a type that implements `Job`; further ones are `State<T>`",
    note = "the return type implements `IntoOutcomes`: `()`, `Outcome`, a `Vec` of one outcome per job, or a `Result` \
            of one of these"
)]
pub trait BatchHandler<A>: Send + Sync + 'static {
    /// The future that the function returns.
    type Future;

    /// Calls the function.
    fn call(&self, arguments: A) -> Self::Future;
}

/// The arguments of a [`BatchHandler`]: a [`Batch`], and up to four [`State`]s.
///
/// This trait is implemented for tuples of these arguments, never by hand.
#[diagnostic::on_unimplemented(
    message = "a handler of batches cannot take the arguments `{Self}`",
    note = "the first argument must be a `Batch<J>`; up to four further ones are `State<T>`"
)]
pub trait BatchArguments: Sized {
    /// The type of the batch's jobs.
    type Job: Job;

    /// Makes the arguments for a batch. `context` is the context of the first job.
    fn extract(batch: Batch<Self::Job>, context: &Context) -> Self;

    /// Checks whether a worker with these states can make all arguments.
    ///
    /// # Errors
    /// Invalid if an argument cannot be made; the error names what is missing.
    fn check(states: &States) -> Result<()>;
}

/// An argument that is the same for all jobs of a batch: a [`State`].
#[diagnostic::on_unimplemented(
    message = "a handler of batches cannot take an argument of type `{Self}`",
    label = "not a `State<T>`",
    note = "behind its `Batch`, a handler of batches takes only `State<T>`; each item of the batch has a `context`"
)]
pub trait ExtractShared: Extract {}

impl<T: Clone + Send + Sync + 'static> ExtractShared for State<T> {}

macro_rules! batch_handler {
    ($($argument:ident),*) => {
        impl<F, Fut, B, $($argument,)*> BatchHandler<(B, $($argument,)*)> for F
        where
            F: Fn(B, $($argument,)*) -> Fut + Send + Sync + 'static,
        {
            type Future = Fut;

            #[allow(non_snake_case)]
            fn call(&self, (batch, $($argument,)*): (B, $($argument,)*)) -> Fut {
                self(batch, $($argument,)*)
            }
        }

        impl<J: Job, $($argument: ExtractShared,)*> BatchArguments for (Batch<J>, $($argument,)*) {
            type Job = J;

            fn extract(batch: Batch<J>, context: &Context) -> Self {
                let _ = context;
                (batch, $($argument::extract(context),)*)
            }

            fn check(states: &States) -> Result<()> {
                let _ = states;
                $($argument::check(states)?;)*
                Ok(())
            }
        }
    };
}

batch_handler!();
batch_handler!(A);
batch_handler!(A, C);
batch_handler!(A, C, D);
batch_handler!(A, C, D, E);
