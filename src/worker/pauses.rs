//! The number of times that a queue has been paused. A job that was claimed before a pause must not start after that
//! pause.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts the pauses of one queue, as far as this worker knows of them.
///
/// The worker need not know whether the queue is still paused, because a claim that begins after a pause reads this
/// from the database.
#[derive(Default)]
pub(crate) struct Pauses {
    count: AtomicU64,
    stale: Notify,
}

impl Pauses {
    /// Notes that the queue was paused just now.
    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.stale.notify_one();
    }

    /// Returns the number of pauses so far. Call this before a claim begins.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Notes that a claim that began before the last pause has returned jobs.
    pub(crate) fn notify_stale(&self) {
        self.stale.notify_one();
    }

    /// Waits for a pause, or for jobs from a claim that began before the last pause. The worker may then hold jobs that
    /// it must release.
    pub(crate) async fn wait_for_stale(&self) {
        self.stale.notified().await;
    }
}
