//! Patience with a database that is away.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Waits longer after each failure in a row, and says so once, when they begin and when they end.
pub(crate) struct Backoff {
    what: &'static str,
    failing_since: Option<Instant>,
    next: Duration,
}

impl Backoff {
    /// For doing `what`, as it should stand in the log.
    pub(crate) fn new(what: &'static str) -> Backoff {
        Backoff { what, failing_since: None, next: SHORTEST }
    }

    /// It failed: returns how long to wait before the next try.
    pub(crate) fn failed(&mut self, error: &Error) -> Duration {
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            tracing::warn!(
                name: "worker.failing", target: "reveille::worker", what = self.what, %error,
                "cannot {}; trying again", self.what
            );
        } else {
            tracing::debug!(
                name: "worker.still_failing", target: "reveille::worker", what = self.what, %error,
                "still cannot {}", self.what
            );
        }
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST);
        delay.mul_f64(0.75 + 0.5 * fastrand::f64())
    }

    /// It worked; whether it had failed before.
    pub(crate) fn worked(&mut self) -> bool {
        self.next = SHORTEST;
        let Some(since) = self.failing_since.take() else { return false };
        tracing::info!(
            name: "worker.recovered", target: "reveille::worker", what = self.what, after = ?since.elapsed(),
            "can {} again", self.what
        );
        true
    }
}
