//! A store of jobs for Reveille: rows in a map, under a mutex.
//!
//! A store outside this process has other statements, but the same shape. What this store cannot do, it refuses: it
//! knows no unique keys, and sends no notifications, so that workers poll.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use reveille::driver::{
    Beat, ClaimRequest, Claimed, Driver, Ending, Failure, FailureReason, Peer, Report, Rescue, Settled, Settlement,
    WorkerInfo,
};
use reveille::handler::BoxFuture;
use reveille::job::{Due, Enqueued, JobState, NewJob, Reservation, ReservedJob};
use reveille::{Error, Result};

#[derive(Default)]
pub struct MapStore(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    jobs: BTreeMap<i64, Row>,
    workers: HashMap<i64, Worker>,
}

/// A job, and how it stands. The state of a waiting job is `Ready`, whether it is due or delayed.
#[derive(Clone)]
pub struct Row {
    pub job: NewJob,
    pub state: JobState,
    pub attempts: u32,
    pub failures: u32,
    pub failure: Option<Failure>,
    pub available_at: SystemTime,
    created_at: SystemTime,
    reservation: Option<Reservation>,
}

struct Worker {
    queues: Vec<String>,
    last_seen_at: SystemTime,
}

impl MapStore {
    pub fn row(&self, id: i64) -> Option<Row> {
        self.tables().jobs.get(&id).cloned()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time after a delay, which a hundred years are enough for.
fn after(delay: Duration) -> SystemTime {
    SystemTime::now() + delay.min(Duration::from_secs(100 * 365 * 86_400))
}

impl Tables {
    fn enqueue(&mut self, job: &NewJob) -> Enqueued {
        let available_at = match job.due {
            Due::In(delay) => after(delay),
            Due::At(time) => time,
        };
        let (id, job, state) = (self.jobs.len() as i64 + 1, job.clone(), JobState::Ready);
        let (attempts, failures, failure, reservation) = (0, 0, None, None);
        let created_at = SystemTime::now();
        self.jobs.insert(id, Row { job, state, attempts, failures, failure, available_at, created_at, reservation });
        Enqueued::new(id, false)
    }

    fn waiting(&self, queue: &str) -> impl Iterator<Item = (i64, &Row)> {
        let waiting = move |(_, row): &(&i64, &Row)| row.state == JobState::Ready && row.job.queue == queue;
        self.jobs.iter().filter(waiting).map(|(&id, row)| (id, row))
    }

    fn claim(&mut self, request: &ClaimRequest<'_>) -> Claimed {
        let now = SystemTime::now();
        let due = self.waiting(request.queue).filter(|(_, row)| row.available_at <= now);
        let mut due: Vec<_> = due.map(|(id, row)| (row.job.priority, row.available_at, id)).collect();
        due.sort();
        due.truncate(if self.workers.contains_key(&request.worker) { request.limit } else { 0 });
        let jobs = due.into_iter().filter_map(|(.., id)| self.reserve(id, request.worker, now)).collect();
        let next = self.waiting(request.queue).map(|(_, row)| row.available_at).min();
        Claimed::new(jobs).due_in(next.map(|next| next.duration_since(now).unwrap_or_default()))
    }

    fn reserve(&mut self, id: i64, worker: i64, now: SystemTime) -> Option<ReservedJob> {
        let row = self.jobs.get_mut(&id)?;
        row.attempts += 1;
        row.state = JobState::Running;
        let reservation = Reservation::new(id, worker, row.attempts as i32, now);
        row.reservation = Some(reservation);
        let mut job = ReservedJob::new(reservation, row.job.clone());
        (job.failures, job.available_at, job.created_at) = (row.failures, row.available_at, row.created_at);
        Some(job)
    }

    /// Settles a reservation if it still stands: this is the fence.
    fn settle(&mut self, reservation: &Reservation, ending: &Ending) -> Settled {
        let row = self.jobs.get_mut(&reservation.id).filter(|row| row.reservation == Some(*reservation));
        let Some(row) = row else { return Settled::Lost };
        row.reservation = None;
        if let Ending::Dead(failure) | Ending::Waiting { failure: Some(failure), .. } = ending {
            row.failures += 1;
            row.failure = Some(failure.clone());
        }
        row.state = match ending {
            Ending::Waiting { .. } | Ending::Released => JobState::Ready,
            Ending::Completed(_) | Ending::Recorded(_) => JobState::Completed,
            Ending::Cancelled => JobState::Cancelled,
            Ending::Dead(_) => JobState::Dead,
        };
        if let Ending::Waiting { delay, .. } = ending {
            row.available_at = after(*delay);
        }
        Settled::Counted
    }

    fn beat(&mut self, id: i64) -> Beat {
        let Some(worker) = self.workers.get_mut(&id) else { return Beat::new(false) };
        worker.last_seen_at = SystemTime::now();
        let queues = worker.queues.clone();
        let peers = || self.workers.iter().filter(|(peer, _)| **peer != id);
        let mut beat = Beat::new(true);
        beat.peers = peers().map(|(&id, peer)| Peer::new(id, peer.last_seen_at)).collect();
        beat.sharing = peers().filter(|(_, peer)| queues.iter().any(|queue| peer.queues.contains(queue))).count();
        beat
    }

    fn rescue(&mut self, dead: &[Peer]) -> Rescue {
        let mut rescue = Rescue::default();
        for peer in dead {
            if self.workers.get(&peer.id).is_some_and(|worker| worker.last_seen_at == peer.last_seen_at) {
                self.workers.remove(&peer.id);
                rescue.workers.push(peer.id);
            }
        }
        for reservation in self.reservations(|tables, reservation| !tables.workers.contains_key(&reservation.worker)) {
            let failure = Failure::new(FailureReason::Lost, "its worker died");
            let Some(row) = self.jobs.get(&reservation.id) else { continue };
            let is_dead = row.failures + 1 >= row.job.max_attempts;
            let ending = match is_dead {
                true => Ending::Dead(failure),
                false => Ending::Waiting { failure: Some(failure), delay: Duration::ZERO },
            };
            self.settle(&reservation, &ending);
            rescue.jobs.push(reservation.id);
            rescue.dead.extend(is_dead.then_some(reservation.id));
        }
        rescue
    }

    fn reservations(&self, which: impl Fn(&Tables, &Reservation) -> bool) -> Vec<Reservation> {
        self.jobs.values().filter_map(|row| row.reservation).filter(|reservation| which(self, reservation)).collect()
    }
}

/// Nothing in this store waits.
fn done<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, Result<T>> {
    Box::pin(std::future::ready(Ok(answer)))
}

impl Driver for MapStore {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        done(())
    }

    fn enqueue<'a>(&'a self, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        Box::pin(async move {
            jobs.iter().try_for_each(|job| job.check(usize::MAX))?;
            if jobs.iter().any(|job| job.unique_key.is_some()) {
                return Err(Error::invalid("cannot enqueue: this store knows no unique keys"));
            }
            let mut tables = self.tables();
            Ok(jobs.iter().map(|job| tables.enqueue(job)).collect())
        })
    }

