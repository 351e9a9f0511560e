//! The worker: puts the parts together and runs them from start to shutdown.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, RwLock, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::Attempts;
use crate::backoff::Backoff;
use crate::claim::{Claimer, UnderWay};
use crate::driver::{Driver, IntoDriver, WorkerInfo};
use crate::error::{Error, Result};
use crate::extract::{Context, States};
use crate::handler::{Handler, Handlers};
use crate::held::Held;
use crate::job::check_name;
use crate::lease::{Lease, random_id};
use crate::listener::Listener;
use crate::look::Claims;
use crate::marks::LowWater;
use crate::outcome::IntoOutcome;
use crate::retry::RetryPolicy;
use crate::settle::Settler;
use crate::sleeper::{Sleeper, State};
use crate::slots::Slots;
use crate::upkeep;
use crate::wake::Bells;

/// How long handlers have to end after they were told to at the end of the grace period.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// How long a shutdown tries to record what has ended.
const LAST_SETTLEMENTS: Duration = Duration::from_secs(10);

/// A process's worker: claims due jobs of its queues and runs their handlers.
///
/// ```no_run
/// # use reveille::{Database, Job, State, Worker};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
/// # impl Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
/// # #[derive(Clone)] struct Mailer;
/// # impl Mailer { async fn send(&self, _: i64) -> Result<(), std::io::Error> { Ok(()) } }
/// async fn send_welcome(job: SendWelcome, State(mailer): State<Mailer>) -> Result<(), std::io::Error> {
///     mailer.send(job.user_id).await
/// }
///
/// # async fn example() -> reveille::Result<()> {
/// let database = Database::connect("postgres://localhost/shop").await?;
/// let worker = Worker::builder(database).state(Mailer).queue("default", 32).handle(send_welcome).build()?;
/// worker.run_until(async { tokio::signal::ctrl_c().await }).await
/// # }
/// ```
pub struct Worker {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) queues: Vec<(String, usize)>,
    handlers: Arc<Handlers>,
    states: Arc<States>,
    pub(crate) options: Options,
}

pub(crate) struct Options {
    poll_interval: Duration,
    listen: bool,
    timeout: Option<Duration>,
    grace: Duration,
    pub(crate) heartbeat: Duration,
    dead_after: Duration,
}

impl Options {
    pub(crate) fn dead_after(&self) -> Duration {
        self.dead_after.max(self.heartbeat * 3)
    }
}

/// Builds a [`Worker`]: what it works on, which queues, which handlers.
#[must_use]
pub struct WorkerBuilder {
    driver: Result<Arc<dyn Driver>>,
    queues: Vec<(String, usize)>,
    handlers: Handlers,
    states: States,
    options: Options,
}

impl Worker {
    /// Begin to build a worker on a [`Database`](crate::Database), or on any driver in an `Arc`.
    pub fn builder(driver: impl IntoDriver) -> WorkerBuilder {
        WorkerBuilder {
            driver: driver.into_driver(),
            queues: Vec::new(),
            handlers: Handlers::default(),
            states: States::default(),
            options: Options {
                poll_interval: Duration::from_secs(5),
                listen: true,
                timeout: None,
                grace: Duration::from_secs(30),
                heartbeat: Duration::from_secs(1),
                dead_after: Duration::from_secs(30),
            },
        }
    }

    /// Work until `shutdown` completes, then shut down gracefully: claim nothing more, let handlers finish for the grace
    /// period, tell the rest to stop, record what has ended, and give back what has not, at no cost to it.
    ///
    /// Once it works, no failure of the database ends it: it tries again until the database is back.
    ///
    /// # Errors
    /// If it cannot start: the database cannot be reached, or its schema is missing or not this program's.
    pub async fn run_until(self, shutdown: impl Future) -> Result<()> {
        self.driver.check().await?;
        let crew = Crew::start(self).await?;
        shutdown.await;
        crew.shut_down().await;
        Ok(())
    }

