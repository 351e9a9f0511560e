//! The behaviour that every store of jobs shares, as tests: for the author of a [`Driver`].
//!
//! [`Postgres`](crate::driver::Postgres) and [`Memory`](crate::driver::Memory) pass all of them. A store that lacks a
//! capability says so, and must then refuse what it cannot do instead of ignoring it:
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
// A behaviour fails by a panic.
#![allow(clippy::unwrap_used)]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};

use crate::driver::{Driver, FailureReason};
use crate::error::Result;
use crate::job::{Cancelled, JobState, Retried};
use crate::queue::QueueSettings;

mod claiming;
mod control;
mod limits;
mod liveness;
#[cfg(feature = "schedules")]
mod schedules;
mod settling;
mod signals;
mod subject;
mod uniqueness;
mod working;

use subject::Subject;

/// A store under test: its driver, and what people do with the store beside the driver.
///
/// The methods with a default are for [controls](Conformance::without_controls) and
/// [limits](Conformance::without_limits). They panic unless the store implements them.
pub trait StoreUnderTest: Send + Sync + 'static {
    /// Returns the driver; the same store at each call.
    fn driver(&self) -> Arc<dyn Driver>;

    /// Returns where a job stands; `None` if the store knows no such job.
    fn standing(&self, id: i64) -> BoxFuture<'_, Option<Standing>>;

    /// Cancels a job.
    fn cancel(&self, id: i64) -> BoxFuture<'_, Cancelled> {
        unsupported("cancel", id)
    }

    /// Makes a job due now.
    fn retry(&self, id: i64) -> BoxFuture<'_, Result<Retried>> {
        unsupported("retry", id)
    }

    /// Pauses a queue.
    fn pause<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, ()> {
        unsupported("pause", queue)
    }

    /// Resumes a queue.
    fn resume<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, ()> {
        unsupported("resume", queue)
    }

    /// Asks a worker to shut down. Returns whether the store knows such a worker.
    fn stop_worker(&self, worker: i64) -> BoxFuture<'_, bool> {
        unsupported("stop_worker", worker)
    }

    /// Changes settings of a queue.
    fn set_queue<'a>(&'a self, queue: &'a str, settings: QueueSettings) -> BoxFuture<'a, ()> {
        let _ = settings;
        unsupported("set_queue", queue)
    }
}

fn unsupported<T>(method: &str, of: impl std::fmt::Display) -> T {
    panic!("{method} {of}: implement StoreUnderTest::{method}, or tell Conformance that the store lacks it")
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The state of the job.
    pub state: JobState,
    /// How often the job was reserved.
    pub attempts: u32,
    /// How many attempts have failed.
    pub failures: u32,
    /// The reason why a dead job died.
    pub reason: Option<FailureReason>,
}

impl Standing {
    /// Describes a job that is not dead.
    pub fn new(state: JobState, attempts: u32, failures: u32) -> Standing {
        Standing { state, attempts, failures, reason: None }
    }

    /// Sets the reason why the job died.
    #[must_use]
    pub fn reason(self, reason: Option<FailureReason>) -> Standing {
        Standing { reason, ..self }
    }
}

/// What a store may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Capability {
    Controls,
    Limits,
    Notifications,
    #[cfg_attr(not(feature = "schedules"), allow(dead_code))]
    Schedules,
    UniqueKeys,
}

/// The suite, for one kind of store.
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

    /// The store cannot cancel, retry, pause or stop.
    #[must_use]
    pub fn without_controls(self) -> Conformance<F> {
        self.without(Capability::Controls)
    }

    /// The store keeps no limits, rates and order.
    #[must_use]
    pub fn without_limits(self) -> Conformance<F> {
        self.without(Capability::Limits)
    }

    /// The store sends no notifications: [`Driver::listen`] must say so.
    #[must_use]
    pub fn without_notifications(self) -> Conformance<F> {
        self.without(Capability::Notifications)
    }

    /// The store keeps no schedules: it must refuse them.
    #[must_use]
    pub fn without_schedules(self) -> Conformance<F> {
        self.without(Capability::Schedules)
    }

    /// The store knows no unique keys: it must refuse a job that has one.
    #[must_use]
    pub fn without_unique_keys(self) -> Conformance<F> {
        self.without(Capability::UniqueKeys)
    }

    fn without(mut self, capability: Capability) -> Conformance<F> {
        self.lacking.push(capability);
        self
    }

    /// Returns the names of the behaviours that this store should have.
    pub fn behaviours(&self) -> Vec<&'static str> {
        self.applicable().map(|behaviour| behaviour.name).collect()
    }

    /// Tests one behaviour, by its name.
    ///
    /// # Panics
    /// If the store behaves otherwise, or should have no such behaviour.
    pub async fn check(&self, name: &str) {
        let behaviour = self.applicable().find(|behaviour| behaviour.name == name);
        let behaviour = behaviour.unwrap_or_else(|| panic!("no behaviour of this store has the name {name}"));
        self.test(behaviour).await;
    }

    /// Tests all behaviours that this store should have, one after another.
    ///
    /// # Panics
    /// If the store behaves otherwise. The message names each behaviour that failed.
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

/// One behaviour: a test that panics if the store behaves otherwise.
struct Behaviour {
    name: &'static str,
    /// It is tested if the store has all of these capabilities
    needs: &'static [Capability],
    /// and none of these.
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
    working::BEHAVIOURS,
];

/// Lists the behaviours of a file, each with the capabilities that it needs, or that the store must lack.
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
