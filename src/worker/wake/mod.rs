//! Waking up: the listener receives the notifications of the store, and the sleeper is how a claimer rests until then.

pub(crate) mod listener;
pub(crate) mod sleeper;
