#![doc = include_str!("../docs/README.md")]

#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

#[doc = include_str!("../docs/order.md")]
pub mod order {}

#[doc = include_str!("../docs/results.md")]
pub mod results {}

#[doc = include_str!("../docs/unique.md")]
pub mod unique {}
