//! A worker's parts at work, from start to shutdown.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, RwLock, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::driver::{Driver, Settlement, WorkerInfo};
use crate::error::{Error, Result};
use crate::handler::Gathers;
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;
use crate::worker::attempt::Attempts;
use crate::worker::attempt::reservations::Held;
use crate::worker::attempt::settle::Settler;
use crate::worker::backoff::{Backoff, Comeback};
use crate::worker::claim::claim_size::HowMany;
use crate::worker::claim::look::Claims;
use crate::worker::claim::low_water::LowWater;
use crate::worker::claim::next_due::NextDue;
use crate::worker::claim::slots::Slots;
use crate::worker::claim::{Claimer, UnderWay};
#[cfg(feature = "schedules")]
use crate::worker::fire_schedules::{self, Ticker};
use crate::worker::heartbeat::{Heartbeat, Lease};
use crate::worker::parts::{Parts, quietly};
use crate::worker::upkeep;
use crate::worker::wake::Bells;
use crate::worker::wake::listener::Listener;
use crate::worker::wake::sleeper::{AwakeFor, Sleeper, State};
use crate::worker::{Options, Worker};

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
    /// If it cannot start: the database cannot be reached, or its schema is missing or not this program's. And if a part of the
    /// worker breaks down, by a panic in something that it calls, such as a `tracing` subscriber: the error says which, and
    /// [is broken](Error::is_broken). The worker then tells its handlers to stop, gives back what it holds, and ends.
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
    shared: Shared,
    running: TaskTracker,
    stop_claiming: CancellationToken,
    claimers: Vec<JoinHandle<()>>,
    settler: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    heartbeat: Heartbeat,
}

/// What the parts of a worker share.
struct Shared {
    driver: Arc<dyn Driver>,
    /// The worker's current id.
    id: Arc<AtomicI64>,
    options: Options,
    held: Arc<Held>,
    attempts: Arc<Attempts>,
    bells: Arc<Bells>,
    claims: Arc<Claims>,
    /// How many others work the same queues.
    sharing: Arc<AtomicUsize>,
    /// Notified when the listener has to begin anew.
    anew: Arc<Notify>,
    comeback: Comeback,
    parts: Parts,
    /// The shutdown has begun.
    stopping: Arc<AtomicBool>,
    /// Tripped when somebody asks for the worker to shut down.
    stop: CancellationToken,
}

impl Crew {
    async fn start(worker: Worker) -> Result<Crew> {
        let (info, held) = (worker.info(), Arc::default());
        let attempts = Arc::new(worker.attempts(&held));
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
        let shared = Shared::new(driver, options, held, attempts, &info);
        let heartbeat = shared.lease(info).keep()?;
        let helpers = shared.spawn_helpers();
        #[cfg(feature = "schedules")]
        let helpers = {
            let ticker = shared.parts.spawn("what fires the schedules", shared.ticker(declared, id).run());
            helpers.into_iter().chain([ticker]).collect()
        };

        // No slot is free before its ending is in here, so that what is not settled stays bounded.
        let (endings, inbox) = mpsc::channel(1024);
        let (running, stop_claiming) = (TaskTracker::new(), CancellationToken::new());
        let claimers = queues.into_iter().map(|(queue, slots)| {
            let name = format!("the claimer of the queue {queue:?}");
            let slots = shared.slots(&queue, slots, &endings, &running);
            let claimer = shared.claimer(queue.into(), slots, &stop_claiming);
            shared.parts.spawn(name, claimer.run())
        });
        let claimers = claimers.collect();
        let settler = shared.parts.spawn("the settler", shared.settler(inbox).run());
        Ok(Crew { shared, running, stop_claiming, claimers, settler, helpers, heartbeat })
    }

