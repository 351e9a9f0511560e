//! Waking up: the listener hears the store's bell, and the sleeper is how a claimer rests until then.

pub(crate) mod listener;
pub(crate) mod sleeper;
