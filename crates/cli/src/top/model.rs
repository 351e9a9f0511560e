//! The state of `top`, and the changes that pressed keys make. Neither depends on a terminal or a database.

use std::time::Instant;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde::Deserialize;

/// The last answer of the database to `sql/overview.sql`.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    /// The time of the answer, by the server's clock.
    pub at: String,
    pub sums: Sums,
    pub queues: Vec<QueueRow>,
    pub workers: Vec<WorkerRow>,
    pub running: Vec<RunningRow>,
    pub failing: Vec<FailingRow>,
    pub dead: Vec<DeadRow>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Sums {
    pub queues: u64,
    pub ready: u64,
    pub delayed: u64,
    pub running: u64,
    pub dead: u64,
    pub estimated: bool,
    pub completed_last_minute: u64,
    pub failed_last_minute: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct QueueRow {
    pub queue: String,
    pub paused: bool,
    pub ready: u64,
    pub delayed: u64,
    pub running: u64,
    pub dead: u64,
    pub estimated: bool,
    pub oldest_ready_seconds: Option<f64>,
    pub completed_last_minute: u64,
    pub failed_last_minute: u64,
    pub mean_wait_seconds: Option<f64>,
    pub max_wait_seconds: Option<f64>,
    pub mean_run_seconds: Option<f64>,
    pub max_run_seconds: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct WorkerRow {
    pub worker: i64,
    pub host: String,
    pub pid: i64,
    pub queues: Vec<String>,
    pub running: u64,
    pub slots: u64,
    pub started_seconds: f64,
    pub last_seen_seconds: f64,
    pub alive: bool,
    pub stopping: bool,
    pub version: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct RunningRow {
    pub id: i64,
    pub queue: String,
    pub kind: String,
    pub attempt: u64,
    pub worker: i64,
    pub host: Option<String>,
    pub running_seconds: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct FailingRow {
    pub id: i64,
    pub queue: String,
    pub kind: String,
    pub failures: u64,
    pub max_attempts: u64,
    pub running: bool,
    pub next_try_seconds: f64,
    pub last_error: Option<String>,
}

/// The dead jobs with the same queue, kind and reason.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct DeadRow {
    pub queue: String,
    pub kind: String,
    pub reason: String,
    pub jobs: u64,
    pub last_died_seconds: f64,
    pub last_id: Option<i64>,
    pub last_error: Option<String>,
}

/// A table of `top`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pane {
    Queues,
    Workers,
    Running,
    Failing,
    Dead,
}

impl Pane {
    pub const ALL: [Pane; 5] = [Pane::Queues, Pane::Workers, Pane::Running, Pane::Failing, Pane::Dead];

    pub fn title(self) -> &'static str {
        ["queues", "workers", "running", "failing", "dead"][self as usize]
    }

    fn step(self, by: usize) -> Pane {
        Pane::ALL[(self as usize + by) % Pane::ALL.len()]
    }
}

impl Overview {
    /// Returns the number of rows in a pane.
    pub fn len(&self, pane: Pane) -> usize {
        self.keys(pane).len()
    }

    /// Returns a text for each row of a pane that identifies the row, in the order in which the rows are shown.
    fn keys(&self, pane: Pane) -> Vec<String> {
        let ids = |ids: &mut dyn Iterator<Item = i64>| ids.map(|id| id.to_string()).collect();
        match pane {
            Pane::Queues => self.queues.iter().map(|queue| queue.queue.clone()).collect(),
            Pane::Workers => ids(&mut self.workers.iter().map(|worker| worker.worker)),
            Pane::Running => ids(&mut self.running.iter().map(|job| job.id)),
            Pane::Failing => ids(&mut self.failing.iter().map(|job| job.id)),
            Pane::Dead => {
                self.dead.iter().map(|dead| format!("{}\0{}\0{}", dead.queue, dead.kind, dead.reason)).collect()
            }
        }
    }
}

/// An action of the user that changes the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseAction {
    Pause(String),
    Resume(String),
    Retry(i64),
    Cancel(i64),
    /// Revives all dead jobs with this queue, kind and reason.
    Revive {
        queue: String,
        kind: String,
        reason: String,
    },
}

impl std::fmt::Display for DatabaseAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DatabaseAction::Pause(queue) => write!(f, "pause queue {queue}"),
            DatabaseAction::Resume(queue) => write!(f, "resume queue {queue}"),
            DatabaseAction::Retry(id) => write!(f, "retry job {id}"),
            DatabaseAction::Cancel(id) => write!(f, "cancel job {id}"),
            DatabaseAction::Revive { queue, kind, reason } => {
                write!(f, "revive all dead jobs of queue {queue}, kind {kind}, reason {reason}")
            }
        }
    }
}

/// The effect of a pressed key outside the model.
#[derive(Debug, PartialEq, Eq)]
pub enum Reaction {
    Nothing,
    Quit,
    Act(DatabaseAction),
}

