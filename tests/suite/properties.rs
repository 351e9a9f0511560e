//! Drivers behave like a simple model, for random steps in a random order.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use reveille::driver::{ClaimRequest, Ending, Failure, FailureReason, Report};
use reveille::job::{Cancelled, JobState, NewJob, Priority, Reservation, Retried, UniqueUntil};

use crate::conformance::{QUEUE, Store, with};
use crate::harness::note;
use crate::steps::{Fence, How, New, Step, WORKERS, step};

type Checked<T = ()> = Result<T, TestCaseError>;

const HOUR: Duration = Duration::from_secs(3600);

/// The state of a job, in the words of `Snapshot`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Waiting,
    Running(Reservation),
    Completed,
    Cancelled,
    Dead(FailureReason),
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::Waiting => "waiting",
            Place::Running(_) => "running",
            Place::Completed => "completed",
            Place::Cancelled => "cancelled",
            Place::Dead(reason) => reason.name(),
        }
    }

    fn is_live(self) -> bool {
        matches!(self, Place::Waiting | Place::Running(_))
    }
}

/// A job as the model expects it.
#[derive(Debug, Clone)]
struct Model {
    place: Place,
    priority: Priority,
    attempts: u32,
    failures: u32,
    max_attempts: u32,
    unique_key: Option<String>,
    until: UniqueUntil,
    cancel_requested: bool,
    past: Vec<Reservation>,
}

impl Model {
    fn fail(&mut self, is_last: bool, reason: FailureReason) {
        self.failures += 1;
        self.place = if is_last { Place::Dead(reason) } else { Place::Waiting };
        self.cancel_requested &= !is_last;
    }
}

/// A job as the store has it.
#[derive(Debug, Clone, PartialEq)]
struct Snapshot {
    id: i64,
    place: String,
    attempts: u32,
    failures: u32,
    priority: Priority,
    available_at: SystemTime,
}

async fn snapshot(store: &Store) -> Vec<Snapshot> {
    match store {
        Store::Memory(memory) => memory.jobs().into_iter().map(of_memory).collect(),
        Store::Postgres(database, _) => {
            let sql = "select id, case when reserved_at is null then 'waiting' else 'running' end as place,
                    attempts, failures, priority, available_at from reveille.jobs
                union all select id, outcome, attempts, failures, priority, available_at from reveille.finished_jobs
                union all select id, reason, attempts, failures, priority, available_at from reveille.dead_jobs
                order by id";
            let rows = database.database.client().await.unwrap().query(sql, &[]).await.unwrap();
            let of_row = |row: &tokio_postgres::Row| Snapshot {
                id: row.get("id"),
                place: row.get("place"),
                attempts: row.get::<_, i32>("attempts") as u32,
                failures: row.get::<_, i32>("failures") as u32,
                priority: row.get::<_, i16>("priority").to_string().parse().unwrap(),
                available_at: row.get("available_at"),
            };
            rows.iter().map(of_row).collect()
        }
    }
}

fn of_memory(stored: reveille::driver::StoredJob) -> Snapshot {
    let place = match stored.state {
        JobState::Ready | JobState::Delayed => "waiting",
        state => stored.reason.map_or(state.name(), |reason| reason.name()),
    };
    Snapshot {
        id: stored.id,
        place: place.into(),
        attempts: stored.attempts,
        failures: stored.failures,
        priority: stored.job.priority,
        available_at: stored.available_at,
    }
}

/// A store, and the model of its contents.
struct World<'a> {
    store: &'a Store,
    jobs: BTreeMap<i64, Model>,
    workers: [Option<i64>; WORKERS],
    last_worker: i64,
}

