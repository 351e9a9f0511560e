//! The columns of each list, and the colour of its rows.

use super::page::{Page, Place};
use super::row::{Cell, Row, amount, estimate, id, ratio, seconds_as_text, time, words};
use crate::figures::count;

/// A column of a list.
pub struct Column {
    pub title: &'static str,
    /// True if the column holds figures. Figures are aligned to the right and never cut; text is aligned to the left.
    pub is_figure: bool,
    /// The place in the order of importance. A narrow terminal shows only the columns of the lowest ranks.
    pub rank: u8,
    pub cell: fn(&Row) -> Cell,
}

const fn text(title: &'static str, rank: u8, cell: fn(&Row) -> Cell) -> Column {
    Column { title, is_figure: false, rank, cell }
}

const fn figure(title: &'static str, rank: u8, cell: fn(&Row) -> Cell) -> Column {
    Column { title, is_figure: true, rank, cell }
}

const QUEUES: [Column; 13] = [
    text("queue", 0, |row| words(row, "queue")),
    text("", 5, held_back),
    figure("ready", 1, |row| estimate(row, "ready")),
    figure("delay", 6, |row| estimate(row, "delayed")),
    figure("run", 2, |row| amount(row, "running")),
    figure("dead", 3, |row| amount(row, "dead")),
    figure("oldest", 4, |row| time(row, "oldest_ready_seconds")),
    figure("done/m", 7, |row| amount(row, "completed_last_minute")),
    figure("fail/m", 8, |row| amount(row, "failed_last_minute")),
    figure("wait", 9, |row| time(row, "mean_wait_seconds")),
    figure("wait max", 11, |row| time(row, "max_wait_seconds")),
    figure("took", 10, |row| time(row, "mean_run_seconds")),
    figure("took max", 12, |row| time(row, "max_run_seconds")),
];
/// Whether the queue is paused, or else the numbers of its parked and blocked jobs.
fn held_back(row: &Row) -> Cell {
    if row.is("paused") {
        return Cell::text("paused");
    }
    let counts = ["parked", "blocked"].map(|state| (state, row.count(state)));
    let counts = counts.into_iter().filter(|(_, jobs)| *jobs > 0);
    Cell::text(counts.map(|(state, jobs)| format!("{} {state}", count(jobs))).collect::<Vec<_>>().join(", "))
}

const RUNNING: [Column; 8] = [
    figure("job", 0, |row| id(row, "id")),
    text("queue", 3, |row| words(row, "queue")),
    text("kind", 1, |row| words(row, "kind")),
    figure("attempt", 5, |row| amount(row, "attempt")),
    figure("runs", 2, |row| time(row, "running_seconds")),
    text("", 4, |row| Cell::text(stopping(row))),
    text("host", 6, |row| Cell::text(row.text("host").unwrap_or_else(|| "(gone)".into()))),
    figure("worker", 7, |row| id(row, "worker")),
];
const WAITING: [Column; 7] = [
    figure("job", 0, |row| id(row, "id")),
    text("queue", 3, |row| words(row, "queue")),
    text("kind", 2, |row| words(row, "kind")),
    text("priority", 5, priority),
    text("state", 4, |row| Cell::text(if row.is("ready") { "ready" } else { "delayed" })),
    figure("due", 1, |row| row.number("due_seconds").map_or_else(Cell::missing, due)),
    figure("failed", 6, |row| ratio(row, "failures", "max_attempts")),
];
const FAILING: [Column; 6] = [
    figure("job", 0, |row| id(row, "id")),
    text("queue", 4, |row| words(row, "queue")),
    text("kind", 3, |row| words(row, "kind")),
    figure("failed", 1, |row| ratio(row, "failures", "max_attempts")),
    figure("again", 2, again),
    text("last error", 5, |row| words(row, "last_error")),
];
const GROUPS: [Column; 7] = [
    text("queue", 2, |row| words(row, "queue")),
    text("kind", 0, |row| words(row, "kind")),
    text("reason", 3, |row| words(row, "reason")),
    figure("jobs", 1, |row| amount(row, "jobs")),
    figure("last", 4, |row| time(row, "last_died_seconds")),
    figure("job", 6, |row| id(row, "last_id")),
    text("last error", 5, |row| words(row, "last_error")),
];
const DEAD: [Column; 5] = [
    figure("job", 0, |row| id(row, "id")),
    figure("died", 1, |row| time(row, "died_seconds")),
    figure("attempts", 3, |row| amount(row, "attempts")),
    figure("worker", 4, |row| id(row, "worker")),
    text("last error", 2, |row| words(row, "last_error")),
];
const WORKERS: [Column; 11] = [
    figure("worker", 9, |row| id(row, "worker")),
    text("host", 0, |row| words(row, "host")),
    figure("pid", 2, |row| id(row, "pid")),
    figure("run", 1, |row| amount(row, "running")),
    figure("slots", 3, |row| amount(row, "slots")),
    figure("stuck", 8, |row| amount(row, "stuck")),
    figure("up", 6, |row| time(row, "started_seconds")),
    figure("seen", 5, |row| time(row, "last_seen_seconds")),
    text("state", 4, |row| Cell::text(worker_state(row))),
    text("version", 10, |row| words(row, "version")),
    text("queues", 7, |row| Cell::text(row.decode::<Vec<String>>("queues").unwrap_or_default().join(", "))),
];
const SCHEDULES: [Column; 10] = [
    text("name", 0, |row| words(row, "name")),
    text("timing", 2, |row| words(row, "timing")),
    text("zone", 7, |row| words(row, "time_zone")),
    figure("next", 1, |row| row.number("next_seconds").map_or_else(Cell::missing, due)),
    figure("last", 4, |row| time(row, "last_seconds")),
    text("", 3, |row| Cell::text(schedule_state(row))),
    text("kind", 5, |row| words(row, "kind")),
    text("queue", 6, |row| words(row, "queue")),
    text("catch-up", 8, |row| words(row, "catch_up")),
    text("error", 9, |row| words(row, "error")),
];
const LIMITS: [Column; 9] = [
    text("queue", 0, |row| words(row, "queue")),
    figure("run", 1, |row| ratio(row, "running", "max_running")),
    figure("per key", 2, |row| ratio(row, "most_running_per_key", "max_running_per_key")),
    figure("keys", 4, |row| amount(row, "running_keys")),
    text("", 5, |row| Cell::text(if row.is("ordered") { "ordered" } else { "" })),
    figure("rate", 3, |row| rate(row, "rate_limit")),
    figure("key rate", 6, |row| rate(row, "rate_per_key")),
    figure("burst", 8, |row| amount(row, "rate_burst")),
    figure("next start", 7, |row| {
        row.number("rate_used_seconds").filter(|seconds| *seconds > 0.0).map_or_else(Cell::missing, due)
    }),
];

