//! What a store and the workers that fire its schedules tell each other.

use std::time::{Duration, SystemTime};

use crate::schedule::{CatchUp, Schedule, Timing};

/// The due schedules of a store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DueSchedules {
    /// The schedules that are due or whose next tick is not computed yet, the longest due first.
    pub schedules: Vec<DueSchedule>,
    /// How long until the next of the other schedules is due; `None` if there is no other.
    pub due_in: Option<Duration>,
    /// When the store looked, by its own clock.
    pub looked_at: SystemTime,
}

impl DueSchedules {
    /// Answers with these schedules, as the store had them at this time by its clock.
    pub fn new(schedules: Vec<DueSchedule>, looked_at: SystemTime) -> DueSchedules {
        DueSchedules { schedules, due_in: None, looked_at }
    }

    /// Tells how long until the next of the other schedules is due.
    #[must_use]
    pub fn due_in(self, due_in: Option<Duration>) -> DueSchedules {
        DueSchedules { due_in, ..self }
    }
}

/// A schedule that is due, or whose next tick is not computed yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DueSchedule {
    /// The schedule's id in the store.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Whether its jobs pass the middleware of a worker that declares it. Workers that do not declare it then leave it
    /// alone.
    pub through_middleware: bool,
    /// When it is due.
    pub timing: Timing,
    /// The time zone of its cron text.
    pub time_zone: String,
    /// What becomes of missed ticks.
    pub catch_up: CatchUp,
    /// The time after which its ticks count.
    pub counted_from: SystemTime,
    /// Its next tick; `None` if it is not computed yet.
    pub next_at: Option<SystemTime>,
}

impl DueSchedule {
    /// Describes a schedule that was declared, under the store's id for it. Its ticks count after this time, and its
    /// next tick is not computed yet.
    pub fn new(id: i64, schedule: &Schedule, counted_from: SystemTime) -> DueSchedule {
        DueSchedule {
            id,
            name: schedule.name.clone(),
            through_middleware: schedule.through_middleware,
            timing: schedule.timing.clone(),
            time_zone: schedule.time_zone.clone(),
            catch_up: schedule.catch_up,
            counted_from,
            next_at: None,
        }
    }
}

/// How a due schedule is moved on, and the ticks that are enqueued for it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Firing {
    /// The schedule's id in the store.
    pub id: i64,
    /// Its `counted_from` when it was seen. The firing counts only if the store still has this value.
    pub counted_from: SystemTime,
    /// Its `next_at` when it was seen. The firing counts only if the store still has this value.
    pub next_at: Option<SystemTime>,
    /// The ticks to enqueue, oldest first.
    pub ticks: Vec<SystemTime>,
    /// The tick after these, or the reason why there is none.
    pub following: Result<SystemTime, String>,
}

impl Firing {
    /// Moves a schedule on from how it was seen: enqueues these ticks, oldest first, and goes on with `following`.
    pub fn new(seen: &DueSchedule, ticks: Vec<SystemTime>, following: Result<SystemTime, String>) -> Firing {
        Firing { id: seen.id, counted_from: seen.counted_from, next_at: seen.next_at, ticks, following }
    }
}