impl World<'_> {
    async fn begin(store: &Store) -> World<'_> {
        if let Store::Postgres(database, _) = store {
            database
                .run("truncate reveille.jobs, reveille.dead_jobs, reveille.finished_jobs, reveille.workers cascade")
                .await;
        }
        let mut world = World { store, jobs: BTreeMap::new(), workers: [None; WORKERS], last_worker: 0 };
        for worker in 0..WORKERS {
            world.arrive(worker).await;
        }
        world
    }

    async fn arrive(&mut self, worker: usize) -> i64 {
        self.last_worker += 1;
        self.store.register(self.last_worker).await;
        self.workers[worker] = Some(self.last_worker);
        self.last_worker
    }

    /// Returns the id of the worker with this index. If the worker is gone, registers a new one.
    async fn worker(&mut self, worker: usize) -> i64 {
        match self.workers[worker] {
            Some(id) => id,
            None => self.arrive(worker).await,
        }
    }

    async fn take(&mut self, step: &Step) -> Checked {
        match step {
            Step::Enqueue(new) => self.enqueue(new).await,
            Step::Claim { worker, limit } => self.claim(*worker, *limit).await,
            Step::Settle { job, how, fence } => self.settle(job, *how, *fence).await,
            Step::Lose { worker } => self.lose(*worker).await,
            Step::Leave { worker } => {
                let gone = self.worker(*worker).await;
                self.workers[*worker] = None;
                self.store.driver().leave(gone).await.map_err(unexpected)
            }
            Step::Rescue { worker } => {
                let asker = self.worker(*worker).await;
                let rescued = self.store.driver().rescue(asker, &[]).await.map_err(unexpected)?;
                prop_assert!(rescued.workers.is_empty());
                self.orphans_go_back(rescued.jobs)
            }
            Step::ReleaseStrays { worker, held } => self.release_strays(*worker, held.as_ref()).await,
            Step::Cancel(job) => self.cancel(job).await,
            Step::Retry(job) => self.retry(job).await,
        }
    }

    fn pick(&self, index: &Index) -> Option<i64> {
        (!self.jobs.is_empty()).then(|| *self.jobs.keys().nth(index.index(self.jobs.len())).unwrap())
    }

    fn holder(&self, key: Option<&String>) -> Option<i64> {
        let holds = |job: &Model| job.place.is_live() && key.is_some() && job.unique_key.as_ref() == key;
        self.jobs.iter().find(|(_, job)| holds(job)).map(|(id, _)| *id)
    }

    async fn enqueue(&mut self, new: &[New]) -> Checked {
        let job = |new: &New| {
            with(
                NewJob::of(&note("x"))
                    .unwrap()
                    .priority(new.priority)
                    .delay(if new.is_delayed { HOUR } else { Duration::ZERO })
                    .max_attempts(new.max_attempts)
                    .unique_mode(new.mode)
                    .unique_until(new.until),
                |job| job.unique_key = new.unique_key.clone(),
            )
        };
        let jobs: Vec<NewJob> = new.iter().map(job).collect();
        let answers = self.store.driver().enqueue(&jobs).await.map_err(unexpected)?;
        prop_assert_eq!(answers.len(), new.len());
        for (answer, new) in answers.iter().zip(new) {
            let holder = self.holder(new.unique_key.as_ref());
            prop_assert_eq!(answer.existed, holder.is_some());
            prop_assert_eq!(answer.id, holder.unwrap_or(answer.id));
            if holder.is_none() {
                prop_assert!(!self.jobs.contains_key(&answer.id), "ids are never used again");
                let model = Model {
                    place: Place::Waiting,
                    priority: new.priority,
                    attempts: 0,
                    failures: 0,
                    max_attempts: new.max_attempts,
                    unique_key: new.unique_key.clone(),
                    until: new.until,
                    cancel_requested: false,
                    past: Vec::new(),
                };
                self.jobs.insert(answer.id, model);
            }
        }
        Ok(())
    }

    /// Checks that a claim takes the first due jobs, in the order of their due times.
    async fn claim(&mut self, worker: usize, limit: usize) -> Checked {
        let mut waiting = snapshot(self.store).await;
        waiting.retain(|job| job.place == "waiting");
        waiting.sort_by_key(|job| (job.priority, job.available_at, job.id));
        let Some(worker) = self.workers[worker] else {
            let claimed = self.store.driver().claim(&ClaimRequest::new(0, QUEUE, limit)).await.map_err(unexpected)?;
            prop_assert!(claimed.jobs.is_empty(), "claimed by an unregistered worker");
            return Ok(());
        };
        let before = SystemTime::now();
        let claimed = self.store.driver().claim(&ClaimRequest::new(worker, QUEUE, limit)).await.map_err(unexpected)?;
        let reserved_at = claimed.jobs.first().map(|job| job.reservation.reserved_at);
        let by = reserved_at.unwrap_or(before);
        let head = waiting.iter().filter(|job| job.available_at <= by).take(limit).map(|job| job.id);
        let ids: Vec<i64> = claimed.jobs.iter().map(|job| job.reservation.id).collect();
        prop_assert_eq!(&ids, &head.collect::<Vec<_>>());
        let (left, short) = (waiting.len() > ids.len(), ids.len() < limit);
        if ids.is_empty() {
            prop_assert_eq!(claimed.due_in.is_some(), left);
        } else {
            prop_assert!(
                claimed.due_in.is_none() || short && left,
                "a claim has a time to wait for only if delayed jobs are left"
            );
        }
        for job in claimed.jobs {
            let reservation = job.reservation;
            let model = self.jobs.get_mut(&reservation.id).unwrap();
            model.place = Place::Running(reservation);
            model.attempts += 1;
            model.past.push(reservation);
            if model.until == UniqueUntil::Started {
                model.unique_key = None;
            }
            prop_assert_eq!(reservation.worker, worker);
            prop_assert_eq!(reservation.attempt, i32::try_from(model.attempts).unwrap());
            let given = (job.priority, job.failures, job.max_attempts, job.cancel_requested);
            prop_assert_eq!(given, (model.priority, model.failures, model.max_attempts, model.cancel_requested));
        }
        Ok(())
    }

    async fn settle(&mut self, job: &Index, how: How, fence: Fence) -> Checked {
        let Some(id) = self.pick(job) else { return Ok(()) };
        let model = &self.jobs[&id];
        let standing = if let Place::Running(reservation) = model.place { Some(reservation) } else { None };
        let last = model.past.last().copied();
        let other = last.unwrap_or(Reservation::new(id, 1, 1, SystemTime::UNIX_EPOCH));
        let with = match fence {
            Fence::Standing => other,
            Fence::Past(nth) => model.past.get(nth).copied().unwrap_or(other),
            Fence::OtherWorker => Reservation::new(other.id, other.worker + 1, other.attempt, other.reserved_at),
            Fence::OtherAttempt => Reservation::new(other.id, other.worker, other.attempt + 1, other.reserved_at),
            Fence::OtherTime => {
                let later = other.reserved_at + Duration::from_micros(1);
                Reservation::new(other.id, other.worker, other.attempt, later)
            }
        };
        let failure = || Failure::new(FailureReason::Failed, "no");
        let delay = |is_delayed| if is_delayed { HOUR } else { Duration::ZERO };
        let ending = match how {
            How::Complete => Ending::Completed(None),
            How::Cancel => Ending::Cancelled,
            How::Fail { is_delayed } => Ending::Waiting { failure: Some(failure()), delay: delay(is_delayed) },
            How::Snooze { is_delayed } => Ending::Waiting { failure: None, delay: delay(is_delayed) },
            How::Release => Ending::Released,
            How::Die => Ending::Dead(failure()),
        };
        let counted = self.store.settle(with, ending).await;
        prop_assert_eq!(counted, standing == Some(with), "an ending counts if its reservation stands, and only then");
        let model = self.jobs.get_mut(&id).unwrap();
        match how {
            _ if !counted => {}
            How::Complete => model.place = Place::Completed,
            How::Cancel => model.place = Place::Cancelled,
            How::Fail { .. } => model.fail(false, FailureReason::Failed),
            How::Snooze { .. } | How::Release => model.place = Place::Waiting,
            How::Die => model.fail(true, FailureReason::Failed),
        }
        Ok(())
    }

    async fn lose(&mut self, worker: usize) -> Checked {
        let (lost, asker) = (self.worker(worker).await, self.worker((worker + 1) % WORKERS).await);
        self.workers[worker] = None;
        let put_back = self.store.lose_worker(lost, asker).await;
        prop_assert!(!self.store.driver().beat(lost, &Report::default()).await.map_err(unexpected)?.alive);
        self.orphans_go_back(put_back)?;
        self.arrive(worker).await;
        Ok(())
    }

    fn orphans_go_back(&mut self, put_back: Vec<i64>) -> Checked {
        let workers = self.workers;
        let is_orphan =
            |job: &Model| matches!(job.place, Place::Running(held) if !workers.contains(&Some(held.worker)));
        let mut orphans = Vec::new();
        for (id, job) in self.jobs.iter_mut().filter(|(_, job)| is_orphan(job)) {
            job.fail(job.failures + 1 >= job.max_attempts, FailureReason::Lost);
            orphans.push(*id);
        }
        same(put_back, orphans)
    }

    async fn release_strays(&mut self, worker: usize, held: Option<&Index>) -> Checked {
        let Some(worker) = self.workers[worker] else { return Ok(()) };
        let held: Vec<i64> = held.and_then(|held| self.pick(held)).into_iter().collect();
        let released = self.store.driver().release_strays(worker, &held).await.map_err(unexpected)?;
        let mut strays = Vec::new();
        for (id, job) in self.jobs.iter_mut().filter(|(id, _)| !held.contains(id)) {
            if matches!(job.place, Place::Running(reservation) if reservation.worker == worker) {
                job.place = Place::Waiting;
                strays.push(*id);
            }
        }
        same(released, strays)
    }

    async fn cancel(&mut self, job: &Index) -> Checked {
        let Some(id) = self.pick(job) else { return Ok(()) };
        let model = self.jobs.get_mut(&id).unwrap();
        let expected = match model.place {
            Place::Waiting => {
                model.place = Place::Cancelled;
                Cancelled::Cancelled
            }
            Place::Running(_) => {
                model.cancel_requested = true;
                Cancelled::Requested
            }
            Place::Dead(_) => Cancelled::Dead,
            Place::Completed | Place::Cancelled => Cancelled::Finished,
        };
        prop_assert_eq!(self.store.cancel(id).await, expected);
        Ok(())
    }

    async fn retry(&mut self, job: &Index) -> Checked {
        let Some(id) = self.pick(job) else { return Ok(()) };
        let answer = self.store.retry(id).await;
        let has_successor = self.holder(self.jobs[&id].unique_key.as_ref()).is_some();
        let model = self.jobs.get_mut(&id).unwrap();
        let expected = match model.place {
            Place::Waiting => Retried::Due,
            Place::Running(_) => Retried::Running,
            Place::Dead(_) if has_successor => {
                prop_assert!(answer.is_err_and(|error| error.is_invalid()), "another job holds the unique key");
                return Ok(());
            }
            Place::Dead(_) => {
                (model.place, model.failures) = (Place::Waiting, 0);
                Retried::Revived
            }
            Place::Completed | Place::Cancelled => Retried::Finished,
        };
        prop_assert_eq!(answer.map_err(unexpected)?, expected);
        Ok(())
    }

    /// Checks that each job is in one table only, and in the right table. Checks that each worker is alive, and that
    /// its heartbeat returns the cancels of its running jobs.
    async fn check(&self) -> Checked {
        let found = snapshot(self.store).await;
        let ids: Vec<i64> = found.iter().map(|job| job.id).collect();
        prop_assert_eq!(ids, self.jobs.keys().copied().collect::<Vec<_>>(), "no job is lost or doubled");
        for (job, model) in found.iter().zip(self.jobs.values()) {
            let is = (job.place.as_str(), job.attempts, job.failures);
            prop_assert_eq!(is, (model.place.name(), model.attempts, model.failures), "job {}", job.id);
            prop_assert!(job.failures <= job.attempts);
        }
        for worker in self.workers.into_iter().flatten() {
            let report = Report::holding(self.jobs.keys().copied().collect());
            let beat = self.store.driver().beat(worker, &report).await.map_err(unexpected)?;
            let asked = self.jobs.iter().filter(|(_, job)| {
                job.cancel_requested && matches!(job.place, Place::Running(held) if held.worker == worker)
            });
            same(beat.cancel, asked.map(|(id, _)| *id).collect())?;
            prop_assert!(beat.alive);
        }
        Ok(())
    }
}

