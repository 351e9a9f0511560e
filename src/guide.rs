#![doc = include_str!("../docs/README.md")]

#[doc = include_str!("../docs/backup.md")]
pub mod backup {}

#[doc = include_str!("../docs/batches.md")]
pub mod batches {}

#[doc = include_str!("../docs/control.md")]
pub mod control {}

#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

#[doc = include_str!("../docs/order.md")]
pub mod order {}

#[doc = include_str!("../docs/prepared.md")]
pub mod prepared {}

#[doc = include_str!("../docs/monitoring.md")]
pub mod monitoring {}

#[doc = include_str!("../docs/programs.md")]
pub mod programs {}

#[doc = include_str!("../docs/middleware.md")]
pub mod middleware {}

#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/tracing.md")]
pub mod tracing {}
#[cfg(feature = "schedules")]
#[doc = include_str!("../docs/schedules.md")]
pub mod schedules {}
#[doc = include_str!("../docs/results.md")]
pub mod results {}

#[doc = include_str!("../docs/unique.md")]
pub mod unique {}
