//! A throw-away server leaves no file and no process behind.

use std::path::Path;
use std::process::Command;

use crate::harness::eventually;

/// Returns true if the command line of any process names the folder.
fn is_in_use(folder: &Path) -> bool {
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|command| String::from_utf8_lossy(&command).contains(&name))
}

/// Returns the folders of all throw-away servers.
fn server_folders() -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.path());
    entries
        .filter(|path| path.file_name().unwrap().to_str().is_some_and(|name| name.starts_with("reveille-pg-")))
        .collect()
}

/// Starts a demo, calls `then` with the process id of its server, and kills the demo. Waits until the server's
/// processes and files are gone.
async fn kill_the_parent(then: impl Fn(&str)) {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_reveille"))
        .arg("demo")
        .env_remove("DATABASE_URL")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let prefix = format!("reveille-pg-{}-", demo.id());
    let folder =
        || server_folders().into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
    // Waits for the line "ready". Before, the file may have the negated id of another process, which must get no
    // signal.
    let postmaster = || {
        let file = std::fs::read_to_string(folder()?.join("data/postmaster.pid")).ok()?;
        file.lines().any(|line| line.trim() == "ready").then(|| file.lines().next()?.parse::<u32>().ok())?
    };
    eventually("the demo's server is up", async || postmaster().is_some()).await;
    let (folder, postmaster) = (folder().unwrap(), postmaster().unwrap());
    then(&postmaster.to_string());
    demo.kill().unwrap();
    demo.wait().unwrap();
    eventually("the server's processes and files are gone", async || !folder.exists() && !is_in_use(&folder)).await;
}

#[tokio::test]
async fn a_server_whose_parent_is_killed_leaves_nothing() {
    kill_the_parent(|_| {}).await;
}

#[tokio::test]
async fn a_frozen_server_whose_parent_is_killed_leaves_nothing() {
    kill_the_parent(|pid| assert!(Command::new("kill").args(["-STOP", pid]).status().unwrap().success())).await;
}

#[test]
fn a_folder_without_the_programs_is_one_clear_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_reveille"))
        .arg("demo")
        .env_remove("DATABASE_URL")
        .env("REVEILLE_PG_BIN", "/nonexistent")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        error,
        "error: REVEILLE_PG_BIN is /nonexistent, which lacks initdb or postgres; set it to the folder of both\n"
    );
}
