#![forbid(unsafe_code)]
#![doc = include_str!("../README.md")]

mod error;
mod retry;

pub mod job;
mod outcome;
mod payload;
pub mod queue;
mod unique;

pub mod database;

pub mod driver;

pub mod finished;

pub mod enqueue;
mod executor;
mod progress;

pub mod extract;
pub mod handler;

mod backoff;
mod held;
mod listener;
mod wake;

mod attempt;
mod claim;
mod lease;
mod look;
mod marks;
mod settle;
mod sleeper;
mod slots;
mod upkeep;

pub mod admin;
pub mod doctor;
pub mod worker;

mod crew;
pub mod drain;

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
