//! Growing delays between tries while the database cannot be reached.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Wakes the parts of a worker that wait after a failure, as soon as the store answers one of these parts again.
#[derive(Clone, Default)]
pub(crate) struct Reconnected(Arc<watch::Sender<()>>);

/// The delays between the tries of one part of a worker: 50 ms after the first failure, doubled after each further
/// failure, up to 1 s. A delay ends early when the store answers another part again. The log gets one warning when the
/// failures begin, and one line when they end.
pub(crate) struct Backoff {
    what: &'static str,
    reconnected: Reconnected,
    failing_since: Option<Instant>,
    next: Duration,
}

/// The delay after a failure.
#[must_use = "the delay has to be awaited"]
pub(crate) struct Rest {
    delay: Duration,
    reconnected: watch::Receiver<()>,
}

impl Backoff {
    /// `what` completes the log message "cannot {what}; trying again".
    pub(crate) fn new(what: &'static str, reconnected: &Reconnected) -> Backoff {
        Backoff { what, reconnected: reconnected.clone(), failing_since: None, next: SHORTEST }
    }

    /// Logs a failure and returns the delay before the next try.
    pub(crate) fn failed(&mut self, error: &Error) -> Rest {
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
        Rest { delay: delay.mul_f64(0.75 + 0.5 * fastrand::f64()), reconnected: self.reconnected.0.subscribe() }
    }

    /// Notes a success. If the previous try had failed, wakes the other parts and returns true.
    pub(crate) fn worked(&mut self) -> bool {
        self.next = SHORTEST;
        let Some(since) = self.failing_since.take() else { return false };
        self.reconnected.0.send_replace(());
        tracing::info!(
            name: "worker.recovered", target: "reveille::worker", what = self.what, after = ?since.elapsed(),
            "can {} again", self.what
        );
        true
    }
}

impl Rest {
    pub(crate) fn at_most(self, longest: Duration) -> Rest {
        Rest { delay: self.delay.min(longest), ..self }
    }

    /// Waits until the delay is over, or until the store answers another part of the worker again.
    pub(crate) async fn over(mut self) {
        tokio::select! {
            () = tokio::time::sleep(self.delay) => {}
            Ok(()) = self.reconnected.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rested(backoff: &mut Backoff) -> Duration {
        let began = Instant::now();
        backoff.failed(&Error::unavailable("away")).over().await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_part_that_succeeds_again_wakes_the_others() {
        let reconnected = Reconnected::default();
        let (mut one, mut other) = (Backoff::new("one", &reconnected), Backoff::new("other", &reconnected));
        while rested(&mut other).await < LONGEST / 2 {}
        let _ = one.failed(&Error::unavailable("away"));
        let waking = async {
            tokio::time::sleep(SHORTEST / 2).await;
            assert!(one.worked());
        };
        let (took, ()) = futures::future::join(rested(&mut other), waking).await;
        assert!(took < SHORTEST, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_did_not_fail_wakes_no_other() {
        let reconnected = Reconnected::default();
        let (mut one, mut other) = (Backoff::new("one", &reconnected), Backoff::new("other", &reconnected));
        let working = async {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(!one.worked());
            }
        };
        let (took, ()) = futures::future::join(rested(&mut other), working).await;
        assert!(took >= SHORTEST * 3 / 4, "{took:?}");
    }
}
