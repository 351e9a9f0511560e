//! The behaviours that every store of jobs shares, as tests: for the author of a [`Driver`].
//!
//! [`Postgres`](crate::driver::Postgres) and [`Memory`](crate::driver::Memory) pass all these tests. If your store
//! lacks a capability, declare that as below. The store must then refuse requests for that capability, and not ignore
//! them:
//!
//! ```no_run
//! # use reveille::driver::Driver;
//! # use reveille::handler::BoxFuture;
//! # use reveille::testing::conformance::{Conformance, Standing, StoreUnderTest};
//! # use std::sync::Arc;
//! # struct MyStore;
//! # impl MyStore { async fn empty() -> MyStore { MyStore } }
//! # impl StoreUnderTest for MyStore {
//! #     fn driver(&self) -> Arc<dyn Driver> { unimplemented!() }
//! #     fn standing(&self, _: i64) -> BoxFuture<'_, Option<Standing>> { unimplemented!() }
//! # }
//! #[tokio::test(flavor = "multi_thread")]
//! async fn my_store_conforms() {
//!     Conformance::new(MyStore::empty).without_limits().without_schedules().run().await;
//! }
//! ```
// A test reports a missing behaviour by a panic.
#![allow(clippy::unwrap_used)]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};

use crate::driver::{Driver, FailureReason};
use crate::error::Result;
use crate::job::{Cancelled, JobState, Payload, Retried, RetriedJob, WorkflowJobState, WorkflowState};
use crate::queue::{Pause, QueueSettings};

mod claiming;
mod control;
mod dependencies;
mod limits;
mod liveness;
#[cfg(feature = "schedules")]
mod schedules;
mod settling;
mod signals;
mod steps;
mod subject;
mod uniqueness;
mod workflows;
mod working;

use subject::Subject;

/// A store under test: its driver, and the actions that users take on the store without the driver.
///
/// The methods with a default serve the tests of [controls](Conformance::without_controls),
/// [limits](Conformance::without_limits) and [workflows](Conformance::without_workflows). Each default panics:
/// implement the method, or declare that the store lacks the capability.
pub trait StoreUnderTest: Send + Sync + 'static {
    /// Returns the driver. Each call returns a driver of the same store.
    fn driver(&self) -> Arc<dyn Driver>;

    /// Returns the state and the counts of a job; `None` if the store knows no job with this id.
    fn standing(&self, id: i64) -> BoxFuture<'_, Option<Standing>>;

    /// Cancels a job.
    fn cancel(&self, id: i64) -> BoxFuture<'_, Cancelled> {
        unsupported("cancel", id)
    }

    /// Makes a job due now.
    fn retry(&self, id: i64) -> BoxFuture<'_, Result<Retried>> {
        unsupported("retry", id)
    }

    /// Pauses a queue, a kind or a key: no job that the pause [covers](Pause::covers) is claimed.
    fn pause<'a>(&'a self, pause: &'a Pause) -> BoxFuture<'a, ()> {
        unsupported("pause", format!("{pause:?}"))
    }

    /// Ends a pause.
    fn resume<'a>(&'a self, pause: &'a Pause) -> BoxFuture<'a, ()> {
        unsupported("resume", format!("{pause:?}"))
    }

    /// Asks a worker to shut down. Returns whether the store knows a worker with this id.
    fn stop_worker(&self, worker: i64) -> BoxFuture<'_, bool> {
        unsupported("stop_worker", worker)
    }

    /// Changes settings of a queue.
    fn set_queue<'a>(&'a self, queue: &'a str, settings: QueueSettings) -> BoxFuture<'a, ()> {
        let _ = settings;
        unsupported("set_queue", queue)
    }

    /// Returns the state of a workflow and of its jobs; `None` if the store knows no workflow with this id.
    fn workflow(&self, id: i64) -> BoxFuture<'_, Option<WorkflowStanding>> {
        unsupported("workflow", id)
    }

    /// Cancels a workflow. Returns its state; `None` if the store knows no workflow with this id.
    fn cancel_workflow(&self, id: i64) -> BoxFuture<'_, Option<WorkflowState>> {
        unsupported("cancel_workflow", id)
    }

    /// Revives the dead jobs of a workflow; if `forced` is true, even those whose deaths were acted on. Returns the
    /// answer for each dead job; `None` if the store knows no workflow with this id.
    fn retry_workflow(&self, id: i64, forced: bool) -> BoxFuture<'_, Option<Vec<RetriedJob>>> {
        let _ = forced;
        unsupported("retry_workflow", id)
    }
}

