#![doc = include_str!("../docs/README.md")]

#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

#[doc = include_str!("../docs/order.md")]
pub mod order {}

#[cfg(feature = "schedules")]
#[doc = include_str!("../docs/schedules.md")]
pub mod schedules {}
