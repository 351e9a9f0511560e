#![doc = include_str!("../docs/README.md")]

#[doc = include_str!("../docs/batches.md")]
pub mod batches {}

#[doc = include_str!("../docs/control.md")]
pub mod control {}

#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

#[doc = include_str!("../docs/order.md")]
pub mod order {}
