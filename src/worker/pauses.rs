//! How often a queue has been paused: what was claimed before the last time is not started after it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The pauses of one queue that this worker has heard of.
///
/// Nothing else need be known: a claim that begins after a pause was heard of sees for itself whether the queue is
/// still paused.
#[derive(Default)]
pub(crate) struct Pauses {
    count: AtomicU64,
    stale: Notify,
}

impl Pauses {
    /// It was paused just now.
    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.stale.notify_one();
    }

    /// How many there were. To be asked before a claim begins.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Something is here that was claimed before the last of them.
    pub(crate) fn found_stale(&self) {
        self.stale.notify_one();
    }

    /// Waits until something may have to go back.
    pub(crate) async fn stale(&self) {
        self.stale.notified().await;
    }
}
