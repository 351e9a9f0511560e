#![forbid(unsafe_code)]
#![doc = include_str!("guide/links.md")]
#![doc = include_str!("../README.md")]

mod error;

pub mod job;

mod queue;
#[cfg(feature = "schedules")]
pub mod schedule;

pub mod database;

pub mod driver;

pub mod handler;

pub mod enqueue;

mod workflow;

pub mod worker;

pub mod admin;
#[cfg(feature = "dev")]
pub mod dev;
pub mod guide;
pub mod testing;

pub use database::Database;
pub use enqueue::enqueue;
pub use error::{Error, Result};
pub use handler::{Attempt, Context, State};
pub use job::{Job, Outcome};
pub use worker::Worker;
