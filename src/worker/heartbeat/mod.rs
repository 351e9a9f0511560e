//! The heartbeat: says that this worker lives, watches the others, and rescues the jobs of those that died.
//!
//! On a thread and a connection of its own, so that neither busy handlers nor an empty pool look like death.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::driver::{Beat, FailureReason, Peer, Report, WorkerInfo};
use crate::error::{Error, Result};
use crate::handler::middleware::{AttemptEnd, EndKind};
use crate::worker::backoff::Backoff;
use crate::worker::random_id;
use crate::worker::shared::Shared;

mod cut_off;
mod watch;

use cut_off::CutOff;
use watch::Watch;

/// How often to look for jobs that no live worker holds even if nobody has died: those of a claim that raced with a
/// rescue.
const LOOK_FOR_ORPHANS_EVERY: Duration = Duration::from_secs(30);

/// A worker whose session is gone is dead when it has missed so many beats.
const MISSED_BEATS: u32 = 3;

/// No worker is held for dead sooner than some time after this; see `sql/beat.sql`.
const SOONEST: Duration = Duration::from_secs(1);

/// A worker's claim to be alive.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    worker: WorkerInfo,
    rescuing: Backoff,
}

/// The running heartbeat.
pub(crate) struct Heartbeat {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Lease {
    pub(crate) fn new(shared: &Arc<Shared>, worker: WorkerInfo) -> Lease {
        Lease { rescuing: shared.backoff("rescue jobs"), shared: Arc::clone(shared), worker }
    }

    /// Starts the heartbeat.
    pub(crate) fn keep(self) -> Result<Heartbeat> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::unavailable(format!("start the heartbeat: {error}")))?;
        let parts = self.shared.parts.clone();
        let beat = move || {
            let good = Cell::new(Instant::now());
            let cut_off = CutOff::new(&self.shared);
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
        let mut backoff = self.shared.backoff("beat");
        loop {
            let began = Instant::now();
            // While this worker's own beats falter, so may everybody's: what was watched meanwhile counts for nothing.
            if began - good.get() > (self.shared.options.heartbeat * MISSED_BEATS).max(SOONEST) {
                watch = Watch::default();
            }
            match self.beat(&mut watch, &mut looked_for_orphans, &mut paused).await {
                Ok(()) => {
                    if backoff.worked() {
                        self.shared.unsure.notify_one();
                        // Its session may be cut off without a sign of it.
                        self.shared.listen_anew.notify_one();
                    }
                    good.set(began);
                    tokio::time::sleep(self.shared.options.heartbeat).await;
                }
                Err(error) => {
                    watch = Watch::default();
                    backoff.failed(&error).at_most(self.shared.options.heartbeat).over().await;
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
        let stopping = self.shared.stopping.load(Ordering::Relaxed);
        let report = Report { stopping, held: self.shared.held.ids(), stuck: self.shared.held.stuck() };
        let armed = self.shared.bells.armed();
        let beat = self.shared.driver.beat(self.worker.id, &report).await?;
        if !beat.alive {
            *looked_for_orphans = None;
            return self.begin_anew().await;
        }
        self.take_notice(&beat, &armed, paused);
        let now = Instant::now();
        let dead = watch.dead(
            &beat.peers,
            &beat.gone,
            now,
            self.shared.options.dead_after(),
            self.shared.options.heartbeat * MISSED_BEATS,
        );
        if !dead.is_empty() || looked_for_orphans.is_none_or(|at| now - at >= LOOK_FOR_ORPHANS_EVERY) {
            self.rescue(&dead, watch).await?;
            *looked_for_orphans = Some(now);
        }
        Ok(())
    }

    /// Passes on what a heartbeat has brought: cancels, pauses, a stop, and bells that were silenced.
    fn take_notice(&self, beat: &Beat, armed: &[String], paused: &mut Vec<String>) {
        self.shared.set_sharing(beat.sharing);
        beat.cancel.iter().for_each(|id| self.shared.held.cancel(*id));
        if beat.stop {
            self.shared.stop.cancel();
        }
        beat.paused.iter().filter(|queue| !paused.contains(queue)).for_each(|queue| self.shared.bells.pause(queue));
        paused.clone_from(&beat.paused);
        let silenced = |queue: &&String| armed.contains(*queue) && self.shared.bells.silenced(queue);
        for queue in beat.unarmed.iter().filter(silenced) {
            tracing::warn!(
                name: "worker.bell_silenced", target: "reveille::worker", worker = self.worker.id, queue,
                "somebody has silenced the bell that was armed, as a restore does; arming it anew"
            );
        }
    }

    /// Rescues the jobs of these peers, and those that no live worker holds.
    async fn rescue(&mut self, dead: &[Peer], watch: &mut Watch) -> Result<()> {
        let rescue = match self.shared.driver.rescue(self.worker.id, dead).await {
            Ok(rescue) => rescue,
            Err(error) if error.is_unavailable() => return Err(error),
            // That this worker cannot rescue says nothing of its being alive.
            Err(error) => {
                let _ = self.rescuing.failed(&error);
                return Ok(());
            }
        };
        self.rescuing.worked();
        watch.begin_anew(dead);
        if !rescue.workers.is_empty() || !rescue.jobs.is_empty() {
            tracing::warn!(
                name: "worker.rescued", target: "reveille::worker", workers = ?rescue.workers, jobs = rescue.jobs.len(),
                "rescued the jobs of dead workers"
            );
        }
        rescue.jobs.iter().for_each(|&id| self.tell_of_lost(id, rescue.dead.contains(&id)));
        Ok(())
    }

    /// What a worker says of its own attempts when they end, it says of those that another one has lost.
    fn tell_of_lost(&self, id: i64, is_dead: bool) {
        let error = "the worker that ran it died or was cut off";
        if is_dead {
            let reason = FailureReason::Lost.name();
            tracing::error!(name: "job.dead", target: "reveille::job", id, reason, error, "dead");
        }
        let (job, kind, error, ran) = (None, EndKind::Lost, Some(error), None);
        self.shared.attempts.middlewares.ended(&AttemptEnd { id, job, kind, error, is_dead, ran });
    }

    /// Others have declared this worker dead: what it runs is no longer its own.
    async fn begin_anew(&mut self) -> Result<()> {
        tracing::warn!(
            name: "worker.declared_dead", target: "reveille::worker", worker = self.worker.id,
            "declared dead by another worker; stopping what runs and beginning anew"
        );
        self.shared.held.stop_all();
        self.worker.id = random_id();
        self.shared.driver.register(&self.worker).await?;
        self.shared.set_id(self.worker.id);
        self.shared.listen_anew.notify_one();
        self.shared.bells.ring_all();
        Ok(())
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
