#![forbid(unsafe_code)]
//! A job queue that lives in Postgres and wakes its workers.

mod error;

#[cfg(feature = "dev")]
pub mod dev;

pub use error::{Error, Result};