    fn register<'a>(&'a self, info: &'a WorkerInfo) -> BoxFuture<'a, Result<()>> {
        let worker = Worker { queues: info.queues.clone(), last_seen_at: SystemTime::now() };
        self.tables().workers.insert(info.id, worker);
        done(())
    }

    fn claim<'a>(&'a self, request: &'a ClaimRequest<'a>) -> BoxFuture<'a, Result<Claimed>> {
        done(self.tables().claim(request))
    }

    fn settle<'a>(&'a self, settlements: &'a [Settlement]) -> BoxFuture<'a, Result<Vec<Settled>>> {
        let mut tables = self.tables();
        done(settlements.iter().map(|settlement| tables.settle(&settlement.reservation, &settlement.ending)).collect())
    }

    fn beat<'a>(&'a self, worker: i64, _: &'a Report) -> BoxFuture<'a, Result<Beat>> {
        done(self.tables().beat(worker))
    }

    fn rescue<'a>(&'a self, _: i64, dead: &'a [Peer]) -> BoxFuture<'a, Result<Rescue>> {
        done(self.tables().rescue(dead))
    }

    fn release_strays<'a>(&'a self, worker: i64, held: &'a [i64]) -> BoxFuture<'a, Result<Vec<i64>>> {
        let mut tables = self.tables();
        let strays = tables.reservations(|_, stray| stray.worker == worker && !held.contains(&stray.id));
        for stray in &strays {
            tables.settle(stray, &Ending::Released);
        }
        done(strays.iter().map(|stray| stray.id).collect())
    }

    fn leave(&self, worker: i64) -> BoxFuture<'_, Result<()>> {
        self.tables().workers.remove(&worker);
        done(())
    }
}
