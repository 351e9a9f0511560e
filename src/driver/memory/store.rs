//! The jobs and what may happen to them, under one lock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::StoredJob;
use super::kept::{Clock, FAR, Kept, Periods, Place, later};
use super::limits::Limits;
use crate::driver::{Beat, Ending, Failure, Peer, Reason, Rescue, Settlement, Signal, WorkerInfo};
use crate::job::{
    Due, Enqueued, JobState, NewJob, Payload, Priority, Reservation, ReservedJob, UniqueMode, UniqueUntil,
};

#[derive(Default)]
pub(super) struct Store {
    pub(super) clock: Clock,
    pub(super) jobs: BTreeMap<i64, Kept>,
    /// Those that wait, in the order in which they are claimed.
    pub(super) waiting: BTreeSet<Place>,
    /// The live job of a kind and unique key.
    pub(super) unique: HashMap<(String, String), i64>,
    pub(super) periods: Periods,
    pub(super) last_id: i64,
    pub(super) workers: BTreeMap<i64, Known>,
    pub(super) paused: HashSet<String>,
    pub(super) limits: HashMap<String, Limits>,
    pub(super) listeners: Vec<UnboundedSender<Signal>>,
    #[cfg(feature = "schedules")]
    pub(super) schedules: super::kept::Schedules,
    /// Notified at each end of a job.
    pub(super) ends: Arc<Notify>,
}

/// What a worker said of itself, and when it last did.
pub(super) struct Known {
    queues: Vec<String>,
    last_seen_at: SystemTime,
    pub(super) stop_requested: bool,
}

/// What the driver's trait asks for.
impl Store {
    pub(super) fn enqueue(&mut self, jobs: &[NewJob]) -> Vec<Enqueued> {
        jobs.iter().map(|job| self.enqueue_one(job)).collect()
    }

    fn enqueue_one(&mut self, job: &NewJob) -> Enqueued {
        let now = self.clock.now();
        let due = match job.due {
            Due::In(delay) => later(now, delay),
            Due::At(at) => at,
        };
        let unique = job.unique_key.clone().map(|key| (job.kind.clone(), key));
        if let Some(&id) = unique.as_ref().and_then(|unique| self.unique.get(unique)) {
            self.meet(id, job, due);
            return Enqueued { id, existed: true };
        }
        if let Some(id) = unique.as_ref().and_then(|unique| self.periods.holder(unique, now)) {
            return Enqueued { id, existed: true };
        }
        self.last_id += 1;
        let id = self.last_id;
        if let Some(unique) = unique {
            if let UniqueUntil::Period(period) = job.unique_until {
                self.periods.hold(unique.clone(), id, later(now, period));
            }
            self.unique.insert(unique, id);
        }
        let stored = StoredJob {
            id,
            job: job.clone(),
            state: JobState::Ready,
            result: None,
            reason: None,
            attempts: 0,
            failures: 0,
            available_at: due,
            created_at: now,
            errors: Vec::new(),
            progress: None,
        };
        self.jobs.insert(id, Kept { stored, reservation: None, cancel_requested: false, ended_at: None });
        self.waits(id, due);
        Enqueued { id, existed: false }
    }

    /// A job of this kind and unique key is live: one that runs keeps what it was started with.
    fn meet(&mut self, id: i64, new: &NewJob, due: SystemTime) {
        let Some(kept) = self.jobs.get_mut(&id) else { return };
        if new.unique_mode == UniqueMode::Keep || kept.reservation.is_some() {
            return;
        }
        let job = &mut kept.stored.job;
        job.payload = new.payload.clone();
        if !new.tags.is_empty() {
            job.tags = new.tags.clone();
        }
        if new.metadata.is_some() {
            job.metadata = new.metadata.clone();
        }
        if new.unique_mode == UniqueMode::Debounce {
            self.waits(id, due);
        }
    }

    pub(super) fn claim(&mut self, worker: i64, queue: &str, limit: usize) -> Vec<ReservedJob> {
        if !self.workers.contains_key(&worker) || self.paused.contains(queue) {
            return Vec::new();
        }
        let reserved_at = self.clock.now();
        let due = LEVELS.iter().flat_map(|&level| self.level(queue, level, reserved_at)).cloned();
        let due: Vec<Place> = match self.is_limited(queue) {
            false => due.take(limit).collect(),
            true => {
                let due = due.collect();
                let live = self.jobs.values().filter(|kept| kept.ended_at.is_none() && kept.stored.job.queue == queue);
                self.limits.get_mut(queue).map(|limits| limits.admit(due, live, limit, reserved_at)).unwrap_or_default()
            }
        };
        due.into_iter().filter_map(|place| self.reserve(place, worker, reserved_at)).collect()
    }

