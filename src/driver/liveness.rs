//! A worker's reports to the store about itself, and the store's answers about the worker and its peers.

use std::time::{Duration, SystemTime};

/// The description that a worker registers with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The worker's id: random, and new at each start.
    pub id: i64,
    /// The name of the worker's host.
    pub host: String,
    /// The id of the worker's process on that host.
    pub pid: u32,
    /// The queues that the worker works.
    pub queues: Vec<String>,
    /// The number of jobs that the worker runs at once, in all its queues together.
    pub slots: usize,
    /// The number of slots of each queue, in the order of [`queues`](WorkerInfo::queues).
    pub queue_slots: Vec<usize>,
    /// The kinds for which the worker has a handler, sorted; `None` if it has a handler for every kind.
    pub kinds: Option<Vec<String>>,
    /// True if the worker is about to [listen](crate::driver::Driver::listen).
    pub listens: bool,
}

impl WorkerInfo {
    /// Describes a worker of this process with one slot, an empty host name, no queues, and a handler for every kind.
    /// It does not listen.
    pub fn new(id: i64) -> WorkerInfo {
        let (host, pid, queues) = (String::new(), std::process::id(), Vec::new());
        WorkerInfo { id, host, pid, queues, slots: 1, queue_slots: Vec::new(), kinds: None, listens: false }
    }

    /// Sets the name of the worker's host.
    #[must_use]
    pub fn host(self, host: impl Into<String>) -> WorkerInfo {
        WorkerInfo { host: host.into(), ..self }
    }

    /// Sets the id of the worker's process.
    #[must_use]
    pub fn pid(self, pid: u32) -> WorkerInfo {
        WorkerInfo { pid, ..self }
    }

    /// Sets the queues that the worker works.
    #[must_use]
    pub fn queues<Q: Into<String>>(self, queues: impl IntoIterator<Item = Q>) -> WorkerInfo {
        WorkerInfo { queues: queues.into_iter().map(Into::into).collect(), ..self }
    }

    /// Sets the only kinds for which the worker has a handler.
    #[must_use]
    pub fn kinds<K: Into<String>>(self, kinds: impl IntoIterator<Item = K>) -> WorkerInfo {
        WorkerInfo { kinds: Some(kinds.into_iter().map(Into::into).collect()), ..self }
    }

    /// Sets the number of jobs that the worker runs at once.
    #[must_use]
    pub fn slots(self, slots: usize) -> WorkerInfo {
        WorkerInfo { slots, ..self }
    }

    /// Sets the number of slots of each queue, in the order of the queues.
    #[must_use]
    pub fn queue_slots(self, queue_slots: impl IntoIterator<Item = usize>) -> WorkerInfo {
        WorkerInfo { queue_slots: queue_slots.into_iter().collect(), ..self }
    }

    /// Sets whether the worker is about to listen.
    #[must_use]
    pub fn listens(self, listens: bool) -> WorkerInfo {
        WorkerInfo { listens, ..self }
    }
}

/// The report of a worker with a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// True if the worker is shutting down: it finishes its running jobs and starts no others.
    pub stopping: bool,
    /// The ids of the jobs that the worker holds. If some of these jobs are to be cancelled, [`Beat::cancel`] in the
    /// answer lists them.
    pub held: Vec<i64>,
    /// The stuck jobs: their handlers were asked to stop five seconds ago or more, and still run.
    pub stuck: Vec<Stuck>,
}

impl Report {
    /// Describes a worker that holds these jobs.
    pub fn holding(held: Vec<i64>) -> Report {
        Report { held, ..Report::default() }
    }

    /// Sets whether the worker is shutting down.
    #[must_use]
    pub fn stopping(self, stopping: bool) -> Report {
        Report { stopping, ..self }
    }

    /// Sets the stuck jobs.
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
    /// The time since the handler was asked to stop.
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
    /// True if the worker is still registered. If not, it was declared dead and holds no jobs any more.
    pub alive: bool,
    /// True if the worker was asked to shut down.
    pub stop: bool,
    /// The other workers.
    pub peers: Vec<Peer>,
    /// The ids of the peers whose listening session has ended. While the listening session of a worker lasts, the
    /// worker lives.
    pub gone: Vec<i64>,
    /// The number of peers that share at least one queue with this worker.
    pub sharing: usize,
    /// The worker's queues that are paused.
    pub paused: Vec<String>,
    /// The number of slots that the worker is to have for each of its queues. A queue that is not listed keeps its
    /// slots.
    pub slots: Vec<(String, usize)>,
    /// The ids of the jobs in the report that are to be cancelled.
    pub cancel: Vec<i64>,
    /// The worker's queues for which the store sends it no signals. If the worker has armed the bell for one of these
    /// queues, the bell was disarmed since, such as by a restore. The worker then arms the bell again.
    pub unarmed: Vec<String>,
    /// True if ends of linked jobs wait to be applied. Only Postgres sets this.
    pub(crate) linked_ends: bool,
}

impl Beat {
    /// Describes the answer to a worker; `alive` is true if the worker is registered. All other fields are empty or
    /// false; set the fields that apply.
    pub fn new(alive: bool) -> Beat {
        let (peers, gone, paused, slots, cancel, unarmed) = Default::default();
        Beat { alive, stop: false, peers, gone, sharing: 0, paused, slots, cancel, unarmed, linked_ends: false }
    }
}

/// Another worker, as the answer to a heartbeat describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Peer {
    /// The id of the worker.
    pub id: i64,
    /// The time of the worker's last heartbeat, by the store's clock.
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
    /// The ids of the jobs that were taken from dead workers. Each of these jobs is back in its queue, or is a dead job
    /// if it has no attempts left.
    pub jobs: Vec<i64>,
    /// The ids of the jobs among [`jobs`](Rescue::jobs) that are dead jobs now.
    pub dead: Vec<i64>,
    /// The queue and the kind of each rescued job, for the counts by kind.
    pub(crate) kinds: Vec<(String, String)>,
}
