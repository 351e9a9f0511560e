//! The jobs and workers of the store, and the methods of the trait `Driver` on them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::StoredJob;
use super::entries::{ClaimPosition, Clock, EventEntry, FAR, JobEntry, Periods, Unique, WorkerEntry, due_at, later};
use super::limits::QueueLimits;
use super::links::{LinkedEnd, Links};
use crate::driver::{Beat, ClaimRequest, Ending, Failure, FailureReason, Peer, Rescue, Settlement, Signal, WorkerInfo};
use crate::job::{Enqueued, JobState, NewJob, Payload, Priority, Reservation, ReservedJob, UniqueMode, UniqueUntil};
use crate::queue::Pause;

const LEVELS: [Priority; 4] = [Priority::Urgent, Priority::High, Priority::Normal, Priority::Low];

#[derive(Default)]
pub(super) struct Store {
    pub(super) clock: Clock,
    pub(super) jobs: BTreeMap<i64, JobEntry>,
    /// The waiting jobs, due or delayed, in the order of claims.
    pub(super) waiting: BTreeSet<ClaimPosition>,
    /// The live job that holds each unique key.
    pub(super) unique: HashMap<Unique, i64>,
    pub(super) periods: Periods,
    pub(super) events: HashMap<String, EventEntry>,
    pub(super) links: Links,
    /// The jobs whose ends handlers wait for.
    pub(super) children: HashSet<i64>,
    pub(super) last_id: i64,
    pub(super) workers: BTreeMap<i64, WorkerEntry>,
    pub(super) pauses: HashSet<Pause>,
    pub(super) limits: HashMap<String, QueueLimits>,
    pub(super) listeners: Vec<UnboundedSender<Signal>>,
    #[cfg(feature = "schedules")]
    pub(super) schedules: super::entries::Schedules,
    /// Notified each time a job ends.
    pub(super) ends: Arc<Notify>,
}

/// The methods of the trait `Driver`.
impl Store {
    pub(super) fn enqueue(&mut self, jobs: &[NewJob]) -> Vec<Enqueued> {
        jobs.iter().map(|job| self.enqueue_one(job)).collect()
    }

    fn enqueue_one(&mut self, job: &NewJob) -> Enqueued {
        let now = self.now();
        let due = due_at(job, now);
        let unique = job.unique_key.clone().map(|key| (job.kind.clone(), key));
        if let Some(&id) = unique.as_ref().and_then(|unique| self.unique.get(unique)) {
            self.update_holder(id, job, due);
            return Enqueued { id, existed: true };
        }
        if let Some(id) = unique.as_ref().and_then(|unique| self.periods.holder(unique, now)) {
            return Enqueued { id, existed: true };
        }
        let id = self.add(job, now, JobState::Ready);
        if let Some(unique) = unique {
            if let UniqueUntil::Period(period) = job.unique_until {
                self.periods.hold(unique.clone(), id, later(now, period));
            }
            self.unique.insert(unique, id);
        }
        self.put_back(id, due);
        Enqueued { id, existed: false }
    }

    /// Adds a job without a unique key, which is due at once or later.
    pub(super) fn add_waiting(&mut self, job: &NewJob) -> i64 {
        let now = self.now();
        let id = self.add(job, now, JobState::Ready);
        self.put_back(id, due_at(job, now));
        id
    }

    /// Adds a job that is enqueued at this time. The job is not in its queue yet.
    pub(super) fn add(&mut self, job: &NewJob, created_at: SystemTime, state: JobState) -> i64 {
        self.last_id += 1;
        let id = self.last_id;
        let stored = StoredJob {
            id,
            job: job.clone(),
            state,
            attempts: 0,
            failures: 0,
            available_at: due_at(job, created_at),
            created_at,
            result: None,
            reason: None,
            errors: Vec::new(),
            progress: None,
        };
        let (reservation, ended_at, steps) = Default::default();
        self.jobs.insert(id, JobEntry { stored, reservation, cancel_requested: false, ended_at, steps });
        id
    }