fn unsupported<T>(method: &str, of: impl std::fmt::Display) -> T {
    panic!("{method} {of}: implement StoreUnderTest::{method}, or tell Conformance that the store lacks it")
}

/// The state and the counts of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The state of the job.
    pub state: JobState,
    /// The number of times the job was reserved.
    pub attempts: u32,
    /// The number of attempts that have failed.
    pub failures: u32,
    /// The reason for which the job became a dead job.
    pub reason: Option<FailureReason>,
}

impl Standing {
    /// Describes a job that is not dead.
    pub fn new(state: JobState, attempts: u32, failures: u32) -> Standing {
        Standing { state, attempts, failures, reason: None }
    }

    /// Sets the reason for which the job became a dead job.
    #[must_use]
    pub fn reason(self, reason: Option<FailureReason>) -> Standing {
        Standing { reason, ..self }
    }
}

/// The state of a workflow and of its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkflowStanding {
    /// The state of the workflow.
    pub state: WorkflowState,
    /// The jobs by their names, in any order.
    pub jobs: Vec<(String, WorkflowJobState)>,
    /// The result of the workflow.
    pub result: Option<Payload>,
}

impl WorkflowStanding {
    /// Describes a workflow without a result.
    pub fn new(state: WorkflowState, jobs: Vec<(String, WorkflowJobState)>) -> WorkflowStanding {
        WorkflowStanding { state, jobs, result: None }
    }

    /// Sets the result.
    #[must_use]
    pub fn result(self, result: Option<Payload>) -> WorkflowStanding {
        WorkflowStanding { result, ..self }
    }
}

/// A capability that a store may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Capability {
    Controls,
    Limits,
    Notifications,
    #[cfg_attr(not(feature = "schedules"), allow(dead_code))]
    Schedules,
    Steps,
    UniqueKeys,
    Workflows,
}

/// The suite, for one type of store.
pub struct Conformance<F> {
    make: F,
    lacking: Vec<Capability>,
}

