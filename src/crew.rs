//! A worker's parts at work, from start to shutdown.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, Shared};
use tokio::sync::{Notify, RwLock, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::Attempts;
use crate::backoff::Backoff;
use crate::claim::{Claimer, UnderWay};
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::handler::Gathers;
use crate::held::Held;
use crate::how_many::HowMany;
use crate::lease::Lease;
use crate::listener::Listener;
use crate::look::Claims;
use crate::marks::LowWater;
use crate::next_due::NextDue;
use crate::settle::Settler;
use crate::sleeper::{AwakeFor, Sleeper, State};
use crate::slots::Slots;
#[cfg(feature = "schedules")]
use crate::ticker::{self, Ticker};
use crate::upkeep;
use crate::wake::Bells;
use crate::worker::Worker;

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
    /// If it cannot start: the database cannot be reached, or its schema is missing or not this program's.
    pub async fn run_until(self, shutdown: impl Future) -> Result<()> {
        self.driver.check().await?;
        let crew = Crew::start(self).await?;
        tokio::select! {
            _ = shutdown => {}
            () = crew.stop.cancelled() => tracing::info!(name: "worker.stop_requested", target: "reveille::worker", "asked to stop"),
        }
        crew.shut_down().await;
        Ok(())
    }
}

/// A worker's parts at work.
struct Crew {
    driver: Arc<dyn Driver>,
    id: Arc<AtomicI64>,
    held: Arc<Held>,
    attempts: Arc<Attempts>,
    running: TaskTracker,
    stopping: Arc<AtomicBool>,
    /// Tripped when somebody asks for the worker to shut down.
    stop: CancellationToken,
    stop_claiming: CancellationToken,
    claimers: Vec<JoinHandle<()>>,
    settler: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    heartbeat: crate::lease::Heartbeat,
    grace: Duration,
    end_grace: Shared<BoxFuture<'static, ()>>,
}

