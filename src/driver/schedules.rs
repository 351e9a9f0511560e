//! What a driver and those who fire schedules tell each other.

use std::time::{Duration, SystemTime};

use crate::schedule::{CatchUp, Timing};

/// What a look at the schedules brought.
#[derive(Debug, Clone)]
pub struct DueSchedules {
    /// Those that are due, or whose next tick has yet to be reckoned, the longest due first.
    pub schedules: Vec<DueSchedule>,
    /// How long until the next of the others is due; `None` if there is none.
    pub due_in: Option<Duration>,
    /// By the store's clock, when it looked.
    pub looked_at: SystemTime,
}

/// A schedule that is due, or whose next tick has yet to be reckoned.
#[derive(Debug, Clone)]
pub struct DueSchedule {
    /// Which.
    pub id: i64,
    /// What it is called.
    pub name: String,
    /// Whether its jobs pass the middleware of a worker that declares it, so that others leave it alone.
    pub through_middleware: bool,
    /// When it is due.
    pub timing: Timing,
    /// The zone of its cron text.
    pub time_zone: String,
    /// What becomes of missed ticks.
    pub catch_up: CatchUp,
    /// Only ticks after this count.
    pub counted_from: SystemTime,
    /// Its next tick; `None` if it has yet to be reckoned.
    pub next_at: Option<SystemTime>,
}

/// What becomes of a schedule that is due.
#[derive(Debug, Clone)]
pub struct Firing {
    /// Which.
    pub id: i64,
    /// As it was seen: the fence.
    pub counted_from: SystemTime,
    /// As it was seen: the fence.
    pub next_at: Option<SystemTime>,
    /// The ticks to enqueue, oldest first.
    pub ticks: Vec<SystemTime>,
    /// The tick after these; or why there is none.
    pub following: Result<SystemTime, String>,
}
