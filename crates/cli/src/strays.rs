//! The processes that programs and children leave behind.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::process::{Child, Command};

use crate::processes::children_of;
use crate::watchdog::Watchdog;

/// The largest number of searches for the processes that a program has left behind, and the pause between two searches.
/// Each search kills one generation: the children of the killed processes become children of this process, and the next
/// search finds them.
const LOOKS: u32 = 100;
const PAUSE_BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// The processes that a killed keeper leaves. These processes become the worker's children, since the worker is a
/// subreaper too.
pub struct Strays {
    watchdog: Watchdog,
    /// While this lock is held for writing, no keeper is being started, so the watchdog knows every keeper.
    starting: RwLock<()>,
}

/// A keeper that was started. The watchdog watches the keeper until this value is dropped.
pub struct Watched {
    keeper: Option<Pid>,
    /// True if the keeper has ended, so that another process may have its id.
    has_ended: bool,
    strays: Arc<Strays>,
}

impl Strays {
    /// Makes this process a subreaper, if the system has subreapers.
    pub fn new(watchdog: Watchdog) -> Strays {
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(Some(getpid()));
        Strays { watchdog, starting: RwLock::default() }
    }

    /// Starts a keeper.
    pub fn start(self: &Arc<Strays>, mut command: Command) -> std::io::Result<(Child, Watched)> {
        let _starting = self.starting.read().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let keeper = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(keeper) = keeper {
            self.watchdog.watch(keeper);
        }
        Ok((child, Watched { keeper, has_ended: false, strays: Arc::clone(self) }))
    }

    /// Ends all children that this process has not started itself, and all their descendants.
    fn end_all(&self) {
        let _none_starts = self.starting.write().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LOOKS {
            let children = children_of(&[getpid()]).into_iter();
            let strays: Vec<Pid> = children.filter(|&child| !self.watchdog.knows(child)).collect();
            if strays.is_empty() {
                return;
            }
            for stray in strays {
                let _ = kill_process(stray, Signal::KILL);
                // Waits only for this stray, because waiting for any child would take away the exit statuses of
                // keepers.
                let _ = waitpid(Some(stray), WaitOptions::NOHANG);
            }
            std::thread::sleep(PAUSE_BETWEEN_LOOKS);
        }
        tracing::warn!(
            name: "program.strays_left", target: "reveille::worker",
            "cannot end all processes that a program started"
        );
    }
}

impl Watched {
    /// Notes that the keeper has ended. If a signal has killed the keeper, ends the processes that it left: the program
    /// and its children may still run.
    pub async fn ended(&mut self, status: ExitStatus) {
        self.has_ended = true;
        if status.signal().is_some() {
            let strays = Arc::clone(&self.strays);
            let _ = tokio::task::spawn_blocking(move || strays.end_all()).await;
        }
    }

    /// Lets a keeper go on that the program has stopped by a signal.
    pub fn wake(&self) {
        if let Some(keeper) = self.keeper.filter(|_| !self.has_ended) {
            let _ = kill_process(keeper, Signal::CONT);
        }
    }

    /// Kills the keeper, if it has not ended.
    pub fn kill(&self) {
        if let Some(keeper) = self.keeper.filter(|_| !self.has_ended) {
            let _ = kill_process(keeper, Signal::KILL);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // If the program has stopped the keeper by a signal, the keeper does not notice that its pipe is closed.
        self.wake();
        if let Some(keeper) = self.keeper {
            self.strays.watchdog.unwatch(keeper);
        }
    }
}
