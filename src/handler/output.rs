//! What an attempt writes to the store: its result, its progress, and the text of its error.

use crate::error::Result;
use crate::job::{Payload, ReservedJob};

/// Something that an attempt writes to the store, for [`Middleware::store`](crate::handler::Middleware::store).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// The result of a completed job.
    Result(Payload),
    /// A report of progress.
    Progress(Payload),
    /// The text of the error of a failed attempt.
    Error(String),
    /// The value of a step.
    Step(Payload),
}

impl Output {
    /// The output's name, as in the tables: `result`, `progress`, `error` or `step`.
    pub fn name(&self) -> &'static str {
        match self {
            Output::Result(_) => "result",
            Output::Progress(_) => "progress",
            Output::Error(_) => "error",
            Output::Step(_) => "step",
        }
    }
}

/// The middlewares that an output passes on its way to the store.
pub(crate) trait Outputs: Send + Sync {
    /// Returns the output as it is stored.
    ///
    /// # Errors
    /// Refused if a middleware refuses the output, or panics.
    fn pass(&self, job: &ReservedJob, output: Output) -> Result<Output>;

    /// Returns a stored output as it was before [`pass`](Outputs::pass).
    ///
    /// # Errors
    /// Invalid if a middleware cannot read the output, or panics.
    fn load(&self, job: &ReservedJob, output: Output) -> Result<Output>;
}