    /// What it says of itself, under a new id.
    pub(crate) fn info(&self) -> WorkerInfo {
        WorkerInfo {
            id: random_id(),
            host: host_name(),
            pid: std::process::id(),
            queues: self.queues.iter().map(|(name, _)| name.clone()).collect(),
            slots: self.queues.iter().map(|(_, slots)| slots).sum(),
        }
    }

    /// Its handlers, ready for attempts at what it holds.
    pub(crate) fn attempts(&self, held: &Arc<Held>) -> Attempts {
        Attempts {
            driver: Arc::clone(&self.driver),
            handlers: Arc::clone(&self.handlers),
            states: Arc::clone(&self.states),
            held: Arc::clone(held),
            timeout: self.options.timeout,
            give_up: CancellationToken::new(),
        }
    }
}

impl WorkerBuilder {
    /// Work this queue, running up to `slots` of its jobs at once; at least 1. Without any, a worker works the queue
    /// `default` with 32 slots.
    pub fn queue(mut self, name: impl Into<String>, slots: usize) -> WorkerBuilder {
        self.queues.push((name.into(), slots));
        self
    }

    /// Share a value with the handlers that ask for [`State<T>`](crate::State); one of each type.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, state: T) -> WorkerBuilder {
        self.states.insert(state);
        self
    }

    /// Work jobs of the kind that the handler's first argument says; one handler a kind.
    pub fn handle<Arguments, H: Handler<Arguments>>(mut self, handler: H) -> WorkerBuilder {
        self.handlers.add(handler);
        self
    }

    /// Work the jobs of all kinds that have no handler of their own, with a retry policy for them.
    pub fn handle_any<F, Fut>(mut self, handler: F, retry_policy: RetryPolicy) -> WorkerBuilder
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoOutcome,
    {
        self.handlers.add_any(handler, retry_policy);
        self
    }

    /// How often to look for work without any reason to; default 5 s. Catches what else would be missed, so it costs
    /// little to make it long, and nothing is lost.
    pub fn poll_interval(mut self, interval: Duration) -> WorkerBuilder {
        self.options.poll_interval = interval;
        self
    }

    /// Whether to listen for the bell; default yes. Without it the worker finds new jobs by polling alone, as it must
    /// behind a transaction pooler.
    pub fn listen(mut self, listen: bool) -> WorkerBuilder {
        self.options.listen = listen;
        self
    }

    /// How long one attempt may take if neither the job nor its kind says; default: as long as it likes.
    pub fn timeout(mut self, timeout: Duration) -> WorkerBuilder {
        self.options.timeout = Some(timeout);
        self
    }

    /// How long handlers may take to finish at shutdown; default 30 s.
    pub fn grace(mut self, grace: Duration) -> WorkerBuilder {
        self.options.grace = grace;
        self
    }

    /// How often to say that this worker lives; default 1 s.
    pub fn heartbeat(mut self, interval: Duration) -> WorkerBuilder {
        self.options.heartbeat = interval;
        self
    }

    /// After what silence to declare another worker dead; default 30 s, and many heartbeats in any case.
    pub fn dead_after(mut self, silence: Duration) -> WorkerBuilder {
        self.options.dead_after = silence;
        self
    }

    /// The worker.
    ///
    /// # Errors
    /// Invalid if a queue is named badly or twice or has no slots, a kind has two handlers or there is none at all, or a
    /// handler asks for a state that was not given.
    pub fn build(mut self) -> Result<Worker> {
        if self.queues.is_empty() {
            self.queues.push(("default".into(), 32));
        }
        for (place, (name, slots)) in self.queues.iter().enumerate() {
            check_name("queue", name)?;
            if !(1..=Semaphore::MAX_PERMITS).contains(slots) {
                return Err(Error::invalid(format!("queue {name:?} cannot have {slots} slots")));
            }
            if self.queues[..place].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::invalid(format!("queue {name:?} is given twice")));
            }
        }
        self.handlers.check(&self.states)?;
        Ok(Worker {
            driver: self.driver?,
            queues: self.queues,
            handlers: Arc::new(self.handlers),
            states: Arc::new(self.states),
            options: self.options,
        })
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
    stop_claiming: CancellationToken,
    claimers: Vec<JoinHandle<()>>,
    settler: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    heartbeat: crate::lease::Heartbeat,
    grace: Duration,
}