impl<F, S> Conformance<F>
where
    F: AsyncFn() -> S,
    S: StoreUnderTest,
{
    /// Tests the stores that `make` returns. Each behaviour gets a fresh store without jobs and workers.
    pub fn new(make: F) -> Conformance<F> {
        Conformance { make, lacking: Vec::new() }
    }

    /// Declares that the store cannot cancel, retry, pause or stop.
    #[must_use]
    pub fn without_controls(self) -> Conformance<F> {
        self.without(Capability::Controls)
    }

    /// Declares that the store keeps no limits, rates or order.
    #[must_use]
    pub fn without_limits(self) -> Conformance<F> {
        self.without(Capability::Limits)
    }

    /// Declares that the store sends no notifications: [`Driver::listen`] must return an error.
    #[must_use]
    pub fn without_notifications(self) -> Conformance<F> {
        self.without(Capability::Notifications)
    }

    /// Declares that the store keeps no schedules: it must refuse them.
    #[must_use]
    pub fn without_schedules(self) -> Conformance<F> {
        self.without(Capability::Schedules)
    }

    /// Declares that the store keeps no steps and events: it must refuse them.
    #[must_use]
    pub fn without_steps(self) -> Conformance<F> {
        self.without(Capability::Steps)
    }

    /// Declares that the store knows no unique keys: it must refuse a job that has a unique key.
    #[must_use]
    pub fn without_unique_keys(self) -> Conformance<F> {
        self.without(Capability::UniqueKeys)
    }

    /// Declares that the store keeps no workflows and no jobs that wait for others: it must refuse them, as the
    /// defaults of [`Driver`] do.
    #[must_use]
    pub fn without_workflows(self) -> Conformance<F> {
        self.without(Capability::Workflows)
    }

    fn without(mut self, capability: Capability) -> Conformance<F> {
        self.lacking.push(capability);
        self
    }

    /// Returns the names of the behaviours that this store must have.
    pub fn behaviours(&self) -> Vec<&'static str> {
        self.applicable().map(|behaviour| behaviour.name).collect()
    }

    /// Tests one behaviour, by its name.
    ///
    /// # Panics
    /// If the store lacks this behaviour, or if no behaviour of this name applies to the store.
    pub async fn check(&self, name: &str) {
        let behaviour = self.applicable().find(|behaviour| behaviour.name == name);
        let behaviour = behaviour.unwrap_or_else(|| panic!("no behaviour of this store has the name {name}"));
        self.test(behaviour).await;
    }

    /// Tests all behaviours that this store must have, one after another.
    ///
    /// # Panics
    /// If the store lacks a behaviour. The message names each missing behaviour.
    pub async fn run(&self) {
        let (mut failed, mut count) = (String::new(), 0);
        for behaviour in self.applicable() {
            count += 1;
            if let Err(panic) = AssertUnwindSafe(self.test(behaviour)).catch_unwind().await {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                failed += &format!("\n{}: {text}", behaviour.name);
            }
        }
        assert!(failed.is_empty(), "of {count} behaviours these failed:{failed}");
    }

    async fn test(&self, behaviour: &Behaviour) {
        let store = Box::new((self.make)().await);
        (behaviour.test)(&Subject::new(store, !self.lacking.contains(&Capability::Notifications))).await;
    }

    fn applicable(&self) -> impl Iterator<Item = &'static Behaviour> {
        let has = |capability: &Capability| !self.lacking.contains(capability);
        ALL.iter()
            .copied()
            .flatten()
            .filter(move |behaviour| behaviour.needs.iter().all(has) && !behaviour.lacks.iter().any(has))
    }
}

/// One behaviour: a test that panics if the store does not have it.
struct Behaviour {
    name: &'static str,
    /// The test runs only if the store has all of these capabilities.
    needs: &'static [Capability],
    /// The test runs only if the store has none of these capabilities.
    lacks: &'static [Capability],
    test: for<'a> fn(&'a Subject) -> LocalBoxFuture<'a, ()>,
}

const ALL: &[&[Behaviour]] = &[
    claiming::BEHAVIOURS,
    settling::BEHAVIOURS,
    uniqueness::BEHAVIOURS,
    limits::BEHAVIOURS,
    control::BEHAVIOURS,
    liveness::BEHAVIOURS,
    signals::BEHAVIOURS,
    #[cfg(feature = "schedules")]
    schedules::BEHAVIOURS,
    steps::BEHAVIOURS,
    dependencies::BEHAVIOURS,
    workflows::BEHAVIOURS,
    working::BEHAVIOURS,
];

/// Lists the behaviours of a file, each with the capabilities that the store must have or lack for its test.
macro_rules! behaviours {
    ($($name:ident $(needs $($need:ident)+)? $(lacks $lack:ident)?),+ $(,)?) => {
        pub(super) const BEHAVIOURS: &[super::Behaviour] = &[$(super::Behaviour {
            name: stringify!($name),
            needs: &[$($(super::Capability::$need),+)?],
            lacks: &[$(super::Capability::$lack)?],
            test: |subject| Box::pin($name(subject)),
        }),+];
    };
}

use behaviours;
