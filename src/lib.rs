#![forbid(unsafe_code)]
//! A job queue that lives in Postgres and wakes its workers.

mod error;
mod retry;

mod job;
mod outcome;
mod payload;

mod database;

mod driver;

mod enqueue;
mod executor;

mod extract;
mod handler;

mod backoff;
mod held;
mod listener;
mod wake;

mod attempt;
mod claim;
mod lease;
mod settle;
mod upkeep;

mod admin;
mod worker;

#[cfg(feature = "dev")]
pub mod dev;

pub use admin::{Admin, Batch, Filter, QueueSettings, Record};
pub use database::migrate::migrations_sql;
pub use database::{Database, DatabaseOptions};
pub use driver::{
    Beat, Driver, Ending, Failure, IntoDriver, Peer, Postgres, Reason, Rescue, Settlement, Signal, WorkerInfo,
};
pub use enqueue::{Enqueue, enqueue, enqueue_all, enqueue_all_raw, enqueue_raw};
pub use error::{Error, Result};
pub use executor::Executor;
pub use extract::{Attempt, Cancellation, Context, Extract, State, States};
pub use handler::Handler;
pub use job::{Due, Enqueued, Job, NewJob, Priority, Reservation, ReservedJob, UniqueMode, UniqueUntil};
pub use outcome::{IntoOutcome, Outcome};
pub use payload::Payload;
pub use retry::RetryPolicy;
pub use worker::{Worker, WorkerBuilder};