/// The selected row of a pane: found by its identifying text, or by its index if the row is gone.
#[derive(Debug, Clone, Default)]
struct Cursor {
    key: String,
    place: usize,
}

#[derive(Debug)]
pub struct Model {
    pub overview: Option<Overview>,
    /// The reason why the last read of the database failed; `None` if the read succeeded.
    pub lost: Option<String>,
    /// The time at which the last answer arrived.
    pub updated_at: Instant,
    pub pane: Pane,
    /// The action that the user must still confirm.
    pub asking: Option<DatabaseAction>,
    pub helping: bool,
    /// The result of the last action.
    pub message: Option<String>,
    cursors: [Cursor; 5],
}

/// The number of rows that Page Up and Page Down move.
const PAGE: usize = 10;

impl Model {
    pub fn new(pane: Pane) -> Model {
        Model {
            overview: None,
            lost: None,
            updated_at: Instant::now(),
            pane,
            asking: None,
            helping: false,
            message: None,
            cursors: Default::default(),
        }
    }

    /// Updates the model with an answer of the database, or with the reason why there is none.
    pub fn update(&mut self, answer: Result<Overview, String>) {
        match answer {
            Ok(overview) => {
                self.overview = Some(overview);
                self.lost = None;
                self.updated_at = Instant::now();
            }
            Err(why) => self.lost = Some(why),
        }
    }

    /// Returns the index of the selected row; `None` if the pane is empty.
    pub fn marked(&self) -> Option<usize> {
        let keys = self.overview.as_ref()?.keys(self.pane);
        let cursor = &self.cursors[self.pane as usize];
        let place = keys.iter().position(|key| *key == cursor.key).unwrap_or(cursor.place);
        keys.len().checked_sub(1).map(|last| place.min(last))
    }

    fn mark(&mut self, place: usize) {
        let keys = self.overview.as_ref().map(|overview| overview.keys(self.pane)).unwrap_or_default();
        let place = place.min(keys.len().saturating_sub(1));
        self.cursors[self.pane as usize] = Cursor { key: keys.get(place).cloned().unwrap_or_default(), place };
    }

    pub fn press(&mut self, key: KeyEvent) -> Reaction {
        if key.kind == KeyEventKind::Release {
            return Reaction::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Reaction::Quit } else { Reaction::Nothing };
        }
        if let Some(action) = self.asking.take() {
            // Any key but `y` means no.
            return if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                Reaction::Act(action)
            } else {
                Reaction::Nothing
            };
        }
        self.message = None;
        if std::mem::take(&mut self.helping) {
            return if key.code == KeyCode::Char('q') { Reaction::Quit } else { Reaction::Nothing };
        }
        let place = self.marked().unwrap_or_default();
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Reaction::Quit,
            KeyCode::Char('?') => self.helping = true,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.pane = self.pane.step(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.pane = self.pane.step(4),
            KeyCode::Char(digit @ '1'..='5') => self.pane = Pane::ALL[digit as usize - '1' as usize],
            KeyCode::Down | KeyCode::Char('j') => self.mark(place + 1),
            KeyCode::Up | KeyCode::Char('k') => self.mark(place.saturating_sub(1)),
            KeyCode::PageDown => self.mark(place + PAGE),
            KeyCode::PageUp => self.mark(place.saturating_sub(PAGE)),
            KeyCode::Home | KeyCode::Char('g') => self.mark(0),
            KeyCode::End | KeyCode::Char('G') => self.mark(usize::MAX),
            KeyCode::Char(letter) => {
                self.asking = self.action(letter);
                // Selects the row of the action, so that the selection follows this row when rows move.
                self.mark(place);
            }
            _ => {}
        }
        Reaction::Nothing
    }

    /// Returns the action of a letter on the selected row.
    fn action(&self, letter: char) -> Option<DatabaseAction> {
        let (overview, place) = (self.overview.as_ref()?, self.marked()?);
        match (self.pane, letter) {
            (Pane::Queues, 'p') => {
                let queue = overview.queues.get(place)?;
                let name = queue.queue.clone();
                Some(if queue.paused { DatabaseAction::Resume(name) } else { DatabaseAction::Pause(name) })
            }
            (Pane::Running, 'c') => Some(DatabaseAction::Cancel(overview.running.get(place)?.id)),
            (Pane::Failing, 'c') => Some(DatabaseAction::Cancel(overview.failing.get(place)?.id)),
            (Pane::Failing, 'r') => Some(DatabaseAction::Retry(overview.failing.get(place)?.id)),
            (Pane::Dead, 'r') => Some(DatabaseAction::Retry(overview.dead.get(place)?.last_id?)),
            (Pane::Dead, 'R') => {
                let DeadRow { queue, kind, reason, .. } = overview.dead.get(place)?.clone();
                Some(DatabaseAction::Revive { queue, kind, reason })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
