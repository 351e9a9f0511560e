//! Runs a worker: starts its parts, waits for the shutdown, and ends the parts in order.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::handler::Gathers;
use crate::handler::cancellation::StopReason;
use crate::worker::attempt::settle::Settler;
use crate::worker::claim::Claimer;
use crate::worker::claim::slots::Slots;
#[cfg(feature = "schedules")]
use crate::worker::fire_schedules::FireSchedules;
use crate::worker::heartbeat::Heartbeat;
use crate::worker::parts::quietly;
use crate::worker::shared::Shared;
use crate::worker::wake::listener::Listener;
use crate::worker::{Worker, apply_ends, upkeep};

/// After the grace period, the remaining handlers are asked to stop, and may go on for 1 s.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// A shutdown waits up to 10 s until the last attempts are settled, and up to 10 s until all other jobs are released.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);

impl Worker {
    /// Runs the worker until `shutdown` completes or `Admin::stop_worker` stops this worker, and then shuts it down.
    ///
    /// A shutdown is graceful. The worker claims no more jobs, and its handlers may finish within the [grace
    /// period](crate::worker::WorkerBuilder::grace). The worker then asks the remaining handlers to stop, settles the
    /// attempts that have ended, and releases all other jobs. A release counts as no failure.
    ///
    /// Once the worker has started, a failure of the database does not end the worker. The worker tries again until the
    /// database is back.
    ///
    /// # Errors
    /// If the worker cannot start: the database cannot be reached, or Reveille's schema is missing or has another
    /// version.
    ///
    /// If a part of the worker breaks down, for example by a panic in a `tracing` subscriber. The error names the part,
    /// and [`Error::is_broken`] is true for this error. Before the worker ends, it asks its handlers to stop and
    /// releases its jobs.
    pub async fn run_until(self, shutdown: impl Future) -> Result<()> {
        let _health = self.health.begin();
        self.driver.check().await?;
        let worker = RunningWorker::start(self).await?;
        let parts = worker.shared.parts.clone();
        tokio::select! {
            _ = shutdown => {}
            () = worker.shared.stop.cancelled() => quietly(|| {
                tracing::info!(name: "worker.stop_requested", target: "reveille::worker", "asked to stop");
            }),
            () = parts.broken() => {}
        }
        worker.shut_down().await;
        parts.error().map_or(Ok(()), Err)
    }
}

/// A worker whose parts have been started.
struct RunningWorker {
    shared: Arc<Shared>,
    running: TaskTracker,
    stop_claiming: CancellationToken,
    claimers: Vec<JoinHandle<()>>,
    settler: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    heartbeat: Heartbeat,
}

impl RunningWorker {
    async fn start(worker: Worker) -> Result<RunningWorker> {
        let info = worker.info();
        let attempts = Arc::new(worker.attempts(&Arc::default()));
        #[cfg(feature = "schedules")]
        let declared = worker.schedules;
        #[cfg(feature = "schedules")]
        let stored = attempts.middlewares.declare(&declared)?;
        let Worker { driver, queues, options, health, .. } = worker;
        driver.register(&info).await?;
        #[cfg(feature = "schedules")]
        if let Err(error) = driver.declare(info.id, &stored).await {
            leave(&*driver, info.id).await;
            return Err(error);
        }
        let id = info.id;
        quietly(|| {
            tracing::info!(
                name: "worker.started", target: "reveille::worker", worker = id, queues = ?queues,
                "worker started"
            );
        });
        let shared = Shared::new(&info, &options, &health, attempts, info.queues.iter().map(String::as_str));
        let heartbeat = Heartbeat::start(&shared, info)?;
        let mut helpers = vec![shared.parts.spawn("the upkeep", upkeep::run(Arc::clone(&shared)))];
        helpers.push(shared.parts.spawn("the applying of ends", apply_ends::run(Arc::clone(&shared))));
        if options.listen {
            helpers.push(shared.parts.spawn("the listener", Listener::new(&shared).run()));
        }
        #[cfg(feature = "schedules")]
        helpers.push(shared.parts.spawn("the firing of schedules", FireSchedules::new(&shared, declared).run()));

        // The capacity of this channel bounds the number of unsettled attempts, because a slot becomes free only once
        // the ending of its job is in the channel.
        let (endings, inbox) = mpsc::channel(1024);
        let (running, stop_claiming) = (TaskTracker::new(), CancellationToken::new());
        let claimers = queues.into_iter().map(|(queue, slots)| {
            let name = format!("the claimer of the queue {queue:?}");
            let slots = Slots::new(&shared, &queue, slots, endings.clone(), running.clone());
            let claimer = Claimer::new(&shared, queue.into(), slots, stop_claiming.clone());
            shared.parts.spawn(name, claimer.run())
        });
        let claimers = claimers.collect();
        let settler = shared.parts.spawn("the settler", Settler::new(&shared.attempts, inbox).run());
        Ok(RunningWorker { shared, running, stop_claiming, claimers, settler, helpers, heartbeat })
    }

