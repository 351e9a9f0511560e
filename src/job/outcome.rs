//! How an attempt ends.

use std::any::Any;
use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

use crate::job::payload::Payload;

/// How a handler ends its attempt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done. What `()` and `Ok(())` mean.
    Complete,
    /// Done, and this JSON is kept as `result` with the finished job; [`Completed`] makes it of a value.
    CompleteWith(Payload),
    /// This attempt failed: recorded and tried again by the retry policy, or dead if it was the last. What `Err` means.
    Fail(String),
    /// This attempt failed: recorded and tried again after the given delay, or dead if it was the last.
    RetryIn(Duration, String),
    /// Not now: due again after the given delay; no failure.
    Snooze(Duration),
    /// Ended without being done; kept as `cancelled`.
    Cancel,
    /// Failed for good: dead at once, whatever attempts are left.
    Dead(String),
    /// The payload does not fit the kind: dead at once, as `undecodable`. What comes of a payload that the handler's
    /// type cannot be decoded from; for a middleware that cannot decrypt one, too.
    Undecodable(String),
}

/// What a handler may return: nothing, an [`Outcome`], [`Completed`] with a value, or a `Result` of these with any
/// error that displays.
pub trait IntoOutcome {
    /// The outcome it stands for.
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
            // `{:#}` makes error types that know a chain of causes (anyhow, eyre) print all of it.
            Err(error) => Outcome::Fail(format!("{error:#}")),
        }
    }
}

/// What is said of a panic.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("with something that is no text"))
}

/// Done, with a value that is kept as `result` with the finished job, for whoever asks or waits for it.
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
/// A value that is no JSON, or more than 8 MiB of it, is not kept, which is logged: the work is done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed<T>(pub T);

impl<T: Serialize> IntoOutcome for Completed<T> {
    fn into_outcome(self) -> Outcome {
        match Payload::encode_as("result", &self.0) {
            Ok(result) => Outcome::CompleteWith(result),
            Err(error) => {
                tracing::warn!(name: "job.result_dropped", target: "reveille::job", %error, "the result cannot be kept");
                Outcome::Complete
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_json_is_no_reason_to_fail() {
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
