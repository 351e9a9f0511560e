//! The worker: it claims due jobs, runs their handlers and settles the attempts.
//!
//! ```no_run
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # struct SendWelcome { user_id: i64 }
//! # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
//! # async fn send_welcome(_: SendWelcome) {}
//! # async fn example(database: reveille::Database) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! let worker = reveille::Worker::builder(database)
//!     .queue("default", 32)                   // 32 jobs of this queue at once
//!     .queue("mail", 4)
//!     .grace(Duration::from_secs(30))         // for running jobs at a shutdown
//!     .handle(send_welcome)
//!     .build()?;
//! worker.run_until(tokio::signal::ctrl_c()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The guide: [the first worker](crate::guide::start::first_worker),
//! [configuration](crate::guide::reference::configuration), [deploying](crate::guide::running::deploying),
//! [slots and processes](crate::guide::running::sizing).

// This file contains the builder of a worker; `run.rs` starts and stops the worker's parts.

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
use crate::handler::extract::Context;
use crate::handler::gather::{self, Gather};
use crate::handler::middleware::{Middleware, Middlewares};
use crate::handler::states::States;
use crate::handler::{Arguments, Handler, Handlers};
use crate::job::outcome::IntoOutcome;
use crate::job::retry_policy::RetryPolicy;
use crate::job::{Job, check_name};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;
use crate::worker::attempt::Attempts;
use crate::worker::attempt::reservations::HeldJobs;
use crate::worker::backoff::Reconnected;
use crate::worker::identity::{host_name, random_id};
use crate::worker::options::Options;
use crate::worker::parts::Parts;
use crate::workflow::starter;

pub(crate) mod apply_ends;
pub(crate) mod attempt;
pub(crate) mod backoff;
pub(crate) mod bells;
pub(crate) mod claim;
pub(crate) mod drain;
#[cfg(feature = "schedules")]
pub(crate) mod fire_schedules;
pub(crate) mod health;
pub(crate) mod heartbeat;
pub(crate) mod identity;
pub(crate) mod kind_counts;
pub(crate) mod options;
pub(crate) mod parts;
pub(crate) mod pauses;
pub(crate) mod run;
pub(crate) mod shared;
pub(crate) mod slot_count;
pub(crate) mod upkeep;
pub(crate) mod wake;

pub use drain::{Inline, JobsRun};
pub use health::{Health, HealthStatus};
pub use slot_count::SlotLimits;

/// A worker: claims the due jobs of its queues and runs their handlers.
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
    id: i64,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) queues: Vec<(String, usize)>,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) middlewares: Arc<Middlewares>,
    states: Arc<States>,
    pub(crate) options: Arc<Options>,
    pub(crate) health: Health,
    /// The kinds that the handler of any kind works, if that is known.
    any_kinds: Option<Vec<String>>,
    #[cfg(feature = "schedules")]
    pub(crate) schedules: Vec<Schedule>,
}

/// Builds a [`Worker`] from its queues, handlers and settings.
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
    /// Returns a builder for a worker on a [`Database`](crate::Database), or on any driver in an `Arc`.
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

    /// Returns the id under which [`run_until`](Worker::run_until) registers this worker, for `Admin::stop_worker`.
    ///
    /// The id is random, and new for each worker that is built. A worker that is declared dead goes on under a new id,
    /// which this method does not know. The event `worker.declared_dead` reports the new id, and `Admin::workers` lists
    /// it with the host and the process. The other methods that run jobs register under ids of their own.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Returns an [`Enqueuer`] for the schema of this worker's database. The jobs that it enqueues pass through this
    /// worker's middlewares.
    pub fn enqueuer(&self) -> Enqueuer {
        Enqueuer::with(Middlewares::clone(&self.middlewares), self.driver.schema())
    }

    /// Declares the kinds that the handler of [`handle_any`](WorkerBuilder::handle_any) works. The doctor and the view
    /// `worker_status` show them. The handler gets the jobs of other kinds all the same.
    pub fn declare_kinds(&mut self, kinds: impl IntoIterator<Item = String>) {
        self.any_kinds = Some(kinds.into_iter().collect());
    }

    /// Returns the worker's [`Health`], for the probes of a supervisor.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Returns a description of this worker.
    pub(crate) fn info(&self) -> WorkerInfo {
        WorkerInfo {
            id: self.id,
            host: host_name(),
            pid: std::process::id(),
            queues: self.queues.iter().map(|(name, _)| name.clone()).collect(),
            queue_slots: self.queues.iter().map(|(_, slots)| *slots).collect(),
            slots: self.queues.iter().map(|(_, slots)| slots).sum(),
            kinds: self.handlers.kinds(self.any_kinds.as_deref()),
            listens: self.options.listen,
        }
    }

    pub(crate) fn attempts(&self, held_jobs: &Arc<HeldJobs>) -> Attempts {
        Attempts {
            driver: Arc::clone(&self.driver),
            handlers: Arc::clone(&self.handlers),
            middlewares: Arc::clone(&self.middlewares),
            states: Arc::clone(&self.states),
            held_jobs: Arc::clone(held_jobs),
            kind_counts: Arc::default(),
            is_stored: true,
            timeout: self.options.timeout,
            give_up: CancellationToken::new(),
            reconnected: Reconnected::default(),
            parts: Parts::default(),
        }
    }
}