impl Crew {
    async fn start(worker: Worker) -> Result<Crew> {
        let info = worker.info();
        let held = Arc::new(Held::default());
        let attempts = Arc::new(worker.attempts(&held));
        #[cfg(feature = "schedules")]
        let (declared, middlewares) = (worker.schedules, Arc::clone(&worker.middlewares));
        let Worker { driver, queues, options, .. } = worker;
        driver.register(&info).await?;
        #[cfg(feature = "schedules")]
        if let Err(error) = driver.declare(info.id, &declared).await {
            leave(&*driver, info.id).await;
            return Err(error);
        }
        tracing::info!(
            name: "worker.started", target: "reveille::worker", worker = info.id, queues = ?queues,
            "worker started"
        );

        #[cfg(feature = "schedules")]
        let declared_by = info.id;
        let id = Arc::new(AtomicI64::new(info.id));
        let (stopping, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let bells = Arc::new(Bells::new(queues.iter().map(|(name, _)| name.as_str())));
        let sharing = Arc::new(AtomicUsize::new(0));
        let (anew, unsure) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let heartbeat = Lease {
            bells: Arc::clone(&bells),
            driver: Arc::clone(&driver),
            worker: info,
            id: Arc::clone(&id),
            held: Arc::clone(&held),
            anew: Arc::clone(&anew),
            unsure: Arc::clone(&unsure),
            sharing: Arc::clone(&sharing),
            stopping: Arc::clone(&stopping),
            stop: stop.clone(),
            interval: options.heartbeat,
            dead_after: options.dead_after(),
            rescuing: Backoff::new("rescue jobs"),
        }
        .keep()?;

        // No slot is free before its ending is in here, so that what is not settled stays bounded.
        let (endings, inbox) = mpsc::channel(1024);
        let running = TaskTracker::new();
        let settler = Settler { driver: Arc::clone(&driver), held: Arc::clone(&held), inbox };
        let claims = Arc::new(Claims {
            driver: Arc::clone(&driver),
            worker: Arc::clone(&id),
            under_way: Arc::new(RwLock::new(())),
            unsure,
            came_back: AtomicU64::new(0),
        });

        let mut helpers = vec![tokio::spawn(upkeep::run(Arc::clone(&claims), Arc::clone(&held), Arc::clone(&bells)))];
        if options.listen {
            let listener = Listener {
                driver: Arc::clone(&driver),
                bells: Arc::clone(&bells),
                held: Arc::clone(&held),
                worker: Arc::clone(&id),
                anew,
                stop: stop.clone(),
            };
            helpers.push(tokio::spawn(listener.run()));
        }
        #[cfg(feature = "schedules")]
        {
            let ticker = Ticker {
                driver: Arc::clone(&driver),
                worker: Arc::clone(&id),
                declared,
                declared_by,
                middlewares,
                left_to_others: std::collections::HashSet::new(),
                wake: bells.wake_for_schedules(ticker::POLL, options.listen),
                poll_interval: options.poll_interval,
            };
            helpers.push(tokio::spawn(ticker.run()));
        }
        let stop_claiming = CancellationToken::new();
        let claimers = queues.into_iter().map(|(queue, slots)| {
            let queue: Arc<str> = queue.into();
            let sleeper = Sleeper {
                driver: Arc::clone(&driver),
                worker: Arc::clone(&id),
                queue: Arc::clone(&queue),
                sharing: Arc::clone(&sharing),
                wake: bells.wake(&queue, options.poll_interval, options.listen),
                state: State::new(),
                awake_for: AwakeFor::new(),
                backoff: Backoff::new("arm the bell"),
            };
            let claimer = Claimer {
                claims: Arc::clone(&claims),
                slots: Slots::new(
                    slots,
                    Arc::clone(&attempts),
                    endings.clone(),
                    running.clone(),
                    Arc::clone(&sharing),
                    bells.pauses(&queue),
                ),
                low_water: LowWater::default(),
                queue,
                sleeper,
                sharing: Arc::clone(&sharing),
                stop: stop_claiming.clone(),
                under_way: UnderWay::default(),
                found: false,
                in_doubt: false,
                rung: false,
                next_due: NextDue::default(),
                others_turn: None,
                how_many: HowMany::default(),
                came_back: 0,
            };
            tokio::spawn(claimer.run())
        });
        Ok(Crew {
            claimers: claimers.collect(),
            settler: tokio::spawn(settler.run()),
            grace: options.grace,
            end_grace: options.end_grace,
            driver,
            id,
            held,
            attempts,
            running,
            stopping,
            stop,
            stop_claiming,
            helpers,
            heartbeat,
        })
    }

    async fn shut_down(self) {
        tracing::info!(
            name: "worker.stopping", target: "reveille::worker", worker = self.id.load(Ordering::Acquire), grace = ?self.grace,
            "shutting down"
        );
        self.stopping.store(true, Ordering::Relaxed);
        self.stop_claiming.cancel();
        futures::future::join_all(self.claimers).await;

        // No further job will come to complete a batch.
        self.attempts.handlers.gather().for_each(Gathers::hurry);
        let running = &self.running;
        running.close();
        let is_over = tokio::select! {
            () = running.wait() => false,
            () = tokio::time::sleep(self.grace) => true,
            () = self.end_grace => true,
        };
        if is_over {
            tracing::warn!(
                name: "worker.grace_over", target: "reveille::worker", jobs = running.len(),
                "the grace period is over; telling handlers to stop"
            );
            self.held.stop_all();
            if tokio::time::timeout(LAST_MOMENT, running.wait()).await.is_err() {
                tracing::warn!(
                    name: "worker.giving_back", target: "reveille::worker", jobs = running.len(),
                    "giving back what does not stop"
                );
                self.attempts.give_up.cancel();
                // A handler that never yields cannot be stopped; what it holds is given back without it.
                let _ = tokio::time::timeout(LAST_MOMENT, running.wait()).await;
            }
        }
        self.helpers.iter().for_each(JoinHandle::abort);
        let mut settler = self.settler;
        if tokio::time::timeout(LAST_SETTLEMENTS, &mut settler).await.is_err() {
            settler.abort();
            tracing::warn!(
                name: "worker.unsettled", target: "reveille::worker",
                "cannot record everything that has ended; other workers will run it again"
            );
        }
        // A beat that found its row gone would begin anew. Joining its thread blocks for no longer than it takes to notice.
        drop(self.heartbeat);
        leave(&*self.driver, self.id.load(Ordering::Acquire)).await;
        tracing::info!(
            name: "worker.stopped", target: "reveille::worker", worker = self.id.load(Ordering::Acquire),
            "worker stopped"
        );
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
    tracing::warn!(
        name: "worker.leave_failed", target: "reveille::worker", worker = id, %error,
        "cannot take leave; other workers will notice"
    );
}