    /// Where a part has broken down, there is no grace.
    async fn shut_down(self) {
        let Crew { shared, running, stop_claiming, claimers, mut settler, helpers, heartbeat } = self;
        let grace = if shared.parts.error().is_some() { Duration::ZERO } else { shared.options.grace };
        let worker = || shared.id.load(Ordering::Acquire);
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
        shared.attempts.handlers.gather().for_each(Gathers::hurry);
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
        // A beat that found its row gone would begin anew. Joining its thread blocks for no longer than it takes to notice.
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
    fn new(
        driver: Arc<dyn Driver>,
        options: Options,
        held: Arc<Held>,
        attempts: Arc<Attempts>,
        info: &WorkerInfo,
    ) -> Shared {
        let id = Arc::new(AtomicI64::new(info.id));
        let claims = Claims {
            driver: Arc::clone(&driver),
            worker: Arc::clone(&id),
            under_way: Arc::new(RwLock::new(())),
            unsure: Arc::new(Notify::new()),
            came_back: AtomicU64::new(0),
        };
        Shared {
            id,
            claims: Arc::new(claims),
            bells: Arc::new(Bells::new(info.queues.iter().map(String::as_str))),
            comeback: attempts.comeback.clone(),
            parts: attempts.parts.clone(),
            sharing: Arc::default(),
            anew: Arc::default(),
            stopping: Arc::default(),
            stop: CancellationToken::new(),
            driver,
            options,
            held,
            attempts,
        }
    }

    fn lease(&self, worker: WorkerInfo) -> Lease {
        Lease {
            driver: Arc::clone(&self.driver),
            worker,
            id: Arc::clone(&self.id),
            held: Arc::clone(&self.held),
            bells: Arc::clone(&self.bells),
            middlewares: Arc::clone(&self.attempts.middlewares),
            anew: Arc::clone(&self.anew),
            unsure: Arc::clone(&self.claims.unsure),
            sharing: Arc::clone(&self.sharing),
            stopping: Arc::clone(&self.stopping),
            stop: self.stop.clone(),
            comeback: self.comeback.clone(),
            parts: self.parts.clone(),
            interval: self.options.heartbeat,
            dead_after: self.options.dead_after(),
            rescuing: Backoff::new("rescue jobs", &self.comeback),
        }
    }

    fn spawn_helpers(&self) -> Vec<JoinHandle<()>> {
        let (claims, held, bells) = (Arc::clone(&self.claims), Arc::clone(&self.held), Arc::clone(&self.bells));
        let upkeep = upkeep::run(claims, held, bells, self.comeback.clone());
        let mut helpers = vec![self.parts.spawn("the upkeep", upkeep)];
        if self.options.listen {
            let listener = Listener {
                driver: Arc::clone(&self.driver),
                bells: Arc::clone(&self.bells),
                held: Arc::clone(&self.held),
                worker: Arc::clone(&self.id),
                anew: Arc::clone(&self.anew),
                comeback: self.comeback.clone(),
                stop: self.stop.clone(),
            };
            helpers.push(self.parts.spawn("the listener", listener.run()));
        }
        helpers
    }

    #[cfg(feature = "schedules")]
    fn ticker(&self, declared: Vec<Schedule>, declared_by: i64) -> Ticker {
        Ticker {
            driver: Arc::clone(&self.driver),
            worker: Arc::clone(&self.id),
            declared,
            declared_by,
            middlewares: Arc::clone(&self.attempts.middlewares),
            left_to_others: std::collections::HashSet::new(),
            wake: self.bells.wake_for_schedules(fire_schedules::POLL, self.options.listen),
            poll_interval: self.options.poll_interval,
            comeback: self.comeback.clone(),
        }
    }

    fn settler(&self, inbox: mpsc::Receiver<Settlement>) -> Settler {
        let (driver, held) = (Arc::clone(&self.driver), Arc::clone(&self.held));
        Settler { driver, held, inbox, comeback: self.comeback.clone(), parts: self.parts.clone() }
    }

    fn slots(&self, queue: &str, count: usize, endings: &mpsc::Sender<Settlement>, running: &TaskTracker) -> Slots {
        Slots::new(
            count,
            Arc::clone(&self.attempts),
            endings.clone(),
            running.clone(),
            Arc::clone(&self.sharing),
            self.bells.pauses(queue),
        )
    }

    fn claimer(&self, queue: Arc<str>, slots: Slots, stop: &CancellationToken) -> Claimer {
        let sleeper = Sleeper {
            driver: Arc::clone(&self.driver),
            worker: Arc::clone(&self.id),
            queue: Arc::clone(&queue),
            sharing: Arc::clone(&self.sharing),
            wake: self.bells.wake(&queue, self.options.poll_interval, self.options.listen),
            state: State::new(),
            awake_for: AwakeFor::new(),
            backoff: Backoff::new("arm the bell", &self.comeback),
        };
        Claimer {
            claims: Arc::clone(&self.claims),
            slots,
            low_water: LowWater::default(),
            queue,
            sleeper,
            sharing: Arc::clone(&self.sharing),
            comeback: self.comeback.clone(),
            stop: stop.clone(),
            under_way: UnderWay::default(),
            found: false,
            in_doubt: false,
            rung: false,
            next_due: NextDue::default(),
            others_turn: None,
            how_many: HowMany::default(),
            came_back: 0,
        }
    }

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
