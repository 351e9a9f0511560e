use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::{fetch, programs};
use crate::error::{Error, Result};

/// The longest wait for the server's start: long enough for a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A private Postgres server in a temporary folder, on a free port of 127.0.0.1.
///
/// When this value is dropped, or when this process ends in any way, the server stops and its folder is removed. If
/// this process runs as root, the server runs as `postgres` or `nobody`, since servers refuse to run as root.
#[derive(Debug)]
pub struct Server {
    supervisor: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
    pub(super) password: String,
    port: u16,
    pub(super) bin: PathBuf,
    pub(super) options: ServerOptions,
}

/// Options to start a [`Server`] with; made by [`Server::options`].
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    fsync: bool,
    settings: Vec<(String, String)>,
}

/// The way in which [`Server::restart`] stops the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions end, and everything is written to disk.
    Fast,
    /// The server stops as in a crash, and recovers when it starts again.
    Immediate,
}

/// A server that outlives this process; made by [`Server::keep`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Kept {
    /// The URL of the server's database `postgres`.
    pub url: String,
    /// The server's folder.
    pub folder: PathBuf,
    /// A shell command that stops the server and removes its folder.
    pub stop_command: String,
}

impl Server {
    /// Starts a server with the default options.
    ///
    /// # Errors
    /// Unavailable if Postgres can be neither found nor fetched, or the server does not start.
    pub fn start() -> Result<Server> {
        Server::options().start()
    }

    /// Returns options to start a server with.
    pub fn options() -> ServerOptions {
        ServerOptions::default()
    }

    /// Returns the URL of a database on this server. The database need not exist.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Returns the port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Stops the server and starts it again, with the same port and data.
    ///
    /// # Errors
    /// Unavailable if the server does not start again.
    pub fn restart(&mut self, stop: Stop) -> Result<()> {
        let signal = match stop {
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
        };
        self.command(&format!("stop {signal}"))?;
        self.command(&format!("start {}", self.port))?;
        if self.is_ready()? { Ok(()) } else { Err(self.failed("did not start again")) }
    }

    /// Lets the server run on after this process has ended.
    ///
    /// # Errors
    /// Unavailable if the server does not run.
    pub fn keep(mut self) -> Result<Kept> {
        // The stop command holds the process id that the file has now. The command does not read the file itself: root
        // may run the command, and the server's user may have changed the file by then.
        let pid_file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let pid = pid_file.lines().next().and_then(|line| line.parse::<u32>().ok()).filter(|pid| *pid > 1);
        let pid = pid.ok_or_else(|| self.failed("does not run"))?;
        self.command("keep")?;
        let (url, folder) = (self.url("postgres"), self.folder.clone());
        let shown = folder.display();
        let stop_command = format!(
            "if [ -e {shown}/data/postmaster.pid ]; then kill -QUIT {pid}; while kill -0 {pid}; do sleep 0.1; done; \
             fi 2>/dev/null; rm -rf {shown}"
        );
        Ok(Kept { url, folder, stop_command })
    }

    /// Makes the server's folder. `source` is the data directory to copy; with `None`, this makes a new database.
    pub(super) fn initialise(
        bin: &Path,
        options: &ServerOptions,
        password: String,
        source: Option<&Path>,
    ) -> Result<Server> {
        let user = programs::server_user()?;
        let folder = private_folder(&password, user)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", include_str!("supervise.sh"), "reveille-supervisor"])
            .args([&folder, bin, source.unwrap_or(Path::new(""))])
            .args(options.arguments())
            .current_dir("/")
            .env("LC_ALL", "C")
            // Ctrl-C in a terminal must reach this process alone: the server stops once this process has ended.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        let mut supervisor = command.spawn().map_err(|error| cannot("run sh", &error))?;
        let commands = supervisor.stdin.take();
        let answers = supervisor.stdout.take().map(BufReader::new);
        let answers = answers.ok_or_else(|| Error::unavailable("the server's supervisor has no stdout"))?;
        let (bin, options) = (bin.to_owned(), options.clone());
        let mut server = Server { supervisor, commands, answers, folder, password, port: 0, bin, options };
        match server.answer()?.as_str() {
            "initialised" => Ok(server),
            _ => Err(server.failed("could not be initialised")),
        }
    }

