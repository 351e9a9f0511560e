//! What passes between an attempt and its running handler: the request to stop, and the slot that the handler keeps.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::{CancellationToken, DropGuard};

/// Says when a handler should stop: its job is being cancelled, its timeout is over, its worker shuts down, or its
/// reservation is lost. A cancel does not stop a handler that ignores its cancellation.
#[derive(Debug, Clone, Default)]
pub struct Cancellation {
    token: CancellationToken,
    signals: Arc<Signals>,
}

#[derive(Debug, Default)]
struct Signals {
    /// The reason of the first request to stop.
    reason: OnceLock<StopReason>,
    /// Cancelled once the slot is free, if the handler keeps its slot.
    kept_slot: OnceLock<CancellationToken>,
}

/// The reason why a handler should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The job is being cancelled.
    Cancelled,
    /// The attempt has reached its timeout.
    TimedOut,
    /// The worker shuts down, and its grace period is over.
    Shutdown,
    /// The worker no longer holds the job, or cannot know whether it does.
    Lost,
}

impl StopReason {
    /// Returns the name of the reason in the pipe protocol.
    pub fn name(self) -> &'static str {
        match self {
            StopReason::Cancelled => "cancelled",
            StopReason::TimedOut => "timed_out",
            StopReason::Shutdown => "shutdown",
            StopReason::Lost => "lost",
        }
    }
}

impl Cancellation {
    /// Waits until the handler should stop, for `tokio::select!`.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// True if the handler should stop now.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The reason of the first request to stop; `None` if there was no request yet.
    pub fn reason(&self) -> Option<StopReason> {
        self.signals.reason.get().copied()
    }

    /// Asks the handler to stop. The reason of the first call counts.
    pub(crate) fn request(&self, reason: StopReason) {
        let _ = self.signals.reason.set(reason);
        self.token.cancel();
    }

    pub(crate) fn keep_slot(&self) -> KeptSlot {
        let slot = self.signals.kept_slot.get_or_init(CancellationToken::new);
        KeptSlot { _guard: slot.clone().drop_guard() }
    }

    /// Waits until the handler no longer keeps its slot.
    pub(crate) async fn slot_is_free(&self) {
        if let Some(slot) = self.signals.kept_slot.get() {
            slot.cancelled().await;
        }
    }
}

/// The slot of an attempt, kept although the attempt may have ended; from
/// [`Context::keep_slot`](crate::Context::keep_slot). Dropping this frees the slot.
#[derive(Debug)]
#[must_use]
pub struct KeptSlot {
    _guard: DropGuard,
}