    fn reserve(&mut self, place: Place, worker: i64, reserved_at: SystemTime) -> Option<ReservedJob> {
        self.waiting.remove(&place);
        let kept = self.jobs.get_mut(&place.id)?;
        kept.stored.state = JobState::Running;
        kept.stored.attempts += 1;
        let attempt = i32::try_from(kept.stored.attempts).unwrap_or(i32::MAX);
        let reservation = Reservation { id: place.id, worker, attempt, reserved_at, hint: 0 };
        kept.reservation = Some(reservation);
        if kept.stored.job.unique_until == UniqueUntil::Started
            && let Some(unique) = kept.unique()
        {
            self.unique.remove(&unique);
            kept.stored.job.unique_key = None;
        }
        Some(kept.reserved(reservation))
    }

    /// The waiting jobs of one level that are due by then, the longest due first.
    fn level(&self, queue: &str, priority: Priority, by: SystemTime) -> impl Iterator<Item = &Place> {
        let queue: Arc<str> = queue.into();
        let first = Place { queue: Arc::clone(&queue), priority, available_at: SystemTime::UNIX_EPOCH - FAR, id: 0 };
        let last = Place { queue, priority, available_at: by, id: i64::MAX };
        self.waiting.range(first..=last)
    }

    pub(super) fn due_in(&self, queue: &str) -> Option<Duration> {
        if self.paused.contains(queue) {
            return None;
        }
        let now = self.clock.now();
        let limits = self.limits(queue);
        // What is due and was not claimed, a limit has kept back: its end is another reason to look.
        let counts = |place: &&Place| limits.is_none() || place.available_at > now;
        let first = |&level| self.level(queue, level, later(now, FAR)).find(counts);
        let due = LEVELS.iter().filter_map(first).map(|place| place.available_at);
        let due = due.chain(limits.and_then(|limits| limits.next_start(now))).min()?;
        Some(due.duration_since(now).unwrap_or_default())
    }

    pub(super) fn progress(&mut self, reservation: &Reservation, progress: &Payload) -> bool {
        let kept = self.jobs.get_mut(&reservation.id).filter(|kept| kept.reservation == Some(*reservation));
        kept.map(|kept| kept.stored.progress = Some(progress.clone())).is_some()
    }

    pub(super) fn settle(&mut self, settlement: &Settlement) -> bool {
        let (now, id) = (self.clock.now(), settlement.reservation.id);
        let Some(kept) = self.jobs.get_mut(&id) else { return false };
        if kept.reservation != Some(settlement.reservation) {
            return false;
        }
        match settlement.ending.clone() {
            Ending::Completed(result) => {
                kept.stored.result = result;
                self.end(id, JobState::Completed);
            }
            Ending::Cancelled => self.end(id, JobState::Cancelled),
            Ending::Recorded(_) => {}
            Ending::Dead(failure) => {
                kept.stored.reason = Some(failure.reason);
                kept.failed(failure);
                self.end(id, JobState::Dead);
            }
            Ending::Waiting { failure, delay } => {
                let due = if kept.cancel_requested { now } else { later(now, delay) };
                if let Some(failure) = failure {
                    kept.failed(failure);
                }
                self.waits(id, due);
            }
        }
        true
    }

    pub(super) fn register(&mut self, worker: &WorkerInfo) {
        let known = Known { queues: worker.queues.clone(), last_seen_at: self.clock.now(), stop_requested: false };
        self.workers.insert(worker.id, known);
    }

    pub(super) fn beat(&mut self, worker: i64, held: &[i64]) -> Beat {
        let now = self.clock.now();
        let own = self.workers.get_mut(&worker).map(|known| {
            known.last_seen_at = now;
            (known.queues.clone(), known.stop_requested)
        });
        let (alive, (queues, stop)) = (own.is_some(), own.unwrap_or_default());
        let others = || self.workers.iter().filter(|(id, _)| **id != worker);
        let shares = |known: &Known| queues.iter().any(|queue| known.queues.contains(queue));
        let holds = |kept: &&Kept| kept.reservation.is_some_and(|reservation| reservation.worker == worker);
        let asked = held.iter().filter_map(|id| self.jobs.get(id)).filter(|kept| kept.cancel_requested).filter(holds);
        Beat {
            alive,
            stop,
            peers: others().map(|(&id, known)| Peer { id, last_seen_at: known.last_seen_at }).collect(),
            gone: Vec::new(),
            sharing: others().filter(|(_, known)| shares(known)).count(),
            paused: queues.iter().filter(|queue| self.paused.contains(*queue)).cloned().collect(),
            cancel: asked.map(|kept| kept.stored.id).collect(),
            unarmed: Vec::new(),
        }
    }

