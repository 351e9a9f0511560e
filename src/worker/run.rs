//! Running a worker: it starts its parts, waits for the shutdown, and ends them in order.

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
use crate::worker::attempt::settle::Settler;
use crate::worker::claim::Claimer;
use crate::worker::claim::slots::Slots;
#[cfg(feature = "schedules")]
use crate::worker::fire_schedules::FireSchedules;
use crate::worker::heartbeat::Heartbeat;
use crate::worker::parts::quietly;
use crate::worker::shared::Shared;
use crate::worker::wake::listener::Listener;
use crate::worker::{Worker, upkeep};

/// How long handlers may go on after the grace period is over and they were asked to stop.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// How long a shutdown waits for the database: to settle the last attempts, and to release the other jobs.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);

impl Worker {
    /// Works until `shutdown` completes, or until `Admin::stop_worker` stops this worker, and then shuts down.
    ///
    /// A shutdown is graceful. The worker claims nothing more and lets handlers finish for the [grace
    /// period](crate::worker::WorkerBuilder::grace). It then asks the other handlers to stop, settles the attempts that
    /// have ended, and releases the other jobs, which counts as no failure.
    ///
    /// Once the worker has started, no failure of the database ends it: it tries again until the database is back.
    ///
    /// # Errors
    /// If the worker cannot start: the database cannot be reached, or its schema is missing or has another version.
    ///
    /// If a part of the worker breaks down, for example by a panic in a `tracing` subscriber. The error names the part,
    /// and [is broken](Error::is_broken). The worker then asks its handlers to stop, releases its jobs, and ends.
    pub async fn run_until(self, shutdown: impl Future) -> Result<()> {
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
        let Worker { driver, queues, options, .. } = worker;
        driver.register(&info).await?;
        #[cfg(feature = "schedules")]
        if let Err(error) = driver.declare(info.id, &declared).await {
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
        let shared = Shared::new(&info, &options, attempts, info.queues.iter().map(String::as_str));
        let heartbeat = Heartbeat::start(&shared, info)?;
        let mut helpers = vec![shared.parts.spawn("the upkeep", upkeep::run(Arc::clone(&shared)))];
        if options.listen {
            helpers.push(shared.parts.spawn("the listener", Listener::new(&shared).run()));
        }
        #[cfg(feature = "schedules")]
        helpers.push(shared.parts.spawn("the firing of schedules", FireSchedules::new(&shared, declared).run()));

        // A slot becomes free only once its ending is in this channel. That bounds the number of unsettled attempts.
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

    /// Shuts down gracefully; without a grace period if a part has broken down.
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
        shared.stopping.store(true, Ordering::Relaxed);
        stop_claiming.cancel();
        futures::future::join_all(claimers).await;

        // A batch that still gathers jobs gets no more.
        shared.attempts.handlers.gatherers().for_each(Gathers::hurry);
        running.close();
        shared.end_attempts(&running, grace).await;
        helpers.iter().for_each(JoinHandle::abort);
        if tokio::time::timeout(SETTLE_WITHIN, &mut settler).await.is_err() {
            settler.abort();
            quietly(|| {
                tracing::warn!(
                    name: "worker.unsettled", target: "reveille::worker",
                    "cannot record how some attempts ended; other workers will run their jobs again"
                );
            });
        }
        // The heartbeat ends before `leave` deletes the worker's row: without its row, it would register the worker
        // anew. The drop joins the heartbeat's thread, which ends at once.
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
    /// Lets attempts end for the grace period, then asks their handlers to stop, and gives up those that do not.
    async fn end_attempts(&self, running: &TaskTracker, grace: Duration) {
        tokio::select! {
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
        self.held_jobs.stop_all();
        if tokio::time::timeout(STOP_WITHIN, running.wait()).await.is_err() {
            quietly(|| {
                tracing::warn!(
                    name: "worker.giving_back", target: "reveille::worker", jobs = running.len(),
                    "some handlers do not stop; releasing their jobs"
                );
            });
            self.attempts.give_up.cancel();
            // A handler that never yields cannot be dropped. `leave` releases its job while it runs.
            let _ = tokio::time::timeout(STOP_WITHIN, running.wait()).await;
        }
    }
}

/// Releases the jobs that are still reserved under this id, and deletes the worker's row.
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
            "cannot delete this worker's row; other workers will declare it dead and rescue its jobs"
        );
    });
}
