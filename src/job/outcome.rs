//! Outcomes: the values with which handlers end attempts.

use std::any::Any;
use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

use crate::job::payload::Payload;

/// The value with which a handler ends its attempt. It decides what becomes of the job.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The job is done. A handler that returns `()` or `Ok(())` means this.
    Complete,
    /// The job is done, and this JSON is kept as its `result`. [`Completed`] makes the JSON from a value.
    CompleteWith(Payload),
    /// This attempt failed. The job is tried again after the delay of its retry policy, or is dead if this attempt was
    /// the last. A handler that returns `Err` means this.
    Fail(String),
    /// This attempt failed. The job is tried again after this delay, or is dead if this attempt was the last.
    RetryIn(Duration, String),
    /// The job is due again after this delay, without a failure.
    Snooze(Duration),
    /// The job is cancelled: the job ends without being done.
    Cancel,
    /// The job failed permanently: the job is dead at once, although attempts may be left.
    Dead(String),
    /// The payload does not fit the kind: the job is dead at once, for the reason `undecodable`. Attempts end with this
    /// outcome if the payload does not decode to the handler's type. A middleware that cannot decrypt a payload returns
    /// this outcome too.
    Undecodable(String),
    /// The process in which the handler worked the job has died: this attempt failed, for the reason `lost`. The job is
    /// tried again as after [`Fail`](Outcome::Fail).
    Lost(String),
    /// The job is released: it is due again at once, without a failure, and keeps its place.
    Release,
    /// This worker has no handler for the kind after all: the job is due again after 10 s, without a failure.
    Unhandled,
}

/// Something that a handler may return: `()`, an [`Outcome`], [`Completed`] with a value, or a `Result` of one of these
/// with any error that implements `Display`.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "this type says nothing about how the attempt ended",
    note = "return `()`, `Outcome`, `Completed(value)` to keep a result, or a `Result` of one of these with an error \
            that implements `Display`"
)]
pub trait IntoOutcome {
    /// Returns the outcome that this value stands for.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Complete
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<T: IntoOutcome, E: Display> IntoOutcome for std::result::Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            // With `{:#}`, errors that hold a chain of causes (anyhow, eyre) print the whole chain.
            Err(error) => Outcome::Fail(format!("{error:#}")),
        }
    }
}

/// Returns the error text of an attempt that panicked.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("with a value that is not text"))
}

/// The outcome of a job that is done. The value is kept as the finished job's `result`.
///
/// ```
/// # use reveille::Job;
/// # use serde::{Deserialize, Serialize};
/// use reveille::job::Completed;
/// # #[derive(Serialize, Deserialize)] struct Count { text: String }
/// # impl Job for Count { const KIND: &'static str = "count"; }
/// #[derive(Serialize)]
/// struct Counted { words: usize }
///
/// async fn count(job: Count) -> Result<Completed<Counted>, String> {
///     Ok(Completed(Counted { words: job.text.split_whitespace().count() }))
/// }
/// ```
///
/// If the value does not serialize to JSON, or serializes to more than 8 MiB, the value is dropped with a warning: the
/// job is done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed<T>(pub T);

impl<T: Serialize> IntoOutcome for Completed<T> {
    fn into_outcome(self) -> Outcome {
        match Payload::encode_as("result", &self.0) {
            Ok(result) => Outcome::CompleteWith(result),
            Err(error) => {
                tracing::warn!(
                    name: "job.result_dropped", target: "reveille::job", %error,
                    "the job's result is dropped; the job is completed without it"
                );
                Outcome::Complete
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_cannot_be_stored_does_not_fail_the_job() {
        let no_json = std::collections::HashMap::from([((1, 2), 3)]);
        assert_eq!(Completed(no_json).into_outcome(), Outcome::Complete);
        assert_eq!(Completed("a\0b").into_outcome(), Outcome::Complete, "Postgres cannot store it");
    }

    #[test]
    fn a_result_becomes_the_outcome_of_its_value_or_a_failure() {
        assert_eq!(().into_outcome(), Outcome::Complete);
        assert_eq!(Ok::<_, String>(()).into_outcome(), Outcome::Complete);
        assert_eq!(Ok::<_, String>(Outcome::Cancel).into_outcome(), Outcome::Cancel);
        let result = Payload::parse(r#"[7,"a"]"#).unwrap();
        assert_eq!(Ok::<_, String>(Completed((7, "a"))).into_outcome(), Outcome::CompleteWith(result));
        assert_eq!(Err::<(), _>("no such user").into_outcome(), Outcome::Fail("no such user".into()));
    }
}
