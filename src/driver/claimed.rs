//! Where a claim starts, and what it brings.

use std::time::{Duration, SystemTime};

use crate::job::ReservedJob;

/// From where in the order of claims to look, for each priority level: a hint, with which a store need not pass over
/// what it has claimed before. `None`: from the very start.
pub type Marks = [Option<Mark>; 4];

/// Where a claim starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Start {
    /// The place in each level.
    pub marks: Marks,
    /// Whether others claim from the queue at the same time, which is full: a store may then start as far up as they
    /// have got, and let them know how far this claim gets.
    pub shared: bool,
}

/// A place in the order of claims within a queue and level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The due time of the job there.
    pub available_at: SystemTime,
    /// Its id.
    pub id: i64,
}

/// What a claim brought.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// Now this worker's, in the order in which they are to run.
    pub jobs: Vec<ReservedJob>,
    /// How long until the next job is due that lies above the marks: zero if one is due that somebody else has locked
    /// for the moment. A claim that brings nothing says so; of others it is `None` where the store would have to ask,
    /// for which no job should wait.
    pub due_in: Option<Duration>,
    /// By the store's clock, when it looked; `None` if it did not look at all that is due: the queue is paused or has
    /// limits, or the worker is unknown.
    pub looked_at: Option<SystemTime>,
    /// The queue has limits: what is claimed counts for them, so nothing is to be claimed ahead.
    pub limited: bool,
    /// There may be more that is due, although fewer jobs came than were asked for: the store found a job that
    /// cannot be claimed.
    pub more: bool,
}
