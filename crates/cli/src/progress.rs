//! The progress line of commands that may take long: one line on a terminal at stderr, which disappears at the end.

use std::fmt::Display;
use std::io::{IsTerminal, stderr, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::emulate_default_handler;
use tokio::signal::unix::{SignalKind, signal};

use crate::output;

/// The time after which the line appears. Most commands end earlier, and show none.
const APPEARS_AFTER: Duration = Duration::from_secs(1);
const REDRAWN_EVERY: Duration = Duration::from_millis(250);

/// The progress line of one command. Dropping this removes the line.
pub struct Progress(Arc<Mutex<Line>>);

struct Line {
    began: Instant,
    /// What the command does, such as "migrating".
    what: String,
    detail: String,
    /// True if the command itself ends at a signal.
    leaves_signals: bool,
    has_ended: bool,
}

impl Progress {
    /// Begins to show what the command does. With `json`, a terminal that shows the JSON shows no progress line.
    ///
    /// Call this in a runtime.
    pub fn start(what: impl Display, json: bool) -> Progress {
        let progress = Progress(Arc::new(Mutex::new(Line {
            began: Instant::now(),
            what: what.to_string(),
            detail: String::new(),
            leaves_signals: false,
            has_ended: false,
        })));
        // A terminal of the kind "dumb" cannot remove a line.
        let is_dumb = std::env::var_os("TERM").is_none_or(|kind| kind.is_empty() || kind == "dumb");
        if stderr().is_terminal() && !is_dumb && !(json && stdout().is_terminal()) {
            tokio::spawn(show(Arc::clone(&progress.0)));
        }
        progress
    }

    /// Shows that the command now does something else.
    pub fn go_on(&self, what: impl Display) {
        let mut line = lock(&self.0);
        (line.began, line.what, line.detail) = (Instant::now(), what.to_string(), String::new());
    }

    /// Leaves signals to the command from now on.
    pub fn leave_signals(&self) {
        lock(&self.0).leaves_signals = true;
    }

    /// Shows this text behind the text of the command.
    pub fn note(&self, detail: impl Display) {
        lock(&self.0).detail = format!(": {detail}");
    }

    /// Shows how many of `all` things are done.
    pub fn count(&self, done: u64, all: u64) {
        self.note(share(done, all));
    }
}

/// Writes how many of `all` things are done: `300 of 1200 (25%)`.
pub fn share(done: u64, all: u64) -> String {
    format!("{done} of {all} ({}%)", (done * 100).checked_div(all).unwrap_or(100))
}

impl Drop for Progress {
    fn drop(&mut self) {
        lock(&self.0).has_ended = true;
        drop(output::remove_progress());
    }
}

/// Draws the line until the command ends. Once a line may stand on the terminal, a signal removes it before the signal
/// ends this process.
async fn show(line: Arc<Mutex<Line>>) {
    tokio::time::sleep(APPEARS_AFTER).await;
    let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
    let [Ok(mut interrupt), Ok(mut terminate)] = kinds.map(signal) else { return };
    let mut redraw = tokio::time::interval(REDRAWN_EVERY);
    loop {
        let signal = tokio::select! {
            _ = redraw.tick() => None,
            _ = interrupt.recv() => Some(SIGINT),
            _ = terminate.recv() => Some(SIGTERM),
        };
        let line = lock(&line);
        if let Some(signal) = signal.filter(|_| !line.leaves_signals) {
            output::progress("");
            let _ = emulate_default_handler(signal);
        } else if !line.has_ended {
            let elapsed = humantime::format_duration(Duration::from_secs(line.began.elapsed().as_secs()));
            output::progress(&format!("{}{}, {elapsed}", line.what, line.detail));
        }
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}