    /// Replaces or debounces the live job that holds the unique key of a new job. A running job stays unchanged.
    fn update_holder(&mut self, id: i64, new: &NewJob, due: SystemTime) {
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        if new.unique_mode == UniqueMode::Keep || entry.reservation.is_some() {
            return;
        }
        let job = &mut entry.stored.job;
        job.payload = new.payload.clone();
        if !new.tags.is_empty() {
            job.tags = new.tags.clone();
        }
        if new.metadata.is_some() {
            job.metadata = new.metadata.clone();
        }
        if new.unique_mode == UniqueMode::Debounce {
            self.put_back(id, due);
        }
    }

    pub(super) fn claim(&mut self, request: &ClaimRequest<'_>) -> Vec<ReservedJob> {
        let ClaimRequest { worker, queue, limit, .. } = *request;
        if !self.workers.contains_key(&worker) || self.is_queue_paused(queue) {
            return Vec::new();
        }
        let reserved_at = self.now();
        let due = LEVELS.iter().flat_map(|&level| self.level(queue, level, reserved_at));
        let due = due.filter(|position| !self.is_held_by_pause(position)).cloned();
        let due: Vec<ClaimPosition> = match self.is_limited(queue) {
            false => due.take(limit).collect(),
            true => {
                let due = due.collect();
                let is_live = |entry: &&JobEntry| entry.is_live() && entry.stored.job.queue == queue;
                let live = self.jobs.values().filter(is_live);
                self.limits.get_mut(queue).map(|limits| limits.admit(due, live, limit, reserved_at)).unwrap_or_default()
            }
        };
        due.into_iter().filter_map(|position| self.reserve(position, worker, reserved_at)).collect()
    }

    fn reserve(&mut self, position: ClaimPosition, worker: i64, reserved_at: SystemTime) -> Option<ReservedJob> {
        self.waiting.remove(&position);
        let entry = self.jobs.get_mut(&position.id)?;
        entry.stored.state = JobState::Running;
        entry.stored.attempts += 1;
        let attempt = i32::try_from(entry.stored.attempts).unwrap_or(i32::MAX);
        let reservation = Reservation::new(position.id, worker, attempt, reserved_at);
        entry.reservation = Some(reservation);
        if entry.stored.job.unique_until == UniqueUntil::Started
            && let Some(unique) = entry.unique()
        {
            self.unique.remove(&unique);
            entry.stored.job.unique_key = None;
        }
        Some(entry.reserved(reservation))
    }

    /// Returns the waiting jobs of one level that are due at this time, the longest due first.
    fn level(&self, queue: &str, priority: Priority, at: SystemTime) -> impl Iterator<Item = &ClaimPosition> {
        let queue: Arc<str> = queue.into();
        let available_at = SystemTime::UNIX_EPOCH - FAR;
        let first = ClaimPosition { queue: Arc::clone(&queue), priority, available_at, id: 0 };
        let last = ClaimPosition { queue, priority, available_at: at, id: i64::MAX };
        self.waiting.range(first..=last)
    }

    /// True if a pause of a kind or a key covers the job at this position.
    fn is_held_by_pause(&self, position: &ClaimPosition) -> bool {
        self.jobs.get(&position.id).is_some_and(|entry| self.is_paused(&entry.stored.job))
    }

    pub(super) fn due_in(&self, queue: &str) -> Option<Duration> {
        if self.is_queue_paused(queue) {
            return None;
        }
        let now = self.now();
        let limits = self.limits(queue);
        // In a queue with limits, a due job that the claim has not reserved does not count: its limit does not allow it
        // to start. It can start when another job ends, and that end rings the bell.
        let may_start = |position: &ClaimPosition| limits.is_none() && !self.is_held_by_pause(position);
        let counts = |position: &&ClaimPosition| position.available_at > now || may_start(position);
        let first = |&level| self.level(queue, level, later(now, FAR)).find(counts);
        let due = LEVELS.iter().filter_map(first).map(|position| position.available_at);
        let due = due.chain(limits.and_then(|limits| limits.next_start(now))).min()?;
        Some(due.duration_since(now).unwrap_or_default())
    }