impl Crew {
    async fn start(worker: Worker) -> Result<Crew> {
        let info = worker.info();
        let held = Arc::new(Held::default());
        let attempts = Arc::new(worker.attempts(&held));
        let Worker { driver, queues, options, .. } = worker;
        driver.register(&info).await?;
        tracing::info!(worker = info.id, queues = ?queues, "worker started");

        let id = Arc::new(AtomicI64::new(info.id));
        let stopping = Arc::new(AtomicBool::new(false));
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
            interval: options.heartbeat,
            dead_after: options.dead_after(),
        }
        .keep()?;

        // No slot is free before its ending is in here, so that what is not settled stays bounded.
        let (endings, inbox) = mpsc::channel(1024);
        let settler = Settler { driver: Arc::clone(&driver), held: Arc::clone(&held), inbox };
        let running = TaskTracker::new();
        let claims = Arc::new(Claims {
            driver: Arc::clone(&driver),
            worker: Arc::clone(&id),
            under_way: Arc::new(RwLock::new(())),
            unsure,
        });

        let mut helpers = vec![tokio::spawn(upkeep::run(Arc::clone(&claims), Arc::clone(&held)))];
        if options.listen {
            let listener = Listener {
                driver: Arc::clone(&driver),
                bells: Arc::clone(&bells),
                held: Arc::clone(&held),
                worker: Arc::clone(&id),
                anew,
            };
            helpers.push(tokio::spawn(listener.run()));
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
                backoff: Backoff::new("arm the bell"),
            };
            let claimer = Claimer {
                claims: Arc::clone(&claims),
                slots: Slots::new(slots, Arc::clone(&attempts), endings.clone(), running.clone(), Arc::clone(&sharing)),
                low_water: LowWater::default(),
                queue,
                sleeper,
                sharing: Arc::clone(&sharing),
                stop: stop_claiming.clone(),
                under_way: UnderWay::default(),
            };
            tokio::spawn(claimer.run())
        });
        Ok(Crew {
            claimers: claimers.collect(),
            settler: tokio::spawn(settler.run()),
            grace: options.grace,
            driver,
            id,
            held,
            attempts,
            running,
            stopping,
            stop_claiming,
            helpers,
            heartbeat,
        })
    }

    async fn shut_down(self) {
        tracing::info!(grace = ?self.grace, "shutting down");
        self.stopping.store(true, Ordering::Relaxed);
        self.stop_claiming.cancel();
        futures::future::join_all(self.claimers).await;

        let running = &self.running;
        running.close();
        if tokio::time::timeout(self.grace, running.wait()).await.is_err() {
            tracing::warn!(jobs = running.len(), "the grace period is over; telling handlers to stop");
            self.held.stop_all();
            if tokio::time::timeout(LAST_MOMENT, running.wait()).await.is_err() {
                tracing::warn!(jobs = running.len(), "giving back what does not stop");
                self.attempts.give_up.cancel();
                // A handler that never yields cannot be stopped; what it holds is given back without it.
                let _ = tokio::time::timeout(LAST_MOMENT, running.wait()).await;
            }
        }
        self.helpers.iter().for_each(JoinHandle::abort);
        if tokio::time::timeout(LAST_SETTLEMENTS, self.settler).await.is_err() {
            tracing::warn!("cannot record everything that has ended; other workers will run it again");
        }
        leave(&*self.driver, self.id.load(Ordering::Acquire)).await;
        // Joining the heartbeat's thread blocks for no longer than it takes to notice.
        drop(self.heartbeat);
        tracing::info!("worker stopped");
    }
}

/// Gives back what is still held, and takes leave.
async fn leave(driver: &dyn Driver, id: i64) {
    let leaving = async {
        driver.release_strays(id, &[]).await?;
        driver.leave(id).await
    };
    match tokio::time::timeout(LAST_SETTLEMENTS, leaving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot take leave; other workers will notice"),
        Err(_) => tracing::warn!("cannot take leave in time; other workers will notice"),
    }
}

fn host_name() -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown".into() } else { name.into() }
}
