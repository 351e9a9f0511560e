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
}

impl Output {
    /// The output's name, as in the tables: `result`, `progress` or `error`.
    pub fn name(&self) -> &'static str {
        match self {
            Output::Result(_) => "result",
            Output::Progress(_) => "progress",
            Output::Error(_) => "error",
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
}
