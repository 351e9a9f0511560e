//! The state that the parts of one worker share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, RwLock};
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, WorkerInfo};
use crate::worker::attempt::Attempts;
use crate::worker::attempt::reservations::HeldJobs;
use crate::worker::backoff::{Backoff, Reconnected};
use crate::worker::bells::Bells;
use crate::worker::health::Health;
use crate::worker::options::Options;
use crate::worker::parts::Parts;
use crate::worker::slot_count::SlotCounts;

/// The state that the parts of one worker share.
pub(crate) struct Shared {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) options: Arc<Options>,
    pub(crate) health: Health,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) held_jobs: Arc<HeldJobs>,
    pub(crate) bells: Arc<Bells>,
    pub(crate) slot_counts: SlotCounts,
    /// The worker's id. A worker that was declared dead goes on under a new id.
    id: AtomicI64,
    /// The number of other workers that work the same queues.
    sharing: AtomicUsize,
    /// A claim locks this for reading until this worker holds the claimed jobs. While the upkeep locks this for
    /// writing, no claim is under way: a job that is reserved for this worker and not held is then a stray.
    pub(crate) claiming: Arc<RwLock<()>>,
    /// Notified when the answer to a claim was lost. The upkeep then searches for strays: jobs that the lost claim has
    /// reserved for this worker.
    pub(crate) check_for_strays: Notify,
    /// The number of times that strays may have been released. Released strays are due again below the low-water marks,
    /// and no bell has rung for them.
    pub(crate) stray_releases: AtomicU64,
    /// Notified when the listener has to open a new session: for the worker's new id, or because the old session may be
    /// cut off unnoticed.
    pub(crate) listen_anew: Notify,
    /// Set once the shutdown has begun. From then on, the worker claims no more jobs.
    pub(crate) stopping: AtomicBool,
    /// Cancelled when `Admin::stop_worker` asks this worker to shut down.
    pub(crate) stop: CancellationToken,
    pub(crate) reconnected: Reconnected,
    pub(crate) parts: Parts,
}

impl Shared {
    /// Returns the state of a registered worker. `queues`: the queues whose bells wake the worker.
    pub(crate) fn new<'a>(
        info: &WorkerInfo,
        options: &Arc<Options>,
        health: &Health,
        attempts: Arc<Attempts>,
        queues: impl IntoIterator<Item = &'a str>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            driver: Arc::clone(&attempts.driver),
            options: Arc::clone(options),
            health: health.clone(),
            held_jobs: Arc::clone(&attempts.held_jobs),
            bells: Arc::new(Bells::new(queues)),
            slot_counts: SlotCounts::default(),
            id: AtomicI64::new(info.id),
            sharing: AtomicUsize::new(0),
            claiming: Arc::default(),
            check_for_strays: Notify::new(),
            stray_releases: AtomicU64::new(0),
            listen_anew: Notify::new(),
            stopping: AtomicBool::new(false),
            stop: CancellationToken::new(),
            reconnected: attempts.reconnected.clone(),
            parts: attempts.parts.clone(),
            attempts,
        })
    }

    pub(crate) fn id(&self) -> i64 {
        self.id.load(Ordering::Acquire)
    }

    pub(crate) fn set_id(&self, id: i64) {
        self.id.store(id, Ordering::Release);
    }

    /// The number of other workers that work the same queues, as of the last heartbeat.
    pub(crate) fn sharing(&self) -> usize {
        self.sharing.load(Ordering::Relaxed)
    }

    pub(crate) fn set_sharing(&self, others: usize) {
        self.sharing.store(others, Ordering::Relaxed);
    }

    /// Returns the delays between the tries of one part of the worker. `what`: the work that the part tries to do.
    pub(crate) fn backoff(&self, what: &'static str) -> Backoff {
        Backoff::new(what, &self.reconnected)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::driver::Memory;
    use crate::worker::Worker;

    /// Returns the state of a worker on these queues. The worker's only handler is for a kind without jobs.
    pub(crate) fn shared(memory: &Memory, queues: &[&str]) -> Arc<Shared> {
        let builder = Worker::builder(Arc::new(memory.clone())).handle(async |_: NoJob| {});
        let worker = queues.iter().fold(builder, |builder, queue| builder.queue(*queue, 1)).build().unwrap();
        let info = WorkerInfo { id: 1, ..worker.info() };
        let attempts = Arc::new(worker.attempts(&Arc::default()));
        Shared::new(&info, &worker.options, &worker.health, attempts, queues.iter().copied())
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct NoJob;

    impl crate::Job for NoJob {
        const KIND: &'static str = "no_job";
    }
}
