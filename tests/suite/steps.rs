//! Random steps in the life of jobs and workers.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use reveille::job::Priority;
use reveille::job::{UniqueMode, UniqueUntil};

/// The number of workers at a time.
pub const WORKERS: usize = 3;

/// One step. `worker` is the index of a worker. A worker that registers again has a new id.
#[derive(Debug, Clone)]
pub enum Step {
    Enqueue(Vec<New>),
    Claim {
        worker: usize,
        limit: usize,
    },
    Settle {
        job: Index,
        how: How,
        fence: Fence,
    },
    /// Another worker declares this worker dead, and this worker registers again.
    Lose {
        worker: usize,
    },
    /// The worker deregisters without settling its jobs.
    Leave {
        worker: usize,
    },
    /// This worker searches for jobs that no live worker holds.
    Rescue {
        worker: usize,
    },
    ReleaseStrays {
        worker: usize,
        held: Option<Index>,
    },
    Cancel(Index),
    Retry(Index),
}

#[derive(Debug, Clone)]
pub struct New {
    pub priority: Priority,
    pub is_delayed: bool,
    pub max_attempts: u32,
    pub unique_key: Option<String>,
    pub mode: UniqueMode,
    pub until: UniqueUntil,
}

#[derive(Debug, Clone, Copy)]
pub enum How {
    Complete,
    Cancel,
    Fail { is_delayed: bool },
    Snooze { is_delayed: bool },
    Release,
    Die,
}

/// The reservation that a settlement names.
#[derive(Debug, Clone, Copy)]
pub enum Fence {
    Standing,
    /// The job's nth reservation so far.
    Past(usize),
    OtherWorker,
    OtherAttempt,
    OtherTime,
}

fn new() -> impl Strategy<Value = New> {
    use Priority::{High, Low, Normal, Urgent};
    let priority = prop_oneof![Just(Urgent), Just(High), Just(Normal), Just(Low)];
    let key = prop_oneof![3 => Just(None), 2 => "[ab]".prop_map(Some)];
    let mode = prop_oneof![Just(UniqueMode::Keep), Just(UniqueMode::Replace), Just(UniqueMode::Debounce)];
    let until = prop_oneof![Just(UniqueUntil::Started), Just(UniqueUntil::Finished)];
    let new = (priority, prop::bool::weighted(0.2), 1u32..4, key, mode, until);
    new.prop_map(|(priority, is_delayed, max_attempts, unique_key, mode, until)| New {
        priority,
        is_delayed,
        max_attempts,
        unique_key,
        mode,
        until,
    })
}

/// Generates any step.
pub fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        2 => Just(How::Complete),
        1 => Just(How::Cancel),
        3 => prop::bool::weighted(0.3).prop_map(|is_delayed| How::Fail { is_delayed }),
        2 => prop::bool::weighted(0.3).prop_map(|is_delayed| How::Snooze { is_delayed }),
        1 => Just(How::Release),
        2 => Just(How::Die),
    ];
    let fence = prop_oneof![
        6 => Just(Fence::Standing),
        2 => (0usize..3).prop_map(Fence::Past),
        1 => Just(Fence::OtherWorker),
        1 => Just(Fence::OtherAttempt),
        1 => Just(Fence::OtherTime),
    ];
    prop_oneof![
        4 => vec(new(), 1..4).prop_map(Step::Enqueue),
        6 => (0..WORKERS, 1usize..5).prop_map(|(worker, limit)| Step::Claim { worker, limit }),
        6 => (any::<Index>(), how, fence).prop_map(|(job, how, fence)| Step::Settle { job, how, fence }),
        2 => (0..WORKERS).prop_map(|worker| Step::Lose { worker }),
        1 => (0..WORKERS).prop_map(|worker| Step::Leave { worker }),
        1 => (0..WORKERS).prop_map(|worker| Step::Rescue { worker }),
        1 => (0..WORKERS, any::<Option<Index>>()).prop_map(|(worker, held)| Step::ReleaseStrays { worker, held }),
        2 => any::<Index>().prop_map(Step::Cancel),
        2 => any::<Index>().prop_map(Step::Retry),
    ]
}
