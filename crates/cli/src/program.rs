//! Starting this program again as another process.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The path by which Linux runs this very program, even if the program's file has been replaced or removed.
const RUNNING: &str = "/proc/self/exe";

/// Returns a command that starts this very program: on Linux, even if the program's file has changed.
pub fn again() -> std::io::Result<Command> {
    if !Path::new(RUNNING).exists() {
        return Ok(Command::new(std::env::current_exe()?));
    }
    let mut command = Command::new(RUNNING);
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    Ok(command)
}