impl WorkerBuilder {
    /// Adds a queue. The worker runs up to `slots` jobs of this queue at once; `slots` is at least 1.
    ///
    /// Without a call of this method, the worker works the queue `default` with 32 slots.
    pub fn queue(mut self, name: impl Into<String>, slots: usize) -> WorkerBuilder {
        self.queues.push((name.into(), slots));
        self
    }

    /// Shares a value with the handlers that take [`State<T>`](crate::State). A worker shares one value of each type.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, state: T) -> WorkerBuilder {
        self.states.insert(state);
        self
    }

    /// Adds a handler. The type of the handler's first argument sets the kind of its jobs. Each kind has one handler.
    ///
    /// `H` is an async function, and `A` is the type of its arguments: see [`Handler`] and [`Arguments`].
    pub fn handle<A, H>(mut self, handler: H) -> WorkerBuilder
    where
        A: Arguments,
        H: Handler<A>,
        H::Future: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.handlers.add(handler);
        self
    }

    /// Adds a [middleware](crate::handler::Middleware). The middleware runs around each attempt, and around each
    /// enqueue through the worker's [`Enqueuer`]. The middleware that is added first is the outermost.
    pub fn middleware(mut self, middleware: impl Middleware) -> WorkerBuilder {
        self.middlewares.add(middleware);
        self
    }

    /// Adds a handler that runs many jobs of one kind at once. Its first argument is a [`Batch`](crate::handler::Batch)
    /// of jobs.
    ///
    /// `gather` sets the largest size of a batch, and how long the batch waits for more jobs; see [`Gather`]. All jobs
    /// of a batch come from one queue. Each job takes a slot, so a batch has no more jobs than its queue has slots.
    pub fn handle_batch<A, H>(mut self, gather: Gather, handler: H) -> WorkerBuilder
    where
        A: BatchArguments,
        H: BatchHandler<A>,
        H::Future: Future<Output: IntoOutcomes> + Send + 'static,
    {
        self.handlers.insert(A::Job::KIND, gather::register(gather, handler));
        self
    }

    /// Adds a handler for the jobs of all kinds that have no other handler. `retry_policy` applies to these jobs.
    pub fn handle_any<F, Fut>(mut self, handler: F, retry_policy: RetryPolicy) -> WorkerBuilder
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoOutcome,
    {
        self.handlers.add_any(handler, retry_policy);
        self
    }

    /// Declares a schedule. Two schedules of a worker cannot have the same name.
    ///
    /// When the worker starts, it adds the schedule to the store, or changes the stored schedule to this declaration. A
    /// paused schedule stays paused. The schedule keeps its next tick if its timing is unchanged. If the timing has
    /// changed, the next tick is computed anew. A schedule that no worker declares any more is shown as stale, and
    /// fires until it is removed.
    #[cfg(feature = "schedules")]
    pub fn schedule(mut self, schedule: Schedule) -> WorkerBuilder {
        self.schedules.push(schedule);
        self
    }

    /// Sets the poll interval, after which the worker looks for due jobs although no bell has rung; 1 ms or more, 5 s
    /// by default.
    ///
    /// The poll finds jobs whose bell the worker has missed. With a longer interval, a job whose bell was missed starts
    /// later, but is not lost.
    pub fn poll_interval(mut self, interval: Duration) -> WorkerBuilder {
        self.options.poll_interval = interval;
        self
    }

    /// Sets whether the worker listens for notifications; true by default.
    ///
    /// Without notifications, the worker finds new jobs by polling alone. Behind a transaction pooler the worker has to
    /// poll, since notifications do not arrive there.
    pub fn listen(mut self, listen: bool) -> WorkerBuilder {
        self.options.listen = listen;
        self
    }

    /// Sets the timeout of attempts at jobs that set none and whose kind sets none; unlimited by default.
    ///
    /// At the timeout, the worker asks the handler to stop. The worker then waits for as long as the timeout, 1 s at
    /// most. If the handler still runs, the worker drops it. See [the guide on
    /// timeouts](crate::guide::jobs::timeouts).
    pub fn timeout(mut self, timeout: Duration) -> WorkerBuilder {
        self.options.timeout = Some(timeout);
        self
    }

    /// Sets the grace period: how long handlers may go on once a shutdown has begun; 30 s by default.
    pub fn grace(mut self, grace: Duration) -> WorkerBuilder {
        self.options.grace = grace;
        self
    }

    /// Ends the grace period of a shutdown early, once `when` completes: for example at a second Ctrl-C.
    pub fn end_grace(mut self, when: impl Future<Output = ()> + Send + 'static) -> WorkerBuilder {
        self.options.end_grace = when.boxed().shared();
        self
    }

    /// Sets the interval of this worker's heartbeats; 1 ms to a day, 1 s by default.
    pub fn heartbeat(mut self, interval: Duration) -> WorkerBuilder {
        self.options.heartbeat = interval;
        self
    }

    /// Sets the time without a heartbeat after which this worker declares another worker dead; 30 s by default, and at
    /// least three [heartbeats](WorkerBuilder::heartbeat).
    ///
    /// A worker whose listener has lost its session is declared dead after three missed heartbeats.
    pub fn dead_after(mut self, silence: Duration) -> WorkerBuilder {
        self.options.dead_after = silence;
        self
    }

    /// Sets limits of the slots that can change while the worker runs; no limits by default.
    pub fn slot_limits(mut self, limits: SlotLimits) -> WorkerBuilder {
        self.options.slot_limits = limits;
        self
    }

    /// Checks the settings and returns the worker.
    ///
    /// # Errors
    /// If the driver given to [`Worker::builder`] could not be made.
    ///
    /// Invalid if:
    /// - a queue has an invalid name, no slots, or was added twice;
    /// - a kind has two handlers or begins with `reveille.`, or the worker has no handler at all;
    /// - a handler takes a [`State`](crate::State) that was not given;
    /// - a batch handler asks for more jobs than any queue has slots;
    /// - a schedule is invalid or was declared twice;
    /// - a duration is out of its range.
    pub fn build(mut self) -> Result<Worker> {
        if self.queues.is_empty() {
            self.queues.push(("default".into(), 32));
        }
        for (place, (name, slots)) in self.queues.iter().enumerate() {
            check_name("queue", name)?;
            if !(1..=Semaphore::MAX_PERMITS).contains(slots) {
                return Err(Error::invalid(format!(
                    "queue {name:?} cannot have {slots} slots; give it 1 to {}",
                    Semaphore::MAX_PERMITS
                )));
            }
            if self.queues[..place].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::invalid(format!("queue {name:?} is added twice; add it once")));
            }
        }
        self.options.check()?;
        self.handlers.check(&self.states, &self.queues)?;
        #[cfg(feature = "schedules")]
        for (place, schedule) in self.schedules.iter().enumerate() {
            schedule.check()?;
            if self.schedules[..place].iter().any(|earlier| earlier.name == schedule.name) {
                return Err(Error::invalid(format!(
                    "schedule {:?} is declared twice; remove one of the declarations",
                    schedule.name
                )));
            }
        }
        #[cfg(feature = "schedules")]
        for schedule in &mut self.schedules {
            schedule.through_middleware |= !self.middlewares.is_empty();
        }
        let driver = self.driver?;
        self.handlers.add_starter(starter(Arc::clone(&driver)));
        self.states.insert(OfWorker(Enqueuer::with(self.middlewares.clone(), driver.schema())));
        Ok(Worker {
            id: random_id(),
            driver,
            queues: self.queues,
            handlers: Arc::new(self.handlers),
            middlewares: Arc::new(self.middlewares),
            states: Arc::new(self.states),
            health: Health::new(self.options.heartbeat),
            any_kinds: None,
            options: Arc::new(self.options),
            #[cfg(feature = "schedules")]
            schedules: self.schedules,
        })
    }
}
