//! What a worker tells the store about itself, and what it learns about itself and its peers.

use std::time::{Duration, SystemTime};

/// What a worker tells the store when it registers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The worker's id: random, and new at each start.
    pub id: i64,
    /// The name of its host.
    pub host: String,
    /// The id of its process on that host.
    pub pid: u32,
    /// The queues that it works.
    pub queues: Vec<String>,
    /// How many jobs it runs at once, in all its queues together.
    pub slots: usize,
}

impl WorkerInfo {
    /// Describes a worker of this process with one slot; its host has no name and it works no queues.
    pub fn new(id: i64) -> WorkerInfo {
        WorkerInfo { id, host: String::new(), pid: std::process::id(), queues: Vec::new(), slots: 1 }
    }

    /// Sets the name of its host.
    #[must_use]
    pub fn host(self, host: impl Into<String>) -> WorkerInfo {
        WorkerInfo { host: host.into(), ..self }
    }

    /// Sets the id of its process.
    #[must_use]
    pub fn pid(self, pid: u32) -> WorkerInfo {
        WorkerInfo { pid, ..self }
    }

    /// Sets the queues that it works.
    #[must_use]
    pub fn queues<Q: Into<String>>(self, queues: impl IntoIterator<Item = Q>) -> WorkerInfo {
        WorkerInfo { queues: queues.into_iter().map(Into::into).collect(), ..self }
    }

    /// Sets how many jobs it runs at once.
    #[must_use]
    pub fn slots(self, slots: usize) -> WorkerInfo {
        WorkerInfo { slots, ..self }
    }
}

/// What a worker reports with a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Whether the worker is shutting down: it finishes its running jobs and starts no others.
    pub stopping: bool,
    /// The jobs that the worker holds. [`Beat::cancel`] answers which of them are to be cancelled.
    pub held: Vec<i64>,
    /// The jobs whose handlers were asked to stop some time ago and still run.
    pub stuck: Vec<Stuck>,
}

impl Report {
    /// Reports a worker that holds these jobs.
    pub fn holding(held: Vec<i64>) -> Report {
        Report { held, ..Report::default() }
    }

    /// Sets whether the worker is shutting down.
    #[must_use]
    pub fn stopping(self, stopping: bool) -> Report {
        Report { stopping, ..self }
    }

    /// Sets the jobs whose handlers do not stop.
    #[must_use]
    pub fn stuck(self, stuck: Vec<Stuck>) -> Report {
        Report { stuck, ..self }
    }
}

/// A job whose handler was asked to stop and still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stuck {
    /// The id of the job.
    pub id: i64,
    /// How long ago the handler was asked to stop.
    pub asked_ago: Duration,
}

impl Stuck {
    /// Describes a job whose handler was asked to stop this long ago.
    pub fn new(id: i64, asked_ago: Duration) -> Stuck {
        Stuck { id, asked_ago }
    }
}

/// The answer to a heartbeat.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Beat {
    /// Whether the worker is still registered. If it is not, it was declared dead and holds no jobs any more.
    pub alive: bool,
    /// Whether the worker was asked to shut down.
    pub stop: bool,
    /// The other workers.
    pub peers: Vec<Peer>,
    /// The ids of peers whose listening session has ended. Such a session proves that its worker lives.
    pub gone: Vec<i64>,
    /// How many peers work a queue that this worker works as well.
    pub sharing: usize,
    /// The worker's queues that are paused.
    pub paused: Vec<String>,
    /// The ids of the reported jobs that are to be cancelled.
    pub cancel: Vec<i64>,
    /// The worker's queues that the store sends it no signals for. If the worker has armed one of these, something has
    /// silenced it, such as a restore, and the worker arms it again.
    pub unarmed: Vec<String>,
}

impl Beat {
    /// Answers whether the worker is still registered. All else starts out empty; set the fields that apply.
    pub fn new(alive: bool) -> Beat {
        let (peers, gone, paused, cancel, unarmed) = Default::default();
        Beat { alive, stop: false, peers, gone, sharing: 0, paused, cancel, unarmed }
    }
}

/// Another worker, as a heartbeat shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Peer {
    /// The id of the worker.
    pub id: i64,
    /// The time of its last heartbeat, by the store's clock.
    pub last_seen_at: SystemTime,
}

impl Peer {
    /// Describes a worker by its id and the time of its last heartbeat.
    pub fn new(id: i64, last_seen_at: SystemTime) -> Peer {
        Peer { id, last_seen_at }
    }
}

/// The result of a rescue. It starts out empty (`Rescue::default()`); a store sets its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rescue {
    /// The ids of the workers that were declared dead.
    pub workers: Vec<i64>,
    /// The ids of the jobs that were taken from dead workers: put back, or dead if they are out of attempts.
    pub jobs: Vec<i64>,
    /// The ids of those jobs that are dead now.
    pub dead: Vec<i64>,
}
