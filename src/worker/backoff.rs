//! Patience with a database that is away.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Tells all parts of a worker that wait out an outage when the store has answered one of them again.
#[derive(Clone, Default)]
pub(crate) struct Comeback(Arc<watch::Sender<()>>);

/// Waits longer after each failure in a row, but no longer than until the store has answered another part of the
/// worker. Says so once when the failures begin and once when they end.
pub(crate) struct Backoff {
    what: &'static str,
    comeback: Comeback,
    failing_since: Option<Instant>,
    next: Duration,
}

/// The wait after a failure.
#[must_use = "it has to be waited for"]
pub(crate) struct Rest {
    delay: Duration,
    back: watch::Receiver<()>,
}

impl Backoff {
    /// For doing `what`, as it should stand in the log.
    pub(crate) fn new(what: &'static str, comeback: &Comeback) -> Backoff {
        Backoff { what, comeback: comeback.clone(), failing_since: None, next: SHORTEST }
    }

    /// It failed: returns the wait before the next try.
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
        Rest { delay: delay.mul_f64(0.75 + 0.5 * fastrand::f64()), back: self.comeback.0.subscribe() }
    }

    /// It worked; whether it had failed before. If so, the other parts need not wait any longer.
    pub(crate) fn worked(&mut self) -> bool {
        self.next = SHORTEST;
        let Some(since) = self.failing_since.take() else { return false };
        self.comeback.0.send_replace(());
        tracing::info!(
            name: "worker.recovered", target: "reveille::worker", what = self.what, after = ?since.elapsed(),
            "can {} again", self.what
        );
        true
    }
}

impl Rest {
    /// No longer than this.
    pub(crate) fn at_most(self, longest: Duration) -> Rest {
        Rest { delay: self.delay.min(longest), ..self }
    }

    /// Until it is over, or another part of the worker has had an answer.
    pub(crate) async fn over(mut self) {
        tokio::select! {
            () = tokio::time::sleep(self.delay) => {}
            Ok(()) = self.back.changed() => {}
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
    async fn the_first_part_that_is_answered_wakes_the_others() {
        let comeback = Comeback::default();
        let (mut one, mut other) = (Backoff::new("one", &comeback), Backoff::new("other", &comeback));
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
    async fn who_had_no_trouble_wakes_nobody() {
        let comeback = Comeback::default();
        let (mut one, mut other) = (Backoff::new("one", &comeback), Backoff::new("other", &comeback));
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