pub fn columns(place: &Place) -> &'static [Column] {
    match place {
        Place::Page(Page::Queues) => &QUEUES,
        Place::Page(Page::Running) | Place::Worker(_) => &RUNNING,
        Place::Page(Page::Waiting) | Place::Queue(_) => &WAITING,
        Place::Page(Page::Failing) => &FAILING,
        Place::Page(Page::Dead) => &GROUPS,
        Place::Group { .. } => &DEAD,
        Place::Page(Page::Workers) => &WORKERS,
        Place::Page(Page::Schedules) => &SCHEDULES,
        Place::Page(Page::Limits) => &LIMITS,
    }
}

/// Returns true if the row is shown in the colour of a warning.
pub fn is_warning(place: &Place, row: &Row) -> bool {
    match place {
        Place::Page(Page::Queues) => row.is("paused") || row.count("dead") > 0,
        Place::Page(Page::Running) | Place::Worker(_) => row.json("host").is_none() || !stopping(row).is_empty(),
        Place::Page(Page::Failing) => row.count("failures") + 1 >= row.count("max_attempts"),
        Place::Page(Page::Workers) => !row.is("alive") || row.count("stuck") > 0,
        Place::Page(Page::Schedules) => !schedule_state(row).is_empty(),
        _ => false,
    }
}

/// Returns a due time: `in 5m00s`, or `5m00s ago`.
fn due(seconds: f64) -> Cell {
    let text = seconds_as_text(seconds.abs());
    Cell::figure(if seconds > 0.0 { format!("in {text}") } else { format!("{text} ago") }, seconds)
}

fn again(row: &Row) -> Cell {
    match row.number("next_try_seconds") {
        _ if row.is("running") => Cell::figure("running", f64::MIN),
        None => Cell::missing(),
        Some(seconds) if seconds > 0.0 => Cell::figure(seconds_as_text(seconds), seconds),
        Some(seconds) => Cell::figure("due", seconds),
    }
}

fn priority(row: &Row) -> Cell {
    let level = row.count("priority");
    let names = ["urgent", "high", "normal", "low"];
    // The level sorts the rows, so that `urgent` comes before `high`.
    let name = names.get(level as usize).map_or_else(|| level.to_string(), |name| (*name).to_owned());
    Cell::figure(name, level as f64)
}

fn rate(row: &Row, limit: &str) -> Cell {
    let Some(limit) = row.number(limit) else { return Cell::missing() };
    let period = row.number("rate_period_seconds").unwrap_or(1.0);
    Cell::figure(format!("{limit} in {}", seconds_as_text(period)), limit / period.max(1e-6))
}

fn stopping(row: &Row) -> &'static str {
    match (row.json("stuck_since"), row.json("cancel_requested_at")) {
        (Some(_), _) => "stuck",
        (None, Some(_)) => "stopping",
        (None, None) => "",
    }
}

fn worker_state(row: &Row) -> &'static str {
    match (row.is("alive"), row.is("stopping")) {
        (false, _) => "silent",
        (true, true) => "stopping",
        (true, false) => "working",
    }
}

fn schedule_state(row: &Row) -> &'static str {
    match (row.json("error"), row.is("paused"), row.is("stale")) {
        (Some(_), _, _) => "error",
        (None, true, _) => "paused",
        (None, false, true) => "stale",
        (None, false, false) => "",
    }
}
