//! How often a queue has been paused. A job that was claimed before the last pause must not start after it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts the pauses of one queue that this worker knows of.
///
/// The count is enough: a claim that begins after a pause finds out from the database whether the queue is still
/// paused.
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

    /// The number of pauses so far. Read it before a claim begins.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Notes that a claim which began before the last pause has returned jobs.
    pub(crate) fn notify_stale(&self) {
        self.stale.notify_one();
    }

    /// Waits until jobs that were claimed before the last pause may have to be released.
    pub(crate) async fn wait_for_stale(&self) {
        self.stale.notified().await;
    }
}
