//! What visitors do: each POST and its answer.

pub mod bulk;
pub mod dead;
pub mod edit;
pub mod enqueue;
pub mod job;
pub mod pause;
pub mod queue;
pub mod sealed;
pub mod workflow;