    pub(super) fn progress(&mut self, reservation: &Reservation, progress: &Payload) -> bool {
        let entry = self.jobs.get_mut(&reservation.id).filter(|entry| entry.reservation == Some(*reservation));
        entry.map(|entry| entry.stored.progress = Some(progress.clone())).is_some()
    }

    pub(super) fn settle(&mut self, settlement: &Settlement) -> bool {
        let (now, id) = (self.now(), settlement.reservation.id);
        let Some(entry) = self.jobs.get_mut(&id) else { return false };
        if entry.reservation != Some(settlement.reservation) {
            return false;
        }
        match settlement.ending.clone() {
            Ending::Completed(result) => {
                entry.stored.result = result;
                self.end(id, JobState::Completed);
            }
            Ending::Cancelled => self.end(id, JobState::Cancelled),
            Ending::Recorded(_) => {}
            Ending::Dead(failure) => self.bury(id, failure),
            Ending::Waiting { failure, delay } => {
                let mut due = if entry.cancel_requested { now } else { later(now, delay) };
                match failure {
                    Some(failure) => entry.failed(failure),
                    None if self.has_event_of(id) => due = now,
                    None => {}
                }
                self.put_back(id, due);
            }
            Ending::Released => {
                let due = if entry.cancel_requested { now } else { entry.stored.available_at };
                self.put_back(id, due);
            }
        }
        true
    }

    pub(super) fn register(&mut self, worker: &WorkerInfo) {
        let entry = WorkerEntry { queues: worker.queues.clone(), last_seen_at: self.now(), stop_requested: false };
        self.workers.insert(worker.id, entry);
    }

    pub(super) fn beat(&mut self, worker: i64, held: &[i64]) -> Beat {
        let now = self.now();
        let Some(own) = self.workers.get_mut(&worker) else {
            return Beat { peers: self.peers_of(worker).map(|(peer, _)| peer).collect(), ..Beat::new(false) };
        };
        own.last_seen_at = now;
        let (queues, stop) = (own.queues.clone(), own.stop_requested);
        let shares = |peer: &WorkerEntry| queues.iter().any(|queue| peer.queues.contains(queue));
        let holds = |entry: &&JobEntry| entry.reservation.is_some_and(|reservation| reservation.worker == worker);
        let held = held.iter().filter_map(|id| self.jobs.get(id)).filter(holds);
        Beat {
            stop,
            peers: self.peers_of(worker).map(|(peer, _)| peer).collect(),
            sharing: self.peers_of(worker).filter(|(_, entry)| shares(entry)).count(),
            paused: queues.iter().filter(|queue| self.is_queue_paused(queue)).cloned().collect(),
            cancel: held.filter(|entry| entry.cancel_requested).map(|entry| entry.stored.id).collect(),
            ..Beat::new(true)
        }
    }

    fn peers_of(&self, worker: i64) -> impl Iterator<Item = (Peer, &WorkerEntry)> {
        let others = self.workers.iter().filter(move |(id, _)| **id != worker);
        others.map(|(&id, entry)| (Peer::new(id, entry.last_seen_at), entry))
    }

    pub(super) fn rescue(&mut self, dead: &[Peer]) -> Rescue {
        let mut rescue = Rescue::default();
        for peer in dead {
            if self.workers.get(&peer.id).is_some_and(|entry| entry.last_seen_at == peer.last_seen_at) {
                self.workers.remove(&peer.id);
                rescue.workers.push(peer.id);
            }
        }
        rescue.jobs = self.reserved(|reservation, workers| !workers.contains_key(&reservation.worker));
        rescue.jobs.iter().for_each(|&id| self.lose(id));
        let is_dead = |id: &&i64| self.jobs.get(id).is_some_and(JobEntry::is_dead);
        rescue.dead = rescue.jobs.iter().filter(is_dead).copied().collect();
        rescue
    }