fn same(mut one: Vec<i64>, other: Vec<i64>) -> Checked {
    one.sort_unstable();
    prop_assert_eq!(one, other);
    Ok(())
}

fn unexpected(error: reveille::Error) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

/// Tries `cases` random lists of steps, or the number in `PROPTEST_CASES`. Lists that failed earlier come first.
fn holds(cases: u32, store: impl AsyncFn() -> Store) {
    const FAILED_ONCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/properties.regressions");
    let given = std::env::var_os("PROPTEST_CASES").is_some();
    let default = Config::default();
    let config = Config {
        cases: if given { default.cases } else { cases },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(FAILED_ONCE))),
        max_shrink_iters: 500,
        ..default
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(store());
    let run = |steps: Vec<Step>| {
        runtime.block_on(async {
            let store = if let Store::Memory(_) = store { &Store::memory().await } else { &store };
            let mut world = World::begin(store).await;
            for step in &steps {
                world.take(step).await?;
                world.check().await?;
            }
            Ok(())
        })
    };
    if let Err(failed) = TestRunner::new(config).run(&vec(step(), 1..40), run) {
        panic!("{failed}\nits seed is in {FAILED_ONCE}");
    }
}

#[test]
fn memory_does_as_the_model_says() {
    holds(256, Store::memory);
}

#[test]
fn postgres_does_as_the_model_says() {
    holds(12, Store::postgres);
}
