#![forbid(unsafe_code)]
#![doc = include_str!("../README.md")]

mod error;
mod retry;

pub mod job;
mod outcome;
mod parts;
mod payload;
pub mod queue;
mod trace;
mod unique;

#[cfg(feature = "schedules")]
pub mod schedule;

pub mod database;

pub mod driver;

pub mod finished;

mod executor;
mod progress;

pub mod batch;
pub mod extract;
pub mod handler;
pub mod middleware;

pub mod enqueue;

mod backoff;
mod held;
mod how_many;
mod listener;
mod pauses;
mod wake;

mod attempt;
mod claim;
mod last_look;
mod lease;
mod look;
mod marks;
mod next_due;
mod settle;
mod sleeper;
mod slots;
#[cfg(feature = "schedules")]
mod ticker;
mod upkeep;

pub mod admin;
pub mod doctor;
pub mod metrics;
pub mod worker;

mod crew;
pub mod drain;
pub mod testing;

#[cfg(feature = "dev")]
pub mod dev;

pub mod guide;

pub use database::Database;
pub use driver::{Driver, Memory, Postgres};
pub use enqueue::{enqueue, enqueue_all};
pub use error::{Error, Result};
pub use executor::Executor;
pub use extract::{Attempt, Cancellation, Context, State};
pub use job::{Job, NewJob, Priority};
pub use outcome::{IntoOutcome, Outcome};
pub use retry::RetryPolicy;
pub use worker::Worker;
