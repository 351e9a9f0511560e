//! The actions on the database that a letter asks for.

use super::page::{Page, Place, Subject};
use super::row::Row;

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
    PauseSchedule(String),
    ResumeSchedule(String),
    TriggerSchedule(String),
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
            DatabaseAction::PauseSchedule(name) => write!(f, "pause schedule {name}"),
            DatabaseAction::ResumeSchedule(name) => write!(f, "resume schedule {name}"),
            DatabaseAction::TriggerSchedule(name) => write!(f, "enqueue a job of schedule {name} now"),
        }
    }
}

/// A letter with a meaning for the selected row: the letter, its meaning, and the action.
pub type Letter = (char, &'static str, DatabaseAction);

/// Returns the letters for a row of a list.
pub fn letters(place: &Place, subject: &Subject) -> Vec<Letter> {
    use DatabaseAction as Act;
    match subject.clone() {
        Subject::Queue { name, paused: true } => vec![('p', "resume", Act::Resume(name))],
        Subject::Queue { name, paused: false } => vec![('p', "pause", Act::Pause(name))],
        Subject::Group { queue, kind, reason, last } => {
            let last = last.map(|last| ('r', "revive the last", Act::Retry(last)));
            let all = ('R', "revive all", Act::Revive { queue, kind, reason });
            last.into_iter().chain([all]).collect()
        }
        Subject::Schedule { name, paused } => schedule_letters(name, paused),
        Subject::Job(id) => match place {
            Place::Page(Page::Running) | Place::Worker(_) => job_letters("running", id),
            Place::Group { .. } => job_letters("dead", id),
            _ => job_letters("waiting", id),
        },
        Subject::Worker(_) | Subject::Limits(_) => Vec::new(),
    }
}

fn schedule_letters(name: String, paused: bool) -> Vec<Letter> {
    let trigger = ('t', "enqueue one now", DatabaseAction::TriggerSchedule(name.clone()));
    if paused {
        vec![('p', "resume", DatabaseAction::ResumeSchedule(name)), trigger]
    } else {
        vec![('p', "pause", DatabaseAction::PauseSchedule(name)), trigger]
    }
}

fn job_letters(state: &str, id: i64) -> Vec<Letter> {
    let retry = |meaning| ('r', meaning, DatabaseAction::Retry(id));
    let cancel = ('c', "cancel", DatabaseAction::Cancel(id));
    match state {
        "running" => vec![cancel],
        "parked" | "blocked" => vec![cancel],
        "dead" => vec![retry("revive")],
        "ready" | "delayed" | "waiting" => vec![retry("retry now"), cancel],
        _ => Vec::new(),
    }
}

/// Returns the letters for an opened job.
pub fn letters_of_job(id: i64, job: &Row) -> Vec<Letter> {
    job_letters(&job.text("state").unwrap_or_default(), id)
}
