//! What the parts of one worker share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, RwLock};
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, WorkerInfo};
use crate::worker::attempt::Attempts;
use crate::worker::attempt::reservations::Held;
use crate::worker::backoff::{Backoff, Comeback};
use crate::worker::bells::Bells;
use crate::worker::options::Options;
use crate::worker::parts::Parts;

/// What the parts of one worker share.
pub(crate) struct Shared {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) options: Arc<Options>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) held: Arc<Held>,
    pub(crate) bells: Arc<Bells>,
    /// The worker's id, which changes if it is declared dead.
    id: AtomicI64,
    /// How many other workers work the same queues.
    sharing: AtomicUsize,
    /// Read from the beginning of a claim until what it reserved is known to be held.
    pub(crate) claiming: Arc<RwLock<()>>,
    /// Notified when this worker may have reserved jobs that it does not know of, which have to be put back.
    pub(crate) unsure: Notify,
    /// How often jobs may have come back that a lost claim had reserved: below the marks, and in silence.
    pub(crate) came_back: AtomicU64,
    /// Notified when the listener has to begin anew: to vouch for a new id, or on a session that is sure to hear.
    pub(crate) listen_anew: Notify,
    /// Whether the shutdown has begun, so that no more jobs are claimed.
    pub(crate) stopping: AtomicBool,
    /// Tripped when somebody asks for the worker to shut down.
    pub(crate) stop: CancellationToken,
    pub(crate) comeback: Comeback,
    pub(crate) parts: Parts,
}

impl Shared {
    /// For a worker that has introduced itself; `rung` are the queues that it is to be woken for.
    pub(crate) fn new<'a>(
        info: &WorkerInfo,
        options: &Arc<Options>,
        attempts: Arc<Attempts>,
        rung: impl IntoIterator<Item = &'a str>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            driver: Arc::clone(&attempts.driver),
            options: Arc::clone(options),
            held: Arc::clone(&attempts.held),
            bells: Arc::new(Bells::new(rung)),
            id: AtomicI64::new(info.id),
            sharing: AtomicUsize::new(0),
            claiming: Arc::default(),
            unsure: Notify::new(),
            came_back: AtomicU64::new(0),
            listen_anew: Notify::new(),
            stopping: AtomicBool::new(false),
            stop: CancellationToken::new(),
            comeback: attempts.comeback.clone(),
            parts: attempts.parts.clone(),
            attempts,
        })
    }

    pub(crate) fn id(&self) -> i64 {
        self.id.load(Ordering::Acquire)
    }

    /// The worker goes on under another id.
    pub(crate) fn set_id(&self, id: i64) {
        self.id.store(id, Ordering::Release);
    }

    pub(crate) fn sharing(&self) -> usize {
        self.sharing.load(Ordering::Relaxed)
    }

    pub(crate) fn set_sharing(&self, others: usize) {
        self.sharing.store(others, Ordering::Relaxed);
    }

    /// The patience of one of the parts, for doing `what`.
    pub(crate) fn backoff(&self, what: &'static str) -> Backoff {
        Backoff::new(what, &self.comeback)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::driver::Memory;
    use crate::worker::Worker;

    /// What the parts of a worker without handlers share, of these queues.
    pub(crate) fn shared(memory: &Memory, queues: &[&str]) -> Arc<Shared> {
        let builder = Worker::builder(Arc::new(memory.clone())).handle(async |_: NoJob| {});
        let worker = queues.iter().fold(builder, |builder, queue| builder.queue(*queue, 1)).build().unwrap();
        let info = WorkerInfo { id: 1, ..worker.info() };
        let attempts = Arc::new(worker.attempts(&Arc::default()));
        Shared::new(&info, &worker.options, attempts, queues.iter().copied())
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct NoJob;

    impl crate::Job for NoJob {
        const KIND: &'static str = "no_job";
    }
}
