//! The wake-up of claimers: the listener receives the store's notifications, and a sleeper lets its claimer rest until
//! there is a reason to look.

pub(crate) mod listener;
pub(crate) mod sleeper;
