//! A worker's parts at work, from start to shutdown.

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
use crate::worker::fire_schedules::Ticker;
use crate::worker::heartbeat::{Heartbeat, Lease};
use crate::worker::parts::quietly;
use crate::worker::shared::Shared;
use crate::worker::wake::listener::Listener;
use crate::worker::{Worker, upkeep};

/// How long handlers have to end after they were told to at the end of the grace period.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// How long a shutdown tries to record what has ended.
const LAST_SETTLEMENTS: Duration = Duration::from_secs(10);

impl Worker {
    /// Work until `shutdown` completes, or somebody asks for this worker to stop (`Admin::stop_worker`), then shut
    /// down gracefully: claim nothing more, let handlers finish for the grace
    /// period, tell the rest to stop, record what has ended, and give back what has not, at no cost to it.
    ///
    /// Once it works, no failure of the database ends it: it tries again until the database is back.
    ///
    /// # Errors
    /// If it cannot start: the database cannot be reached, or its schema is missing or not this program's. And if a
    /// part of the worker breaks down, by a panic in something that it calls, such as a `tracing` subscriber: the error
    /// says which, and [is broken](Error::is_broken). The worker then tells its handlers to stop, gives back what it
    /// holds, and ends.
    pub async fn run_until(self, shutdown: impl Future) -> Result<()> {
        self.driver.check().await?;
        let crew = Crew::start(self).await?;
        let parts = crew.shared.parts.clone();
        tokio::select! {
            _ = shutdown => {}
            () = crew.shared.stop.cancelled() => quietly(|| {
                tracing::info!(name: "worker.stop_requested", target: "reveille::worker", "asked to stop");
            }),
            () = parts.broken() => {}
        }
        crew.shut_down().await;
        parts.error().map_or(Ok(()), Err)
    }
}

/// A worker's parts at work.
struct Crew {
    shared: Arc<Shared>,
    running: TaskTracker,
    stop_claiming: CancellationToken,
    claimers: Vec<JoinHandle<()>>,
    settler: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    heartbeat: Heartbeat,
}

impl Crew {
    async fn start(worker: Worker) -> Result<Crew> {
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
        let heartbeat = Lease::new(&shared, info).keep()?;
        let mut helpers = vec![shared.parts.spawn("the upkeep", upkeep::run(Arc::clone(&shared)))];
        if options.listen {
            helpers.push(shared.parts.spawn("the listener", Listener::new(&shared).run()));
        }
        #[cfg(feature = "schedules")]
        helpers.push(shared.parts.spawn("what fires the schedules", Ticker::new(&shared, declared).run()));

        // No slot is free before its ending is in here, so that what is not settled stays bounded.
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
        Ok(Crew { shared, running, stop_claiming, claimers, settler, helpers, heartbeat })
    }

    /// Where a part has broken down, there is no grace.
    async fn shut_down(self) {
        let Crew { shared, running, stop_claiming, claimers, mut settler, helpers, heartbeat } = self;
        let grace = if shared.parts.error().is_some() { Duration::ZERO } else { shared.options.grace };
        let worker = || shared.id();
        quietly(|| {
            tracing::info!(
                name: "worker.stopping", target: "reveille::worker", worker = worker(), ?grace,
                "shutting down"
            );
        });
        shared.parts.may_end();
        shared.stopping.store(true, Ordering::Relaxed);
        stop_claiming.cancel();
        futures::future::join_all(claimers).await;

        // No further job will come to complete a batch.
        shared.attempts.handlers.gatherers().for_each(Gathers::hurry);
        running.close();
        shared.end_attempts(&running, grace).await;
        helpers.iter().for_each(JoinHandle::abort);
        if tokio::time::timeout(LAST_SETTLEMENTS, &mut settler).await.is_err() {
            settler.abort();
            quietly(|| {
                tracing::warn!(
                    name: "worker.unsettled", target: "reveille::worker",
                    "cannot record everything that has ended; other workers will run it again"
                );
            });
        }
        // A beat that found its row gone would begin anew. Joining its thread blocks for no longer than it takes to
        // notice.
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
    /// Lets attempts end for the grace period, then tells them to, and gives up what does not.
    async fn end_attempts(&self, running: &TaskTracker, grace: Duration) {
        tokio::select! {
            () = running.wait() => return,
            () = tokio::time::sleep(grace) => {}
            () = self.options.end_grace.clone() => {}
        }
        quietly(|| {
            tracing::warn!(
                name: "worker.grace_over", target: "reveille::worker", jobs = running.len(),
                "the grace period is over; telling handlers to stop"
            );
        });
        self.held.stop_all();
        if tokio::time::timeout(LAST_MOMENT, running.wait()).await.is_err() {
            quietly(|| {
                tracing::warn!(
                    name: "worker.giving_back", target: "reveille::worker", jobs = running.len(),
                    "giving back what does not stop"
                );
            });
            self.attempts.give_up.cancel();
            // A handler that never yields cannot be stopped; what it holds is given back without it.
            let _ = tokio::time::timeout(LAST_MOMENT, running.wait()).await;
        }
    }
}

/// Gives back what is still held, and takes leave.
async fn leave(driver: &dyn Driver, id: i64) {
    let leaving = async {
        driver.release_strays(id, &[]).await?;
        driver.leave(id).await
    };
    let error = match tokio::time::timeout(LAST_SETTLEMENTS, leaving).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => Error::unavailable("the store does not answer in time"),
    };
    quietly(|| {
        tracing::warn!(
            name: "worker.leave_failed", target: "reveille::worker", worker = id, %error,
            "cannot take leave; other workers will notice"
        );
    });
}
