//! The heartbeat: reports that this worker lives, watches the other workers, and rescues the jobs of dead workers.
//!
//! Busy handlers or an empty connection pool do not delay the heartbeat, because the heartbeat has a separate thread
//! and a separate connection. A delay would make this worker look dead.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::driver::{Beat, Failure, FailureReason, Peer, Report, WorkerInfo};
use crate::error::{Error, Result};
use crate::handler::cancellation::StopReason;
use crate::handler::middleware::{AttemptEnd, EndKind};
use crate::worker::backoff::Backoff;
use crate::worker::identity::random_id;
use crate::worker::shared::Shared;

mod blocked_threads;
mod cut_off;
mod watch;

use blocked_threads::keep_going;
use cut_off::CutOff;
use watch::PeerWatch;

/// The time between two searches for jobs without a live worker, while no worker dies. These searches are needed
/// because a claim that ran during a rescue may have reserved jobs for a dead worker.
const LOOK_FOR_ORPHANS_EVERY: Duration = Duration::from_secs(30);

/// A worker whose listener has lost its session is declared dead after three missed heartbeats.
const MISSED_BEATS: u32 = 3;

/// No worker is declared dead within 1 s of its last heartbeat, since `sql/beat.sql` reports a lost session 1.5 s after
/// that heartbeat at the earliest.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);

/// The running heartbeat of a worker. Dropping this value ends the heartbeat.
pub(crate) struct Heartbeat {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// The loop that the heartbeat's thread runs.
struct HeartbeatLoop {
    shared: Arc<Shared>,
    worker: WorkerInfo,
    watch: PeerWatch,
    orphans_looked_for_at: Option<Instant>,
    /// The paused queues, as of the last heartbeat.
    paused: Vec<String>,
    rescuing: Backoff,
}

impl Heartbeat {
    /// Starts the heartbeat of a registered worker.
    pub(crate) fn start(shared: &Arc<Shared>, worker: WorkerInfo) -> Result<Heartbeat> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::unavailable(format!("cannot start the heartbeat: {error}")))?;
        // The events of this thread go to the subscriber of the thread that starts the worker, too.
        let subscriber = tracing::dispatcher::get_default(tracing::Dispatch::clone);
        let (beats, parts) = (HeartbeatLoop::new(shared, worker), shared.parts.clone());
        let (of_the_worker, held_jobs) = (Handle::current(), Arc::clone(&shared.held_jobs));
        let beat = move || {
            let good = Cell::new(Instant::now());
            let cut_off = CutOff::new(&beats.shared);
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = beats.run(&good) => {}
                    () = cut_off.watch(&good) => {}
                    () = keep_going(of_the_worker, &held_jobs) => {}
                }
            });
            stopped.is_cancelled()
        };
        let beating = move || {
            tracing::dispatcher::with_default(&subscriber, || match std::panic::catch_unwind(AssertUnwindSafe(beat)) {
                Ok(true) => {}
                ended => parts.ended("the heartbeat", ended.map(drop)),
            })
        };
        let thread = std::thread::Builder::new().name("reveille-heartbeat".into()).spawn(beating);
        let thread = thread.map_err(|error| Error::unavailable(format!("cannot start the heartbeat: {error}")))?;
        Ok(Heartbeat { stop, thread: Some(thread) })
    }
}

impl HeartbeatLoop {
    fn new(shared: &Arc<Shared>, worker: WorkerInfo) -> HeartbeatLoop {
        HeartbeatLoop {
            rescuing: shared.backoff("rescue jobs"),
            shared: Arc::clone(shared),
            worker,
            watch: PeerWatch::default(),
            orphans_looked_for_at: None,
            paused: Vec::new(),
        }
    }

    /// Sends heartbeats until the task is dropped. `good`: the time at which the last successful heartbeat began.
    async fn run(mut self, good: &Cell<Instant>) {
        let mut backoff = self.shared.backoff("send a heartbeat");
        loop {
            let began = Instant::now();
            // While this worker's own heartbeats fail, the heartbeats of all workers may fail. The watch then starts
            // anew, so that no worker is declared dead because of that outage.
            if began - good.get() > (self.shared.options.heartbeat * MISSED_BEATS).max(SHORTEST_SILENCE) {
                self.watch = PeerWatch::default();
            }
            match self.beat().await {
                Ok(()) => {
                    self.shared.health.answered();
                    if backoff.worked() {
                        self.shared.check_for_strays.notify_one();
                        // The outage may have cut off the listener's session unnoticed.
                        self.shared.listen_anew.notify_one();
                    }
                    good.set(began);
                    tokio::time::sleep(self.shared.options.heartbeat).await;
                }
                Err(error) => {
                    self.watch = PeerWatch::default();
                    backoff.failed(&error).at_most(self.shared.options.heartbeat).over().await;
                }
            }
        }
    }

