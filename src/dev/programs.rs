//! Finding the server's programs, and a user that can run them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// The folders into which packages install the programs. Each `*` stands for a version.
const USUAL: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// Returns the folder of `initdb` and `postgres`: `REVEILLE_PG_BIN` if this variable is set. Else this searches
/// `pg_config`'s folder, then PATH, then the usual folders, and returns `None` if no folder has the programs.
pub(super) fn installed() -> Result<Option<PathBuf>> {
    if let Some(folder) = std::env::var_os("REVEILLE_PG_BIN").filter(|folder| !folder.is_empty()) {
        let folder = PathBuf::from(folder);
        return complete(&folder).map(Some).ok_or_else(|| {
            let shown = folder.display();
            Error::unavailable(format!(
                "REVEILLE_PG_BIN is {shown}, which lacks initdb or postgres; set it to the folder of both"
            ))
        });
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = pg_config().into_iter().chain(std::env::split_paths(&path)).chain(usual());
    Ok(folders.filter_map(|folder| complete(&folder)).next())
}

/// Returns the folder with links resolved, if the folder has both programs.
pub(super) fn complete(folder: &Path) -> Option<PathBuf> {
    let initdb = fs::canonicalize(folder.join("initdb")).ok()?;
    let bin = initdb.parent()?;
    bin.join("postgres").is_file().then(|| bin.to_owned())
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !folder.trim().is_empty()).then(|| PathBuf::from(folder.trim()))
}

/// Returns the usual folders that exist. For each pattern, the newest version comes first.
fn usual() -> Vec<PathBuf> {
    USUAL.iter().flat_map(|pattern| versions(pattern)).collect()
}

fn versions(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![pattern.into()] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
            Some((version, PathBuf::from(format!("{}{after}", entry.path().display()))))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// Returns the user and group as which the server has to run; `None` if the server can run as this process's user.
///
/// Servers refuse to run as root. For root, this returns the user `postgres`, or else `nobody`.
pub(super) fn server_user() -> Result<Option<(u32, u32)>> {
    if effective_uid()? != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
        Some((fields.next()??, fields.next()??))
    };
    find("postgres").or_else(|| find("nobody")).map(Some).ok_or_else(|| {
        Error::unavailable(
            "postgres refuses to run as root, and there is no user postgres or nobody; run this as another user",
        )
    })
}

pub(super) fn effective_uid() -> Result<u32> {
    if let Ok(metadata) = fs::metadata("/proc/self") {
        return Ok(metadata.uid());
    }
    let output = Command::new("id").arg("-u").output();
    let uid = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok());
    uid.ok_or_else(|| Error::unavailable("cannot find out which user this process runs as"))
}