    pub(super) fn rescue(&mut self, dead: &[Peer]) -> Rescue {
        let mut rescue = Rescue::default();
        for peer in dead {
            if self.workers.get(&peer.id).is_some_and(|known| known.last_seen_at == peer.last_seen_at) {
                self.workers.remove(&peer.id);
                rescue.workers.push(peer.id);
            }
        }
        rescue.jobs = self.reserved(|reservation, workers| !workers.contains_key(&reservation.worker));
        rescue.jobs.iter().for_each(|&id| self.lose(id));
        let is_dead = |id: &&i64| self.jobs.get(id).is_some_and(|kept| kept.stored.state == JobState::Dead);
        rescue.dead = rescue.jobs.iter().filter(is_dead).copied().collect();
        rescue
    }

    /// Its worker died: a failure, due again at once for the first two in a row, then after 2^failures seconds.
    fn lose(&mut self, id: i64) {
        let now = self.clock.now();
        let Some(kept) = self.jobs.get_mut(&id) else { return };
        let lost_in_a_row =
            kept.stored.errors.iter().rev().take_while(|failure| failure.reason == Reason::Lost).count();
        let error = "the worker that ran it died or was cut off".into();
        kept.failed(Failure { reason: Reason::Lost, error });
        if kept.stored.failures >= kept.stored.job.max_attempts {
            kept.stored.reason = Some(Reason::Lost);
            return self.end(id, JobState::Dead);
        }
        let delay = if kept.cancel_requested || lost_in_a_row < 2 {
            Duration::ZERO
        } else {
            Duration::from_secs(1 << (kept.stored.failures - 1).min(12)).min(Duration::from_secs(3600))
        };
        self.waits(id, later(now, delay));
    }

    pub(super) fn release_strays(&mut self, worker: i64, held: &[i64]) -> Vec<i64> {
        let strays = self.reserved(|reservation, _| reservation.worker == worker && !held.contains(&reservation.id));
        for &id in &strays {
            if let Some(due) = self.jobs.get(&id).map(|kept| kept.stored.available_at) {
                self.waits(id, due);
            }
        }
        strays
    }

    pub(super) fn leave(&mut self, worker: i64) {
        self.workers.remove(&worker);
    }

    #[cfg(feature = "schedules")]
    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(super) fn tell(&mut self, listener: UnboundedSender<Signal>) {
        self.listeners.push(listener);
    }
}

/// The steps that all of it is made of.
impl Store {
    /// The job waits until then; its queue's bell rings.
    pub(super) fn waits(&mut self, id: i64, due: SystemTime) {
        let Some(kept) = self.jobs.get_mut(&id) else { return };
        let before = kept.place();
        kept.stored.state = JobState::Ready;
        kept.stored.available_at = due;
        kept.reservation = None;
        let place = kept.place();
        self.waiting.remove(&before);
        let queue = Arc::clone(&place.queue);
        self.waiting.insert(place);
        self.ring(&queue);
    }

    pub(super) fn end(&mut self, id: i64, state: JobState) {
        let now = self.clock.now();
        let Some(kept) = self.jobs.get_mut(&id) else { return };
        self.waiting.remove(&kept.place());
        if let Some(unique) = kept.unique().filter(|unique| self.unique.get(unique) == Some(&id)) {
            self.unique.remove(&unique);
        }
        kept.stored.state = state;
        kept.reservation = None;
        kept.cancel_requested = false;
        kept.ended_at = Some(now);
        self.ends.notify_waiters();
        let queue = kept.stored.job.queue.clone();
        if self.is_limited(&queue) {
            self.ring(&queue);
        }
    }

    fn reserved(&self, which: impl Fn(&Reservation, &BTreeMap<i64, Known>) -> bool) -> Vec<i64> {
        let reservations = self.jobs.values().filter_map(|kept| kept.reservation);
        reservations.filter(|reservation| which(reservation, &self.workers)).map(|reservation| reservation.id).collect()
    }

    pub(super) fn ring(&mut self, queue: &str) {
        self.signal(&Signal::Bell(queue.into()));
    }

    pub(super) fn signal(&mut self, signal: &Signal) {
        self.listeners.retain(|listener| listener.send(signal.clone()).is_ok());
    }
}

const LEVELS: [Priority; 4] = [Priority::Urgent, Priority::High, Priority::Normal, Priority::Low];