    pub(super) fn start_on_a_free_port(mut self) -> Result<Server> {
        for _ in 0..5 {
            self.port = free_port()?;
            self.command(&format!("start {}", self.port))?;
            if self.is_ready()? {
                return Ok(self);
            }
            // Another program may have taken the port, so the next try takes another port.
        }
        Err(self.failed("did not start"))
    }

    fn command(&mut self, command: &str) -> Result<String> {
        let gone = |error: &std::io::Error| cannot("write to the server's supervisor", error);
        if let Some(commands) = &mut self.commands {
            writeln!(commands, "{command}").map_err(|error| gone(&error))?;
        }
        self.answer()
    }

    /// Appends lines to a file in the server's folder, as the server's user.
    pub(super) fn append(&mut self, file: &str, text: &str) -> Result<()> {
        let lines: Vec<&str> = text.lines().collect();
        let command: Vec<String> = std::iter::once(format!("append {file} {}", lines.len()))
            .chain(lines.into_iter().map(str::to_owned))
            .collect();
        match self.command(&command.join("\n"))?.as_str() {
            "appended" => Ok(()),
            _ => Err(Error::unavailable(format!("throw-away server: cannot write {file}"))),
        }
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(Error::unavailable("the throw-away server's supervisor has ended")),
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(cannot("read from the server's supervisor", &error)),
        }
    }

    /// Waits until the server accepts connections. Returns false if the server has ended instead.
    fn is_ready(&self) -> Result<bool> {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            // The eighth line of `postmaster.pid` is the server's state.
            let state = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|state| state.trim() == "ready") {
                return Ok(true);
            }
            if self.folder.join("exited").exists() {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(self.failed("was not ready within a minute"))
    }

    fn failed(&self, what: &str) -> Error {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        let last: Vec<&str> = lines.into_iter().rev().collect();
        Error::unavailable(format!("the throw-away server {what}: {}", last.join("; ")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.supervisor.wait();
    }
}

impl ServerOptions {
    /// Turns `fsync` on or off: with `fsync`, commits wait for the disk. Default: off, since the data is thrown away.
    /// Benchmarks need it on.
    pub fn fsync(mut self, fsync: bool) -> ServerOptions {
        self.fsync = fsync;
        self
    }

    /// Adds a setting, as in `postgresql.conf`.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> ServerOptions {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Starts a server with these options.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start(&self) -> Result<Server> {
        let bin = match programs::installed()? {
            Some(bin) => bin,
            None => fetch::private_copy()?,
        };
        let password = secret()?;
        Server::initialise(&bin, self, password, None)?.start_on_a_free_port()
    }

    fn arguments(&self) -> Vec<String> {
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("max_connections", "200"),
            ("logging_collector", "off"),
        ];
        if !self.fsync {
            settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        let added = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        settings
            .into_iter()
            .chain(added)
            .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
            .collect()
    }
}

/// Makes a folder that only the server's user may enter, and writes the password to a file in the folder.
///
/// Once root has given the folder to the server's user, this process writes nothing there, because that user may plant
/// links that lead elsewhere.
fn private_folder(password: &str, user: Option<(u32, u32)>) -> Result<PathBuf> {
    let name = format!("reveille-pg-{}-{:08x}", std::process::id(), fastrand::u32(..));
    // The server's user may be unable to enter a TMPDIR below another user's home.
    let temporary = std::env::temp_dir();
    let open = fs::metadata(&temporary).is_ok_and(|metadata| metadata.mode() & 0o1001 == 0o1001);
    let parent = if user.is_some() && !open { PathBuf::from("/tmp") } else { temporary };
    let folder = parent.join(name);
    let made = fs::DirBuilder::new().mode(0o700).create(&folder).and_then(|()| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join("password"))?;
        file.write_all(password.as_bytes())?;
        let Some((uid, gid)) = user else { return Ok(()) };
        fchown(&file, Some(uid), Some(gid))?;
        lchown(&folder, Some(uid), Some(gid))
    });
    made.map_err(|error| cannot("make a temporary folder", &error))?;
    Ok(folder)
}

/// Makes a random password.
fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::unavailable(format!("throw-away server: cannot make a password: {error}")))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

fn free_port() -> Result<u16> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|error| cannot("find a free port", &error))
}

pub(super) fn cannot(what: &str, error: &std::io::Error) -> Error {
    Error::unavailable(format!("throw-away server: cannot {what}: {error}"))
}
