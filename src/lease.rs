//! The heartbeat: says that this worker lives, watches the others, and rescues the jobs of those that died.
//!
//! On a thread and a connection of its own, so that neither busy handlers nor an empty pool look like death.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::driver::{Driver, Peer, WorkerInfo};
use crate::error::{Error, Result};
use crate::held::Held;
use crate::wake::Bells;

/// How often to look for jobs that no live worker holds even if nobody has died: those of a claim that raced with a rescue.
const LOOK_FOR_ORPHANS_EVERY: Duration = Duration::from_secs(30);

/// A worker's claim to be alive.
pub(crate) struct Lease {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) worker: WorkerInfo,
    /// The worker's current id, for those who claim.
    pub(crate) id: Arc<AtomicI64>,
    pub(crate) held: Arc<Held>,
    /// Rung when the worker begins anew: under its new id it has no bell armed.
    pub(crate) bells: Arc<Bells>,
    /// How many others work the same queues, for those who claim.
    pub(crate) sharing: Arc<AtomicUsize>,
    /// Whether it takes no more jobs.
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) interval: Duration,
    pub(crate) dead_after: Duration,
}

/// The running heartbeat.
pub(crate) struct Heartbeat {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Lease {
    /// Starts the heartbeat.
    pub(crate) fn keep(self) -> Result<Heartbeat> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::unavailable(format!("start the heartbeat: {error}")))?;
        let beating = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = self.beat_forever() => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("reveille-heartbeat".into()).spawn(beating);
        let thread = thread.map_err(|error| Error::unavailable(format!("start the heartbeat: {error}")))?;
        Ok(Heartbeat { stop, thread: Some(thread) })
    }

    async fn beat_forever(mut self) {
        let mut watch = Watch::default();
        let mut looked_for_orphans: Option<Instant> = None;
        let mut backoff = Backoff::new("beat");
        loop {
            let delay = match self.beat(&mut watch, &mut looked_for_orphans).await {
                Ok(()) => {
                    backoff.worked();
                    self.interval
                }
                Err(error) => {
                    // What was watched over a broken connection counts for nothing.
                    watch = Watch::default();
                    backoff.failed(&error).min(self.interval)
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    async fn beat(&mut self, watch: &mut Watch, looked_for_orphans: &mut Option<Instant>) -> Result<()> {
        let beat = self.driver.beat(self.worker.id, self.stopping.load(Ordering::Relaxed)).await?;
        if !beat.alive {
            *looked_for_orphans = None;
            return self.begin_anew().await;
        }
        self.sharing.store(beat.sharing, Ordering::Relaxed);
        beat.cancel.into_iter().for_each(|id| self.held.cancel(id));
        let now = Instant::now();
        let dead = watch.dead(&beat.peers, now, self.dead_after);
        if !dead.is_empty() || looked_for_orphans.is_none_or(|at| now - at >= LOOK_FOR_ORPHANS_EVERY) {
            let rescue = self.driver.rescue(self.worker.id, &dead).await?;
            *looked_for_orphans = Some(now);
            if !rescue.workers.is_empty() || !rescue.jobs.is_empty() {
                tracing::warn!(workers = ?rescue.workers, jobs = rescue.jobs.len(), "rescued the jobs of dead workers");
            }
        }
        Ok(())
    }

    /// Others have declared this worker dead: what it runs is no longer its own.
    async fn begin_anew(&mut self) -> Result<()> {
        tracing::warn!(
            worker = self.worker.id,
            "declared dead by another worker; stopping what runs and beginning anew"
        );
        self.held.stop_all();
        self.worker.id = random_id();
        self.driver.register(&self.worker).await?;
        self.id.store(self.worker.id, Ordering::Release);
        self.bells.ring_all();
        Ok(())
    }
}

/// An id that no other worker has or has had: a crash or fail-over must not make one repeat.
pub(crate) fn random_id() -> i64 {
    fastrand::i64(1..)
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// For how long each peer has been seen with the same last heartbeat, by this process's own clock: a stalled server or a
/// jump of its clock must not look like everybody's death.
#[derive(Default)]
struct Watch(HashMap<Peer, Instant>);

impl Watch {
    /// Those that have not beaten for `dead_after` under this watch.
    fn dead(&mut self, peers: &[Peer], now: Instant, dead_after: Duration) -> Vec<Peer> {
        self.0.retain(|peer, _| peers.contains(peer));
        peers.iter().copied().filter(|&peer| now - *self.0.entry(peer).or_insert(now) >= dead_after).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(id: i64, seen: u64) -> Peer {
        Peer { id, last_seen_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seen) }
    }

    #[test]
    fn a_peer_is_dead_only_after_its_silence_was_watched() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        assert!(watch.dead(&[peer(1, 0)], start, 30 * SECOND).is_empty(), "however long ago it was seen");
        assert!(watch.dead(&[peer(1, 0)], start + 29 * SECOND, 30 * SECOND).is_empty());
        assert_eq!(watch.dead(&[peer(1, 0)], start + 30 * SECOND, 30 * SECOND), [peer(1, 0)]);
    }

    #[test]
    fn a_beat_starts_the_watch_anew() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.dead(&[peer(1, 0)], start, 30 * SECOND);
        watch.dead(&[peer(1, 20)], start + 20 * SECOND, 30 * SECOND);
        assert!(watch.dead(&[peer(1, 20)], start + 40 * SECOND, 30 * SECOND).is_empty());
    }

    #[test]
    fn one_silent_peer_does_not_drag_others_along() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.dead(&[peer(1, 0), peer(2, 0)], start, 30 * SECOND);
        let dead = watch.dead(&[peer(1, 0), peer(2, 29)], start + 31 * SECOND, 30 * SECOND);
        assert_eq!(dead, [peer(1, 0)]);
    }
}
