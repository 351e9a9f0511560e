//! The heartbeat: says that this worker lives, watches the others, and rescues the jobs of those that died.
//!
//! On a thread and a connection of its own, so that neither busy handlers nor an empty pool look like death.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, Peer, Reason, Report, WorkerInfo};
use crate::error::{Error, Result};
use crate::handler::middleware::{AttemptEnd, How, Middlewares};
use crate::worker::attempt::reservations::Held;
use crate::worker::backoff::{Backoff, Comeback};
use crate::worker::parts::Parts;
use crate::worker::wake::Bells;

/// How often to look for jobs that no live worker holds even if nobody has died: those of a claim that raced with a rescue.
const LOOK_FOR_ORPHANS_EVERY: Duration = Duration::from_secs(30);

/// A worker whose session is gone is dead when it has missed so many beats.
const MISSED_BEATS: u32 = 3;
/// How long before others may declare it dead a worker that cannot beat tells its handlers to stop, if its session is not gone.
const MARGIN: Duration = Duration::from_secs(5);

/// No worker is held for dead sooner than some time after this; see `sql/beat.sql`.
const SOONEST: Duration = Duration::from_secs(1);

/// A worker's claim to be alive.
pub(crate) struct Lease {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) worker: WorkerInfo,
    /// The worker's current id, for those who claim.
    pub(crate) id: Arc<AtomicI64>,
    pub(crate) held: Arc<Held>,
    /// Rung when the worker begins anew: under its new id it has no bell armed.
    pub(crate) bells: Arc<Bells>,
    /// They hear of each attempt that was lost.
    pub(crate) middlewares: Arc<Middlewares>,
    /// Notified when the store is back: a crash may have undone what it had settled last.
    pub(crate) unsure: Arc<Notify>,
    /// Notified when its listener has to begin anew: to vouch for a new id, or on a session that is sure to hear.
    pub(crate) anew: Arc<Notify>,
    /// How many others work the same queues, for those who claim.
    pub(crate) sharing: Arc<AtomicUsize>,
    /// Whether it takes no more jobs.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Tripped when somebody asks for the worker to shut down.
    pub(crate) stop: CancellationToken,
    pub(crate) comeback: Comeback,
    pub(crate) parts: Parts,
    pub(crate) interval: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) rescuing: Backoff,
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
        let parts = self.parts.clone();
        let beat = move || {
            let good = Cell::new(Instant::now());
            let cut_off = CutOff::of(&self);
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = self.beat_forever(&good) => {}
                    () = cut_off.watch(&good) => {}
                }
            });
            stopped.is_cancelled()
        };
        let beating = move || match std::panic::catch_unwind(AssertUnwindSafe(beat)) {
            Ok(true) => {}
            ended => parts.ended("the heartbeat", ended.map(drop)),
        };
        let thread = std::thread::Builder::new().name("reveille-heartbeat".into()).spawn(beating);
        let thread = thread.map_err(|error| Error::unavailable(format!("start the heartbeat: {error}")))?;
        Ok(Heartbeat { stop, thread: Some(thread) })
    }

    /// `good`: when the last good beat began.
    async fn beat_forever(mut self, good: &Cell<Instant>) {
        let mut watch = Watch::default();
        let mut paused = Vec::new();
        let mut looked_for_orphans: Option<Instant> = None;
        let mut backoff = Backoff::new("beat", &self.comeback);
        loop {
            let began = Instant::now();
            // While this worker's own beats falter, so may everybody's: what was watched meanwhile counts for nothing.
            if began - good.get() > (self.interval * MISSED_BEATS).max(SOONEST) {
                watch = Watch::default();
            }
            match self.beat(&mut watch, &mut looked_for_orphans, &mut paused).await {
                Ok(()) => {
                    if backoff.worked() {
                        self.unsure.notify_one();
                        // Its session may be cut off without a sign of it.
                        self.anew.notify_one();
                    }
                    good.set(began);
                    tokio::time::sleep(self.interval).await;
                }
                Err(error) => {
                    watch = Watch::default();
                    backoff.failed(&error).at_most(self.interval).over().await;
                }
            }
        }
    }

    async fn beat(
        &mut self,
        watch: &mut Watch,
        looked_for_orphans: &mut Option<Instant>,
        paused: &mut Vec<String>,
    ) -> Result<()> {
        let stopping = self.stopping.load(Ordering::Relaxed);
        let report = Report { stopping, held: self.held.ids(), stuck: self.held.stuck() };
        let armed = self.bells.armed();
        let beat = self.driver.beat(self.worker.id, &report).await?;
        if !beat.alive {
            *looked_for_orphans = None;
            return self.begin_anew().await;
        }
        self.sharing.store(beat.sharing, Ordering::Relaxed);
        beat.cancel.into_iter().for_each(|id| self.held.cancel(id));
        if beat.stop {
            self.stop.cancel();
        }
        beat.paused.iter().filter(|queue| !paused.contains(queue)).for_each(|queue| self.bells.pause(queue));
        *paused = beat.paused;
        let silenced = |queue: &&String| armed.contains(*queue) && self.bells.silenced(queue);
        for queue in beat.unarmed.iter().filter(silenced) {
            tracing::warn!(
                name: "worker.bell_silenced", target: "reveille::worker", worker = self.worker.id, queue,
                "somebody has silenced the bell that was armed, as a restore does; arming it anew"
            );
        }
        let now = Instant::now();
        let dead = watch.dead(&beat.peers, &beat.gone, now, self.dead_after, self.interval * MISSED_BEATS);
        if !dead.is_empty() || looked_for_orphans.is_none_or(|at| now - at >= LOOK_FOR_ORPHANS_EVERY) {
            let rescue = match self.driver.rescue(self.worker.id, &dead).await {
                Ok(rescue) => rescue,
                Err(error) if error.is_unavailable() => return Err(error),
                // That this worker cannot rescue says nothing of its being alive.
                Err(error) => {
                    let _ = self.rescuing.failed(&error);
                    *looked_for_orphans = Some(now);
                    return Ok(());
                }
            };
            self.rescuing.worked();
            *looked_for_orphans = Some(now);
            watch.begin_anew(&dead);
            if !rescue.workers.is_empty() || !rescue.jobs.is_empty() {
                tracing::warn!(
                    name: "worker.rescued", target: "reveille::worker", workers = ?rescue.workers, jobs = rescue.jobs.len(),
                    "rescued the jobs of dead workers"
                );
            }
            rescue.jobs.iter().for_each(|&id| self.tell_of_lost(id, rescue.dead.contains(&id)));
        }
        Ok(())
    }

    /// What a worker says of its own attempts when they end, it says of those that another one has lost.
    fn tell_of_lost(&self, id: i64, is_dead: bool) {
        let error = "the worker that ran it died or was cut off";
        if is_dead {
            let reason = Reason::Lost.name();
            tracing::error!(name: "job.dead", target: "reveille::job", id, reason, error, "dead");
        }
        let (job, how, error, ran) = (None, How::Lost, Some(error), None);
        self.middlewares.ended(&AttemptEnd { id, job, how, error, is_dead, ran });
    }

    /// Others have declared this worker dead: what it runs is no longer its own.
    async fn begin_anew(&mut self) -> Result<()> {
        tracing::warn!(
            name: "worker.declared_dead", target: "reveille::worker", worker = self.worker.id,
            "declared dead by another worker; stopping what runs and beginning anew"
        );
        self.held.stop_all();
        self.worker.id = random_id();
        self.driver.register(&self.worker).await?;
        self.id.store(self.worker.id, Ordering::Release);
        self.anew.notify_one();
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

/// What a worker does that is cut off from the store: it tells its handlers to stop, before others may run their jobs.
struct CutOff {
    held: Arc<Held>,
    bells: Arc<Bells>,
    interval: Duration,
    dead_after: Duration,
}

impl CutOff {
    fn of(lease: &Lease) -> CutOff {
        CutOff {
            held: Arc::clone(&lease.held),
            bells: Arc::clone(&lease.bells),
            interval: lease.interval,
            dead_after: lease.dead_after,
        }
    }

    async fn watch(&self, good: &Cell<Instant>) {
        let (mut told_after, mut standstill) = (None, Standstill::new(Instant::now()));
        loop {
            tokio::time::sleep(self.interval / 8).await;
            if standstill.is_excuse(Instant::now(), good.get(), self.interval) {
                continue;
            }
            let silent = good.get().elapsed();
            if silent >= self.patience() && told_after != Some(good.get()) {
                told_after = Some(good.get());
                tracing::warn!(
                    name: "worker.cut_off", target: "reveille::worker", ?silent,
                    "cut off from the store; telling handlers to stop, as others may run their jobs soon"
                );
                self.held.stop_all();
            }
        }
    }

    /// How long it may be silent: not long once the session is gone that vouched for it.
    fn patience(&self) -> Duration {
        let late = self.dead_after.saturating_sub(MARGIN.min(self.dead_after / 4));
        if self.bells.is_deaf() {
            (self.interval * MISSED_BEATS - self.interval / 2).max(SOONEST).min(late)
        } else {
            late
        }
    }
}

/// Notices that this very process stood still, as when it was stopped: then the silence says nothing, and whether the worker is
/// cut off the next beat will tell.
struct Standstill {
    looked: Instant,
    /// The last one: after which good beat, and when it was over.
    last: Option<(Instant, Instant)>,
}

impl Standstill {
    fn new(now: Instant) -> Standstill {
        Standstill { looked: now, last: None }
    }

    /// To be asked several times an interval; excuses for one interval after a standstill, and once after each good beat.
    fn is_excuse(&mut self, now: Instant, good: Instant, interval: Duration) -> bool {
        self.last = self.last.filter(|(after, _)| *after == good);
        if now - self.looked > interval {
            self.last.get_or_insert((good, now));
        }
        self.looked = now;
        self.last.is_some_and(|(_, over)| now - over < interval)
    }
}

/// For how long each peer has been seen with the same last heartbeat, by this process's own clock: a stalled server or a
/// jump of its clock must not look like everybody's death.
#[derive(Default)]
struct Watch(HashMap<Peer, Instant>);

impl Watch {
    /// Those that have not beaten under this watch for `dead_after`; or, if their session is gone, for `gone_after`.
    fn dead(
        &mut self,
        peers: &[Peer],
        gone: &[i64],
        now: Instant,
        dead_after: Duration,
        gone_after: Duration,
    ) -> Vec<Peer> {
        self.0.retain(|peer, _| peers.contains(peer));
        let is_dead = |peer: &Peer| {
            let silent = now - *self.0.entry(*peer).or_insert(now);
            silent >= dead_after || (silent >= gone_after && gone.contains(&peer.id))
        };
        peers.iter().copied().filter(is_dead).collect()
    }

    /// These were to be declared dead. One that lives on has beaten, or its row is locked, so that it cannot beat for the moment.
    fn begin_anew(&mut self, peers: &[Peer]) {
        self.0.retain(|peer, _| !peers.contains(peer));
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

    fn dead(watch: &mut Watch, peers: &[Peer], now: Instant) -> Vec<Peer> {
        watch.dead(peers, &[7], now, 30 * SECOND, 3 * SECOND)
    }

    #[test]
    fn a_peer_whose_session_is_gone_is_dead_after_some_missed_beats() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let both = [peer(1, 0), peer(7, 0)];
        assert!(dead(&mut watch, &both, start).is_empty());
        assert!(dead(&mut watch, &both, start + 2 * SECOND).is_empty());
        assert_eq!(dead(&mut watch, &both, start + 3 * SECOND), [peer(7, 0)]);
    }

    #[test]
    fn a_peer_is_dead_only_after_its_silence_was_watched() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        assert!(dead(&mut watch, &[peer(1, 0)], start).is_empty(), "however long ago it was seen");
        assert!(dead(&mut watch, &[peer(1, 0)], start + 29 * SECOND).is_empty());
        assert_eq!(dead(&mut watch, &[peer(1, 0)], start + 30 * SECOND), [peer(1, 0)]);
    }

    #[test]
    fn a_beat_starts_the_watch_anew() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        dead(&mut watch, &[peer(1, 0)], start);
        dead(&mut watch, &[peer(1, 20)], start + 20 * SECOND);
        assert!(dead(&mut watch, &[peer(1, 20)], start + 40 * SECOND).is_empty());
    }

    #[test]
    fn a_process_that_stood_still_waits_for_one_beat_before_it_holds_itself_for_cut_off() {
        let start = Instant::now();
        let at = |tenths| start + SECOND * tenths / 10;
        let mut standstill = Standstill::new(start);
        assert!(!standstill.is_excuse(at(10), start, SECOND), "it has looked in time");
        assert!(standstill.is_excuse(at(60), start, SECOND), "it has been stopped for five seconds");
        assert!(standstill.is_excuse(at(69), start, SECOND));
        assert!(!standstill.is_excuse(at(70), start, SECOND), "no beat has come");
        assert!(!standstill.is_excuse(at(90), start, SECOND), "and it is not excused for ever");
        assert!(standstill.is_excuse(at(120), at(95), SECOND), "after a beat it is again");
    }

    #[test]
    fn one_silent_peer_does_not_drag_others_along() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        dead(&mut watch, &[peer(1, 0), peer(2, 0)], start);
        let dead = dead(&mut watch, &[peer(1, 0), peer(2, 29)], start + 31 * SECOND);
        assert_eq!(dead, [peer(1, 0)]);
    }
}
