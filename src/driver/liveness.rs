//! What workers say of themselves, and hear of each other.

use std::time::{Duration, SystemTime};

/// What a worker says of itself.
#[derive(Debug, Clone)]
pub struct WorkerInfo {
    /// Random, new at each start.
    pub id: i64,
    /// Its host's name.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// The queues it works.
    pub queues: Vec<String>,
    /// How many jobs it runs at once, all queues together.
    pub slots: usize,
}

/// What a worker says of itself at a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// It finishes what it runs and starts nothing more.
    pub stopping: bool,
    /// The jobs that it holds, of which it wants to know whether they are to be cancelled.
    pub held: Vec<i64>,
    /// Its jobs whose handlers were told to stop some time ago, and still run.
    pub stuck: Vec<Stuck>,
}

/// A job whose handler does not stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    /// The job.
    pub id: i64,
    /// For how long it has been told to.
    pub told_for: Duration,
}

/// What a heartbeat brings back.
#[derive(Debug, Clone)]
pub struct Beat {
    /// Whether the worker's own row still stands; if not, it has been declared dead and owns nothing any more.
    pub alive: bool,
    /// Whether somebody has asked for the worker to shut down.
    pub stop: bool,
    /// The other workers.
    pub peers: Vec<Peer>,
    /// Those of them that were vouched for by who listened for them, and no longer are.
    pub gone: Vec<i64>,
    /// How many of them work a queue that this worker works.
    pub sharing: usize,
    /// Which of its queues are paused.
    pub paused: Vec<String>,
    /// Which of the jobs that it holds are to be cancelled.
    pub cancel: Vec<i64>,
    /// Which of its queues it gets no signals for, whether or not it has asked for them: one that it has asked for was
    /// silenced by somebody else, such as a restore, and it asks again.
    pub unarmed: Vec<String>,
}

/// Another worker, as seen at a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its id.
    pub id: i64,
    /// Its last heartbeat, by the store's clock.
    pub last_seen_at: SystemTime,
}

/// What a rescue did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rescue {
    /// The workers declared dead.
    pub workers: Vec<i64>,
    /// The jobs put back or, out of attempts, buried.
    pub jobs: Vec<i64>,
    /// Those of them that were buried.
    pub dead: Vec<i64>,
}
