//! The request of a claim, and the store's answer to it.

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
    /// The largest number of jobs to reserve.
    pub limit: usize,
    /// The place in each level at which the search starts. A store without low-water marks ignores it.
    pub(crate) start: Start,
}

impl<'a> ClaimRequest<'a> {
    /// Asks for up to `limit` due jobs of a queue.
    pub fn new(worker: i64, queue: &'a str, limit: usize) -> ClaimRequest<'a> {
        ClaimRequest { worker, queue, limit, start: Start::default() }
    }

    /// Searches only behind this job, in the job's level. For a caller that knows that no due job is left before this
    /// one, such as a caller that makes one claim after another.
    ///
    /// A job that is enqueued meanwhile may be due before this one, so claim without this method from time to time.
    #[must_use]
    pub fn behind(mut self, job: &ReservedJob) -> ClaimRequest<'a> {
        let place = Some(Mark { available_at: job.available_at, id: job.reservation.id });
        let mark = &mut self.start.marks[job.priority as usize];
        *mark = (*mark).max(place);
        self
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
    /// The time until the next job of the queue is due; `None` if no job waits in the queue, or the queue is paused.
    ///
    /// Zero if the claim has skipped a due job because another session had locked it. The worker then claims again
    /// soon. A claim that reserves jobs may skip the search for the next job and return `None` here, so that the
    /// reserved jobs start at once.
    pub due_in: Option<Duration>,
    /// True if the queue has limits. The worker then claims no job before a slot is free, because a reserved job counts
    /// for the limits.
    pub limited: bool,
    /// The time at which the store searched for due jobs, by the store's clock. `None` if the store did not search all
    /// due jobs: the queue is paused or has limits, or the worker is not registered.
    pub(crate) looked_at: Option<SystemTime>,
    /// True if due jobs may be left although the claim reserved fewer jobs than its limit: the store has met a job that
    /// cannot be claimed, or has parked or unparked jobs.
    pub(crate) more: bool,
}

impl Claimed {
    /// Describes a claim that reserved these jobs, in the order in which they are to run.
    pub fn new(jobs: Vec<ReservedJob>) -> Claimed {
        Claimed { jobs, ..Claimed::default() }
    }

    /// Sets [the time](Claimed::due_in) until the next job of the queue is due.
    #[must_use]
    pub fn due_in(self, due_in: Option<Duration>) -> Claimed {
        Claimed { due_in, ..self }
    }

    /// Sets whether the queue [has limits](Claimed::limited).
    #[must_use]
    pub fn limited(self, limited: bool) -> Claimed {
        Claimed { limited, ..self }
    }
}

/// One low-water mark for each level: a claim need not search below the mark. Without a mark (`None`), the claim starts
/// at the first job of the level.
pub(crate) type Marks = [Option<Mark>; 4];

/// A place in the order of claims within one queue and level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) available_at: SystemTime,
    pub(crate) id: i64,
}

/// The places at which a claim starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) marks: Marks,
    /// True if other workers claim from the same full queue. The store may then start this claim at the place that the
    /// other claims have reached. It may also record the place that this claim reaches, for the next claims of other
    /// workers.
    pub(crate) shared: bool,
}
