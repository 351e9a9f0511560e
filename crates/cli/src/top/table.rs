//! The columns and cells of the tables of `top`.

use ratatui::layout::{Alignment, Constraint};
use ratatui::text::Text;
use ratatui::widgets::Cell;

use super::model::{DeadRow, FailingRow, Overview, Pane, QueueRow, RunningRow, WorkerRow};
use crate::figures::{about, count};
use crate::output::plain;

/// A column of a table.
pub struct Column {
    pub title: &'static str,
    /// The width in characters; 0 stands for the rest of the frame.
    width: u16,
    /// True if the column holds figures. Figures are aligned to the right, text to the left.
    is_figure: bool,
    /// The smallest width of the frame at which the column is shown.
    pub from: u16,
}

const fn text(title: &'static str, width: u16) -> Column {
    Column { title, width, is_figure: false, from: 0 }
}

const fn figure(title: &'static str, width: u16) -> Column {
    Column { title, width, is_figure: true, from: 0 }
}

impl Column {
    /// Shows the column only in frames of at least this width.
    const fn from(self, from: u16) -> Column {
        Column { from, ..self }
    }

    pub fn constraint(&self) -> Constraint {
        if self.width == 0 { Constraint::Min(8) } else { Constraint::Length(self.width) }
    }

    pub fn cell(&self, text: &str) -> Cell<'static> {
        Cell::from(Text::from(plain(text)).alignment(if self.is_figure { Alignment::Right } else { Alignment::Left }))
    }
}

const QUEUES: [Column; 13] = [
    text("queue", 0),
    text("", 6),
    figure("ready", 6),
    figure("delay", 6),
    figure("run", 5),
    figure("dead", 5),
    figure("oldest", 6),
    figure("done/m", 6),
    figure("fail/m", 6),
    figure("wait", 6),
    figure("max", 6).from(100),
    figure("took", 6).from(76),
    figure("max", 6).from(100),
];
const WORKERS: [Column; 10] = [
    text("worker", 20).from(110),
    text("host", 16),
    text("pid", 8),
    figure("run", 5),
    figure("slots", 5),
    figure("up", 6),
    figure("seen", 6),
    text("state", 8),
    text("version", 8).from(110),
    text("queues", 0),
];
const RUNNING: [Column; 7] = [
    text("job", 12),
    text("queue", 14),
    text("kind", 0),
    figure("attempt", 7),
    figure("runs", 6),
    text("host", 16),
    text("worker", 20).from(100),
];
const FAILING: [Column; 6] = [
    text("job", 12),
    text("queue", 12),
    text("kind", 14),
    figure("failed", 7),
    figure("again", 7),
    text("last error", 0),
];
const DEAD: [Column; 7] = [
    text("queue", 12),
    text("kind", 14),
    text("reason", 11),
    figure("jobs", 6),
    figure("last", 6),
    text("job", 12).from(100),
    text("last error", 0),
];

pub fn columns(pane: Pane) -> &'static [Column] {
    match pane {
        Pane::Queues => &QUEUES,
        Pane::Workers => &WORKERS,
        Pane::Running => &RUNNING,
        Pane::Failing => &FAILING,
        Pane::Dead => &DEAD,
    }
}

/// A row of a table.
pub struct TableRow {
    /// One cell per column.
    pub cells: Vec<String>,
    /// True if the row is shown in the colour of a warning.
    pub is_warning: bool,
}

pub fn rows(overview: &Overview, pane: Pane) -> Vec<TableRow> {
    match pane {
        Pane::Queues => overview.queues.iter().map(of_queue).collect(),
        Pane::Workers => overview.workers.iter().map(of_worker).collect(),
        Pane::Running => overview.running.iter().map(of_running).collect(),
        Pane::Failing => overview.failing.iter().map(of_failing).collect(),
        Pane::Dead => overview.dead.iter().map(of_dead).collect(),
    }
}

