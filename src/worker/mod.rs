//! The worker: what it is built of.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, IntoDriver, WorkerInfo};
use crate::enqueue::{Enqueuer, OfWorker};
use crate::error::{Error, Result};
use crate::handler::batch::{BatchArguments, BatchHandler, IntoOutcomes};
use crate::handler::extract::{Context, States};
use crate::handler::gather::{self, Gather};
use crate::handler::middleware::{Middleware, Middlewares};
use crate::handler::{Arguments, Handler, Handlers};
use crate::job::outcome::IntoOutcome;
use crate::job::retry_policy::RetryPolicy;
use crate::job::{Job, check_name};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;
use crate::worker::attempt::Attempts;
use crate::worker::attempt::reservations::Held;
use crate::worker::backoff::Comeback;
use crate::worker::options::Options;
use crate::worker::parts::Parts;

pub(crate) mod attempt;
pub(crate) mod backoff;
pub(crate) mod bells;
pub(crate) mod claim;
pub(crate) mod drain;
#[cfg(feature = "schedules")]
pub(crate) mod fire_schedules;
pub(crate) mod heartbeat;
pub(crate) mod options;
pub(crate) mod parts;
pub(crate) mod pauses;
pub(crate) mod run;
pub(crate) mod shared;
pub(crate) mod upkeep;
pub(crate) mod wake;

pub use drain::{Inline, JobsRun};

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
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) middlewares: Arc<Middlewares>,
    states: Arc<States>,
    pub(crate) options: Arc<Options>,
    #[cfg(feature = "schedules")]
    pub(crate) schedules: Vec<Schedule>,
}

/// Builds a [`Worker`]: what it works on, which queues, which handlers.
#[must_use]
pub struct WorkerBuilder {
    driver: Result<Arc<dyn Driver>>,
    queues: Vec<(String, usize)>,
    handlers: Handlers,
    middlewares: Middlewares,
    states: States,
    options: Options,
    #[cfg(feature = "schedules")]
    schedules: Vec<Schedule>,
}

impl Worker {
    /// Begin to build a worker on a [`Database`](crate::Database), or on any driver in an `Arc`.
    pub fn builder(driver: impl IntoDriver) -> WorkerBuilder {
        WorkerBuilder {
            driver: driver.into_driver(),
            queues: Vec::new(),
            handlers: Handlers::default(),
            middlewares: Middlewares::default(),
            states: States::default(),
            options: Options::default(),
            #[cfg(feature = "schedules")]
            schedules: Vec::new(),
        }
    }

    /// Enqueues jobs through the middleware of this worker, into the schema of its database.
    pub fn enqueuer(&self) -> Enqueuer {
        Enqueuer::with(Middlewares::clone(&self.middlewares), self.driver.schema())
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
            middlewares: Arc::clone(&self.middlewares),
            states: Arc::clone(&self.states),
            held: Arc::clone(held),
            is_stored: true,
            timeout: self.options.timeout,
            give_up: CancellationToken::new(),
            comeback: Comeback::default(),
            parts: Parts::default(),
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
    ///
    /// `H` is an async function, and `A` are its arguments: see [`Handler`] and [`Arguments`].
    pub fn handle<A, H>(mut self, handler: H) -> WorkerBuilder
    where
        A: Arguments,
        H: Handler<A>,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.handlers.add(handler);
        self
    }

    /// Let each attempt pass through this [middleware](crate::handler::Middleware), and what handlers enqueue with the
    /// worker's [`Enqueuer`]. The first one added is the outermost.
    pub fn middleware(mut self, middleware: impl Middleware) -> WorkerBuilder {
        self.middlewares.add(middleware);
        self
    }

    /// Work jobs of the kind that the [`Batch`](crate::handler::Batch) in the handler's first argument says, many at
    /// once: as many as can be [gathered](Gather) from one queue. Each job takes a slot, so a batch has no more jobs
    /// than its queue has slots.
    pub fn handle_batch<A, H>(mut self, gather: Gather, handler: H) -> WorkerBuilder
    where
        A: BatchArguments,
        H: BatchHandler<A>,
        H::Future: Future<Output: IntoOutcomes> + Send + 'static,
    {
        self.handlers.insert(A::Job::KIND, gather::register(gather, handler));
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

    /// Declare a schedule, one of a name. When the worker starts it is added, or changed where it differs; it goes on
    /// from where it was unless its timing changes, and stays paused if it is. Where no worker declares it any more it
    /// is shown as stale, and goes on until it is removed.
    #[cfg(feature = "schedules")]
    pub fn schedule(mut self, schedule: Schedule) -> WorkerBuilder {
        self.schedules.push(schedule);
        self
    }

    /// How often to look for work without any reason to, 1 ms or more; default 5 s. Catches what else would be
    /// missed, so it costs little to make it long, and nothing is lost.
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

    /// How long one attempt may take if neither the job nor its kind says; default: as long as it likes. Then its
    /// handler is told to stop, and dropped if it has not a moment later; see the guide on live control.
    pub fn timeout(mut self, timeout: Duration) -> WorkerBuilder {
        self.options.timeout = Some(timeout);
        self
    }

    /// How long handlers may take to finish at shutdown; default 30 s.
    pub fn grace(mut self, grace: Duration) -> WorkerBuilder {
        self.options.grace = grace;
        self
    }

    /// Ends the grace period of a shutdown early, when this completes: at a second Ctrl-C, say.
    pub fn end_grace(mut self, when: impl Future<Output = ()> + Send + 'static) -> WorkerBuilder {
        self.options.end_grace = when.boxed().shared();
        self
    }

    /// How often to say that this worker lives, 1 ms to a day; default 1 s.
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
    /// Invalid if a queue is named badly or twice or has no slots, a kind has two handlers or there is none at all, a
    /// handler asks for a state that was not given, or for batches of more jobs than any queue has slots; or if a
    /// schedule makes no sense or is declared twice, or a duration is one that no worker can go by.
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
        self.options.check()?;
        self.handlers.check(&self.states, &self.queues)?;
        #[cfg(feature = "schedules")]
        for (place, schedule) in self.schedules.iter().enumerate() {
            schedule.check()?;
            if self.schedules[..place].iter().any(|earlier| earlier.name == schedule.name) {
                return Err(Error::invalid(format!("schedule {:?} is declared twice", schedule.name)));
            }
        }
        #[cfg(feature = "schedules")]
        for schedule in &mut self.schedules {
            schedule.through_middleware |= !self.middlewares.is_empty();
        }
        let driver = self.driver?;
        self.states.insert(OfWorker(Enqueuer::with(self.middlewares.clone(), driver.schema())));
        Ok(Worker {
            driver,
            queues: self.queues,
            handlers: Arc::new(self.handlers),
            middlewares: Arc::new(self.middlewares),
            states: Arc::new(self.states),
            options: Arc::new(self.options),
            #[cfg(feature = "schedules")]
            schedules: self.schedules,
        })
    }
}

fn host_name() -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown".into() } else { name.into() }
}

/// An id that no other worker has or has had: a crash or fail-over must not make one repeat.
fn random_id() -> i64 {
    fastrand::i64(1..)
}
