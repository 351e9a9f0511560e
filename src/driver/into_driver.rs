//! The conversion of a store into the driver of a worker.

use std::sync::Arc;

use super::Driver;
use crate::error::Result;

/// A store that a worker can be built on: a [`Database`](crate::Database), a [`Postgres`](super::Postgres), a
/// [`Memory`](super::Memory), or any driver in an `Arc`.
pub trait IntoDriver {
    /// Returns the driver that the worker uses.
    fn into_driver(self) -> Result<Arc<dyn Driver>>;
}

impl<D: Driver> IntoDriver for Arc<D> {
    fn into_driver(self) -> Result<Arc<dyn Driver>> {
        Ok(self)
    }
}

impl IntoDriver for Arc<dyn Driver> {
    fn into_driver(self) -> Result<Arc<dyn Driver>> {
        Ok(self)
    }
}