    /// Shuts the worker down gracefully. If a part has broken down, there is no grace period.
    async fn shut_down(self) {
        let RunningWorker { shared, running, stop_claiming, claimers, mut settler, helpers, heartbeat } = self;
        let grace = if shared.parts.error().is_some() { Duration::ZERO } else { shared.options.grace };
        let worker = || shared.id();
        quietly(|| {
            tracing::info!(
                name: "worker.stopping", target: "reveille::worker", worker = worker(), ?grace,
                "shutting down"
            );
        });
        shared.parts.begin_shutdown();
        shared.health.stopping();
        shared.stopping.store(true, Ordering::Relaxed);
        stop_claiming.cancel();
        futures::future::join_all(claimers).await;

        // Batches that wait for more jobs run now, since the worker claims no more jobs.
        shared.attempts.handlers.gatherers().for_each(Gathers::hurry);
        running.close();
        shared.end_attempts(&running, grace).await;
        helpers.iter().for_each(JoinHandle::abort);
        if tokio::time::timeout(SETTLE_WITHIN, &mut settler).await.is_err() {
            settler.abort();
            quietly(|| {
                tracing::warn!(
                    name: "worker.unsettled", target: "reveille::worker",
                    "cannot record how some attempts ended; other workers will run those jobs again"
                );
            });
        }
        shared.store_last_counts().await;
        // The heartbeat has to end before `leave` deletes the worker's row: a heartbeat that finds no row registers the
        // worker anew. The drop joins the heartbeat's thread, which ends at once.
        drop(heartbeat);
        leave(&*shared.driver, worker()).await;
        quietly(|| {
            tracing::info!(
                name: "worker.stopped", target: "reveille::worker", worker = worker(),
                "worker stopped"
            );
        });
    }
}

impl Shared {
    /// Waits for the running attempts for the grace period. Then asks the remaining handlers to stop, drops the
    /// handlers that do not stop, and releases their jobs.
    async fn end_attempts(&self, running: &TaskTracker, grace: Duration) {
        tokio::select! {
            biased;
            // If no attempt runs, it does not matter that the grace period is over, too.
            () = running.wait() => return,
            () = tokio::time::sleep(grace) => {}
            () = self.options.end_grace.clone() => {}
        }
        quietly(|| {
            tracing::warn!(
                name: "worker.grace_over", target: "reveille::worker", jobs = running.len(),
                "the grace period is over; asking the running handlers to stop"
            );
        });
        self.held_jobs.stop_all(StopReason::Shutdown);
        if tokio::time::timeout(STOP_WITHIN, running.wait()).await.is_err() {
            quietly(|| {
                tracing::warn!(
                    name: "worker.giving_back", target: "reveille::worker", jobs = running.len(),
                    "some handlers do not stop; dropping these handlers and releasing their jobs"
                );
            });
            self.attempts.give_up.cancel();
            // A handler that never yields cannot be dropped. `leave` releases the job of that handler while the handler
            // still runs.
            let _ = tokio::time::timeout(STOP_WITHIN, running.wait()).await;
        }
    }

    /// Stores the counts by kind that this worker has not stored yet.
    async fn store_last_counts(&self) {
        let stored = self.attempts.kind_counts.store(&*self.driver);
        if !matches!(tokio::time::timeout(SETTLE_WITHIN, stored).await, Ok(Ok(()))) {
            quietly(|| {
                tracing::warn!(
                    name: "worker.kinds_uncounted", target: "reveille::worker",
                    "cannot store the last counts by kind; the metrics lack them"
                );
            });
        }
    }
}

/// Releases the jobs that are still reserved under this worker id, and deletes the worker's row.
async fn leave(driver: &dyn Driver, id: i64) {
    let leaving = async {
        driver.release_strays(id, &[]).await?;
        driver.leave(id).await
    };
    let error = match tokio::time::timeout(SETTLE_WITHIN, leaving).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => Error::unavailable(format!("the store did not answer within {SETTLE_WITHIN:?}")),
    };
    quietly(|| {
        tracing::warn!(
            name: "worker.leave_failed", target: "reveille::worker", worker = id, %error,
            "cannot deregister this worker; other workers will declare it dead and rescue its jobs"
        );
    });
}
