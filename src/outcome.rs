//! How an attempt ends.

use std::any::Any;
use std::fmt::Display;
use std::time::Duration;

/// How a handler ends its attempt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done. What `()` and `Ok(())` mean.
    Complete,
    /// Done, and the value is kept as `result` with the finished job.
    CompleteWith(serde_json::Value),
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
    /// The payload does not fit the kind: dead at once, as `undecodable`. What comes of a payload that the handler's type cannot
    /// be decoded from; for a middleware that cannot decrypt one, too.
    Undecodable(String),
}

/// What a handler may return: nothing, an [`Outcome`], or a `Result` of these with any error that displays.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_becomes_the_outcome_of_its_value_or_a_failure() {
        assert_eq!(().into_outcome(), Outcome::Complete);
        assert_eq!(Ok::<_, String>(()).into_outcome(), Outcome::Complete);
        assert_eq!(Ok::<_, String>(Outcome::Cancel).into_outcome(), Outcome::Cancel);
        assert_eq!(Err::<(), _>("no such user").into_outcome(), Outcome::Fail("no such user".into()));
    }
}