fn of_queue(queue: &QueueRow) -> TableRow {
    let time = |seconds: Option<f64>| seconds.map_or("-".into(), seconds_as_text);
    let cells = vec![
        queue.queue.clone(),
        if queue.paused { "paused" } else { "" }.into(),
        about(queue.ready, queue.estimated),
        about(queue.delayed, queue.estimated),
        count(queue.running),
        count(queue.dead),
        time(queue.oldest_ready_seconds),
        count(queue.completed_last_minute),
        count(queue.failed_last_minute),
        time(queue.mean_wait_seconds),
        time(queue.max_wait_seconds),
        time(queue.mean_run_seconds),
        time(queue.max_run_seconds),
    ];
    TableRow { cells, is_warning: queue.paused || queue.dead > 0 }
}

fn of_worker(worker: &WorkerRow) -> TableRow {
    let state = match (worker.alive, worker.stopping) {
        (false, _) => "silent",
        (true, true) => "stopping",
        (true, false) => "working",
    };
    let cells = vec![
        worker.worker.to_string(),
        worker.host.clone(),
        worker.pid.to_string(),
        count(worker.running),
        count(worker.slots),
        seconds_as_text(worker.started_seconds),
        seconds_as_text(worker.last_seen_seconds),
        state.into(),
        worker.version.clone(),
        worker.queues.join(", "),
    ];
    TableRow { cells, is_warning: !worker.alive }
}

fn of_running(job: &RunningRow) -> TableRow {
    let cells = vec![
        job.id.to_string(),
        job.queue.clone(),
        job.kind.clone(),
        job.attempt.to_string(),
        seconds_as_text(job.running_seconds),
        job.host.clone().unwrap_or_else(|| "(gone)".into()),
        job.worker.to_string(),
    ];
    TableRow { cells, is_warning: job.host.is_none() }
}

fn of_failing(job: &FailingRow) -> TableRow {
    let again = match job.next_try_seconds {
        _ if job.running => "running".into(),
        seconds if seconds > 0.0 => seconds_as_text(seconds),
        _ => "due".into(),
    };
    let cells = vec![
        job.id.to_string(),
        job.queue.clone(),
        job.kind.clone(),
        format!("{}/{}", job.failures, job.max_attempts),
        again,
        job.last_error.clone().unwrap_or_default(),
    ];
    TableRow { cells, is_warning: job.failures + 1 >= job.max_attempts }
}

fn of_dead(dead: &DeadRow) -> TableRow {
    let cells = vec![
        dead.queue.clone(),
        dead.kind.clone(),
        dead.reason.clone(),
        count(dead.jobs),
        seconds_as_text(dead.last_died_seconds),
        dead.last_id.map(|id| id.to_string()).unwrap_or_default(),
        dead.last_error.clone().unwrap_or_default(),
    ];
    TableRow { cells, is_warning: false }
}

/// Returns a time in at most six characters: `0.2ms`, `12ms`, `1.2s`, `59s`, `3m05s`, `2h10m`, `4d03h`.
pub fn seconds_as_text(seconds: f64) -> String {
    let whole = seconds as u64;
    match seconds {
        s if s < 0.001 => format!("{:.1}ms", s.max(0.0) * 1e3),
        s if s < 0.9995 => format!("{:.0}ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1}s"),
        s if s < 60.0 => format!("{whole}s"),
        s if s < 3600.0 => format!("{}m{:02}s", whole / 60, whole % 60),
        s if s < 86_400.0 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        s if s < 86_400.0 * 100.0 => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
        _ => format!("{}d", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let counts = [0, 9999, 10_000, 99_999, 123_456, 1_234_567, 123_456_789];
        assert_eq!(counts.map(count), ["0", "9999", "10.0k", "100.0k", "123k", "1.2M", "0.1G"]);
        let times = [-1.0, 0.0002, 0.012, 1.25, 59.9, 185.0, 7800.0, 356_400.0, 1e9];
        assert_eq!(
            times.map(seconds_as_text),
            ["0.0ms", "0.2ms", "12ms", "1.2s", "59s", "3m05s", "2h10m", "4d03h", "11574d"]
        );
    }
}
