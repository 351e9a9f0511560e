//! The messages between a store and the workers that fire its schedules.

use std::time::{Duration, SystemTime};

use crate::schedule::{CatchUp, Schedule, Timing};

/// The due schedules of a store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DueSchedules {
    /// The schedules whose next tick is due or not computed yet, the longest due first.
    pub schedules: Vec<DueSchedule>,
    /// The time until the next tick of the remaining schedules is due; `None` if no schedules remain.
    pub due_in: Option<Duration>,
    /// The time at which the store read the schedules, by the store's clock.
    pub looked_at: SystemTime,
}

impl DueSchedules {
    /// Describes the schedules of a store as they were at this time, by the store's clock.
    pub fn new(schedules: Vec<DueSchedule>, looked_at: SystemTime) -> DueSchedules {
        DueSchedules { schedules, due_in: None, looked_at }
    }

    /// Sets the time until the next tick of the remaining schedules is due.
    #[must_use]
    pub fn due_in(self, due_in: Option<Duration>) -> DueSchedules {
        DueSchedules { due_in, ..self }
    }
}

/// A schedule whose next tick is due or not computed yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DueSchedule {
    /// The schedule's id in the store.
    pub id: i64,
    /// The name of the schedule.
    pub name: String,
    /// True if the schedule's jobs pass the middleware of a worker that declares the schedule. Only workers that
    /// declare the schedule then fire it.
    pub through_middleware: bool,
    /// The cron text or the interval that sets the ticks.
    pub timing: Timing,
    /// The time zone of the cron text.
    pub time_zone: String,
    /// The schedule's catch-up: what happens to missed ticks.
    pub catch_up: CatchUp,
    /// The time after which ticks count.
    pub counted_from: SystemTime,
    /// The next tick; `None` if it is not computed yet.
    pub next_at: Option<SystemTime>,
}

impl DueSchedule {
    /// Describes a declared schedule that has this id in the store. Its ticks count after `counted_from`, and its next
    /// tick is not computed yet.
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

/// The record that moves a due schedule to its next tick and enqueues its due ticks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Firing {
    /// The schedule's id in the store.
    pub id: i64,
    /// The schedule's `counted_from` when it was read. The firing counts only if the store still has this value.
    pub counted_from: SystemTime,
    /// The schedule's `next_at` when it was read. The firing counts only if the store still has this value.
    pub next_at: Option<SystemTime>,
    /// The ticks to enqueue, oldest first.
    pub ticks: Vec<SystemTime>,
    /// The tick that follows the enqueued ticks, or the reason why no tick follows.
    pub following: Result<SystemTime, String>,
}

impl Firing {
    /// Describes the firing of a schedule that was read as `seen`: enqueues these ticks, oldest first, and makes
    /// `following` the next tick.
    pub fn new(seen: &DueSchedule, ticks: Vec<SystemTime>, following: Result<SystemTime, String>) -> Firing {
        Firing { id: seen.id, counted_from: seen.counted_from, next_at: seen.next_at, ticks, following }
    }
}
