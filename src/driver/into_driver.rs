//! What a worker can be built on.

use std::sync::Arc;

use super::Driver;
use crate::error::Result;

/// What a worker can be built on: a [`Database`](crate::Database), or any driver in an `Arc`.
pub trait IntoDriver {
    /// The driver to work with.
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