    async fn beat(&mut self) -> Result<()> {
        let stopping = self.shared.stopping.load(Ordering::Relaxed);
        let report = Report { stopping, held: self.shared.held_jobs.ids(), stuck: self.shared.held_jobs.stuck() };
        let armed = self.shared.bells.armed();
        let beat = self.shared.driver.beat(self.worker.id, &report).await?;
        if !beat.alive {
            self.orphans_looked_for_at = None;
            return self.begin_anew().await;
        }
        self.act_on(&beat, &armed);
        let now = Instant::now();
        let dead = self.watch.dead(
            &beat.peers,
            &beat.gone,
            now,
            self.shared.options.dead_after(),
            self.shared.options.heartbeat * MISSED_BEATS,
        );
        if !dead.is_empty() || self.orphans_looked_for_at.is_none_or(|at| now - at >= LOOK_FOR_ORPHANS_EVERY) {
            self.rescue(&dead).await?;
            self.orphans_looked_for_at = Some(now);
        }
        Ok(())
    }

    /// Acts on the answer to a heartbeat: cancels jobs, pauses queues, stops the worker, and arms bells anew. `armed`:
    /// the queues whose bells were armed when the heartbeat began.
    fn act_on(&mut self, beat: &Beat, armed: &[String]) {
        self.shared.set_sharing(beat.sharing);
        beat.cancel.iter().for_each(|id| self.shared.held_jobs.cancel(*id));
        if beat.stop {
            self.shared.stop.cancel();
        }
        beat.slots.iter().for_each(|(queue, slots)| self.set_slots(queue, *slots));
        if beat.linked_ends {
            self.shared.driver.linked_ends_wait();
        }
        let newly_paused = beat.paused.iter().filter(|queue| !self.paused.contains(queue));
        newly_paused.for_each(|queue| self.shared.bells.pause(queue));
        self.paused.clone_from(&beat.paused);
        let silenced = |queue: &&String| armed.contains(*queue) && self.shared.bells.arm_anew(queue);
        for queue in beat.unarmed.iter().filter(silenced) {
            tracing::warn!(
                name: "worker.bell_silenced", target: "reveille::worker", worker = self.worker.id, queue,
                "the queue's bell is no longer armed for this worker, as after a restore; arming it anew"
            );
        }
    }

    fn set_slots(&mut self, queue: &str, slots: usize) {
        if !self.shared.slot_counts.set(queue, slots) {
            return;
        }
        tracing::info!(
            name: "worker.slots_changed", target: "reveille::worker", worker = self.worker.id, queue, slots,
            "the queue has another number of slots in this worker now"
        );
        // If the worker has to register anew, it registers with the new number.
        if let Some(place) = self.worker.queues.iter().position(|worked| worked == queue) {
            self.worker.queue_slots[place] = slots;
            self.worker.slots = self.worker.queue_slots.iter().sum();
        }
    }

    /// Rescues the jobs of these dead workers, and all jobs without a live worker.
    async fn rescue(&mut self, dead: &[Peer]) -> Result<()> {
        let rescue = match self.shared.driver.rescue(self.worker.id, dead).await {
            Ok(rescue) => rescue,
            Err(error) if error.is_unavailable() => return Err(error),
            // A failed rescue does not make this worker's own heartbeat a failure.
            Err(error) => {
                let _ = self.rescuing.failed(&error);
                return Ok(());
            }
        };
        self.rescuing.worked();
        self.watch.begin_anew(dead);
        if !rescue.workers.is_empty() || !rescue.jobs.is_empty() {
            tracing::warn!(
                name: "worker.rescued", target: "reveille::worker", workers = ?rescue.workers, jobs = rescue.jobs.len(),
                "rescued the jobs of dead workers"
            );
        }
        let counters = rescue.kinds.iter().map(|(queue, kind)| self.shared.attempts.kind_counts.of(queue, kind));
        counters.for_each(|counter| counter.add_lost());
        rescue.jobs.iter().for_each(|&id| self.report_lost(id, rescue.dead.contains(&id)));
        Ok(())
    }

    /// Notifies the middlewares of the end of a dead worker's attempt, since the dead worker cannot. Logs the job if
    /// the job is dead.
    fn report_lost(&self, id: i64, is_dead: bool) {
        let error = "the worker that ran it died or was cut off";
        if is_dead {
            Failure::new(FailureReason::Lost, error).log_death(id);
        }
        let (job, kind, error, ran) = (None, EndKind::Lost, Some(error), None);
        self.shared.attempts.middlewares.ended(&AttemptEnd { id, job, kind, error, is_dead, ran });
    }

    /// Registers this worker under a new id after another worker has declared this worker dead and rescued its jobs.
    async fn begin_anew(&mut self) -> Result<()> {
        let new_id = random_id();
        tracing::warn!(
            name: "worker.declared_dead", target: "reveille::worker", worker = self.worker.id, new_id,
            "another worker has declared this worker dead; asking its handlers to stop, and going on under a new id"
        );
        self.shared.held_jobs.stop_all(StopReason::Lost);
        self.worker.id = new_id;
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