    /// Records a failure of a job whose worker died. After the first two losses in a row, the job is due again at once.
    /// After each further loss, the job is due after 2^failures seconds, an hour at most.
    fn lose(&mut self, id: i64) {
        let now = self.now();
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        let is_lost = |failure: &&Failure| failure.reason == FailureReason::Lost;
        let lost_in_a_row = entry.stored.errors.iter().rev().take_while(is_lost).count();
        let failure = Failure::new(FailureReason::Lost, "the worker that ran it died or was cut off");
        if entry.stored.failures + 1 >= entry.stored.job.max_attempts {
            return self.bury(id, failure);
        }
        entry.failed(failure);
        let delay = if entry.cancel_requested || lost_in_a_row < 2 {
            Duration::ZERO
        } else {
            Duration::from_secs(1 << (entry.stored.failures - 1).min(12)).min(Duration::from_secs(3600))
        };
        self.put_back(id, later(now, delay));
    }

    pub(super) fn release_strays(&mut self, worker: i64, held: &[i64]) -> Vec<i64> {
        let strays = self.reserved(|reservation, _| reservation.worker == worker && !held.contains(&reservation.id));
        for &id in &strays {
            if let Some(due) = self.jobs.get(&id).map(|entry| entry.stored.available_at) {
                self.put_back(id, due);
            }
        }
        strays
    }

    pub(super) fn leave(&mut self, worker: i64) {
        self.workers.remove(&worker);
    }

    pub(super) fn add_listener(&mut self, listener: UnboundedSender<Signal>) {
        self.listeners.push(listener);
    }
}

/// The steps that the methods share.
impl Store {
    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Makes the job wait until it is due, and rings the bell of its queue.
    pub(super) fn put_back(&mut self, id: i64, due: SystemTime) {
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        let before = entry.position();
        entry.stored.state = JobState::Ready;
        entry.stored.available_at = due;
        entry.reservation = None;
        let position = entry.position();
        self.waiting.remove(&before);
        let queue = Arc::clone(&position.queue);
        self.waiting.insert(position);
        self.ring(&queue);
    }

    fn bury(&mut self, id: i64, failure: Failure) {
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.stored.reason = Some(failure.reason);
            entry.failed(failure);
        }
        self.end(id, JobState::Dead);
    }

    pub(super) fn end(&mut self, id: i64, state: JobState) {
        self.end_as(id, state, LinkedEnd::of(state));
    }

    /// Ends a job. `end` is what the jobs that wait for it learn.
    pub(super) fn end_as(&mut self, id: i64, state: JobState, end: LinkedEnd) {
        let now = self.now();
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        self.waiting.remove(&entry.position());
        if let Some(unique) = entry.unique().filter(|unique| self.unique.get(unique) == Some(&id)) {
            self.unique.remove(&unique);
        }
        entry.stored.state = state;
        entry.reservation = None;
        entry.cancel_requested = false;
        entry.ended_at = Some(now);
        if state != JobState::Dead {
            entry.steps.clear();
        }
        self.ends.notify_waiters();
        let queue = entry.stored.job.queue.clone();
        if self.is_limited(&queue) {
            self.ring(&queue);
        }
        self.unblock(id);
        self.emit_end(id);
        self.apply_end(id, end);
    }

    fn reserved(&self, which: impl Fn(&Reservation, &BTreeMap<i64, WorkerEntry>) -> bool) -> Vec<i64> {
        let reservations = self.jobs.values().filter_map(|entry| entry.reservation);
        reservations.filter(|reservation| which(reservation, &self.workers)).map(|reservation| reservation.id).collect()
    }

    pub(super) fn ring(&mut self, queue: &str) {
        self.signal(&Signal::Bell(queue.into()));
    }

    pub(super) fn signal(&mut self, signal: &Signal) {
        self.listeners.retain(|listener| listener.send(signal.clone()).is_ok());
    }
}
