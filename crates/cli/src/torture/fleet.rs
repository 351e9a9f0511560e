//! The worker processes of the test. They are started, killed, frozen and watched, each behind a separate network
//! proxy.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use reveille::dev::{Network, Proxy};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::journal::{self, Attempt, Note};
use super::lock;
use crate::{Failure, program};

/// The usual places of libfaketime, a library that shifts a program's clock.
const SHIFTS_CLOCKS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

pub struct Fleet {
    places: Vec<Place>,
    login: String,
    /// The arguments of each worker process.
    arguments: Vec<String>,
    folder: PathBuf,
    lives: Mutex<Vec<Life>>,
}

/// A network, and the worker processes that run behind it one after another.
struct Place {
    proxy: Proxy,
    /// The running worker process, and the index of its record; `None` if no other process could be started.
    now: tokio::sync::Mutex<Option<(Child, usize)>>,
}

/// The record of one worker process.
#[derive(Default, Clone)]
pub struct Life {
    pub journal: PathBuf,
    pub killed: Option<Duration>,
    /// The start and the end of each freeze of the process.
    pub frozen: Vec<(Duration, Duration)>,
    /// True if the process ended without a request to stop.
    pub gave_up: bool,
}

/// The way in which a worker is started.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    Usual,
    /// With a clock that is shifted by this offset, where libfaketime is installed.
    Clock(&'static str),
    /// With a debug log to a pipe. The pipe's reader closes the pipe after this time.
    LogReadFor(Duration),
}

impl Life {
    pub fn attempts(&self) -> Vec<Attempt> {
        journal::read(&self.text())
    }

    pub fn notes(&self) -> Vec<Note> {
        journal::notes(&self.text())
    }

    /// The text of the journal.
    fn text(&self) -> String {
        std::fs::read_to_string(&self.journal).unwrap_or_default()
    }

    /// The last line that the process wrote to standard error.
    pub fn last_line(&self) -> String {
        let stderr = std::fs::read_to_string(self.journal.with_extension("stderr")).unwrap_or_default();
        stderr.lines().last().unwrap_or_default().to_owned()
    }
}

impl Fleet {
    /// Starts the first worker behind each network, with the arguments `arguments`. `login` has the user, password and
    /// database, as key=value.
    pub async fn start(
        port: u16,
        login: String,
        workers: usize,
        arguments: Vec<String>,
        folder: PathBuf,
    ) -> Result<Fleet, Failure> {
        let mut places = Vec::new();
        for _ in 0..workers {
            places.push(Place { proxy: Proxy::start("127.0.0.1", port).await?, now: tokio::sync::Mutex::new(None) });
        }
        let fleet = Fleet { places, login, arguments, folder, lives: Mutex::default() };
        for place in 0..workers {
            fleet.replace(place, Duration::ZERO, Start::Usual).await?;
        }
        Ok(fleet)
    }

    /// Kills the worker behind a network, if there is one. Starts another worker after the time `after`.
    pub async fn replace(&self, place: usize, after: Duration, start: Start) -> Result<(), Failure> {
        let mut now = self.places[place].now.lock().await;
        if let Some((mut child, life)) = now.take() {
            if child.try_wait()?.is_some() {
                lock(&self.lives)[life].gave_up = true;
            }
            child.kill().await?;
            lock(&self.lives)[life].killed = Some(journal::now());
        }
        tokio::time::sleep(after).await;
        let life = {
            let mut lives = lock(&self.lives);
            let journal = self.folder.join(format!("worker-{}", lives.len()));
            lives.push(Life { journal, ..Life::default() });
            lives.len() - 1
        };
        let mut command = Command::from(program::again()?);
        let address = format!("host=127.0.0.1 port={} {}", self.places[place].proxy.port(), self.login);
        command.env("DATABASE_URL", address).env_remove("REVEILLE_LISTEN_URL").env_remove("REVEILLE_SCHEMA");
        command.arg("torture-worker").args(&self.arguments);
        command.arg("--journal").arg(&lock(&self.lives)[life].journal);
        if let (Start::Clock(clock), Some(library)) = (start, clock_shifter()) {
            command.env("LD_PRELOAD", library).env("FAKETIME", clock).env("DONT_FAKE_MONOTONIC", "1");
        }
        let stderr = match start {
            Start::LogReadFor(_) => Stdio::piped(),
            _ => File::create(lock(&self.lives)[life].journal.with_extension("stderr"))?.into(),
        };
        if let Start::LogReadFor(_) = start {
            command.env("RUST_LOG", "debug");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("cannot start a worker: {error}"))?;
        if let (Start::LogReadFor(read_for), Some(mut log)) = (start, child.stderr.take()) {
            tokio::spawn(async move {
                let mut sink = tokio::io::sink();
                let reading = tokio::io::copy(&mut log, &mut sink);
                let _ = tokio::time::timeout(read_for, reading).await;
            });
        }
        *now = Some((child, life));
        Ok(())
    }

    /// Stops the worker behind a network with SIGSTOP for the time `lasts`.
    pub async fn freeze(&self, place: usize, lasts: Duration) {
        let Some((pid, life)) = self.current(place).await else { return };
        let since = journal::now();
        signal(pid, Signal::STOP);
        tokio::time::sleep(lasts).await;
        // The worker may have been killed meanwhile, and a new process may have the same process id.
        if self.current(place).await == Some((pid, life)) {
            signal(pid, Signal::CONT);
        }
        lock(&self.lives)[life].frozen.push((since, journal::now()));
    }

    /// Returns the process id of the worker behind a network, and the index of its record.
    async fn current(&self, place: usize) -> Option<(Pid, usize)> {
        let now = self.places[place].now.lock().await;
        let (child, life) = now.as_ref()?;
        Some((Pid::from_raw(child.id()?.try_into().ok()?)?, *life))
    }

    /// Makes a network behave like `network` for the time `lasts`.
    pub async fn network(&self, place: usize, network: Network, lasts: Duration) {
        self.places[place].proxy.set(network);
        tokio::time::sleep(lasts).await;
        self.places[place].proxy.set(Network::Pass);
    }

    /// Starts a worker behind each network whose worker ended by itself or could not be started.
    ///
    /// # Errors
    /// If a worker cannot be started.
    pub async fn replace_ended(&self) -> Result<(), Failure> {
        for place in 0..self.places.len() {
            let ended = match &mut *self.places[place].now.lock().await {
                Some((child, _)) => child.try_wait()?.is_some(),
                None => true,
            };
            if ended {
                self.replace(place, Duration::ZERO, Start::Usual).await?;
            }
        }
        Ok(())
    }

    /// Makes all networks pass all packets.
    pub fn pass_all(&self) {
        self.places.iter().for_each(|place| place.proxy.set(Network::Pass));
    }

    /// Shuts the workers down, and returns the records of all worker processes.
    pub async fn end(self) -> Result<Vec<Life>, Failure> {
        for place in &self.places {
            if let Some((mut child, life)) = place.now.lock().await.take() {
                if child.try_wait()?.is_some() {
                    lock(&self.lives)[life].gave_up = true;
                }
                drop(child.stdin.take());
                child.wait().await?;
            }
        }
        Ok(lock(&self.lives).clone())
    }
}

/// The path of libfaketime, if it is installed.
pub fn clock_shifter() -> Option<&'static str> {
    SHIFTS_CLOCKS.into_iter().find(|library| std::path::Path::new(library).exists())
}

fn signal(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process(pid, signal) {
        tracing::debug!(%error, "cannot signal a worker");
    }
}
