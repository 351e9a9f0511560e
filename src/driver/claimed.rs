//! What a claim asks for, and how a store answers it.

use std::time::{Duration, SystemTime};

use crate::job::ReservedJob;

/// A claim: one worker asks for due jobs of one queue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClaimRequest<'a> {
    /// The worker that the jobs are reserved for.
    pub worker: i64,
    /// The queue that the jobs are taken from.
    pub queue: &'a str,
    /// How many jobs to reserve at most.
    pub limit: usize,
    /// Where in the order of claims a store with marks starts.
    pub(crate) start: Start,
}

impl<'a> ClaimRequest<'a> {
    /// Asks for up to `limit` due jobs of a queue.
    pub fn new(worker: i64, queue: &'a str, limit: usize) -> ClaimRequest<'a> {
        ClaimRequest { worker, queue, limit, start: Start::default() }
    }

    pub(crate) fn starting_at(self, start: Start) -> ClaimRequest<'a> {
        ClaimRequest { start, ..self }
    }
}

/// The answer to a claim.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Claimed {
    /// The jobs that are now reserved, in the order in which they are to run.
    pub jobs: Vec<ReservedJob>,
    /// How long until the next job of the queue is due; `None` if no job waits in the queue, or the queue is paused.
    ///
    /// Zero if a due job was left, since another session has locked it: the worker asks again soon. A claim that
    /// reserves some jobs may leave this `None` instead of searching for the next one, so that no job waits for the
    /// search.
    pub due_in: Option<Duration>,
    /// Whether the queue has limits. The worker then claims no job before a slot is free, because a reserved job counts
    /// for the limits.
    pub limited: bool,
    /// When the store searched for due jobs, by its own clock. `None` if it did not search all due jobs: the queue is
    /// paused or has limits, or the worker is not registered.
    pub(crate) looked_at: Option<SystemTime>,
    /// Whether due jobs may be left although the claim reserved fewer than its limit: the store has met a job that
    /// cannot be claimed.
    pub(crate) more: bool,
}

impl Claimed {
    /// Answers a claim with these jobs, in the order in which they are to run.
    pub fn new(jobs: Vec<ReservedJob>) -> Claimed {
        Claimed { jobs, ..Claimed::default() }
    }

    /// Tells [how long](Claimed::due_in) until the next job is due.
    #[must_use]
    pub fn due_in(self, due_in: Option<Duration>) -> Claimed {
        Claimed { due_in, ..self }
    }

    /// Tells whether the queue [has limits](Claimed::limited).
    #[must_use]
    pub fn limited(self, limited: bool) -> Claimed {
        Claimed { limited, ..self }
    }
}

/// A low-water mark for each priority level: a claim need not search below it. `None`: the claim starts at the first
/// job of the level.
pub(crate) type Marks = [Option<Mark>; 4];

/// A place in the order of claims within one queue and priority level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) available_at: SystemTime,
    pub(crate) id: i64,
}

/// Where a claim starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) marks: Marks,
    /// Whether other workers claim from the same full queue. The store may then start where their claims have got, and
    /// tell them how far this claim gets.
    pub(crate) shared: bool,
}
