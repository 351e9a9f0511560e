//! Starting this program again, as a process beside it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Under this name Linux knows the program that runs, also when its file has been replaced or removed since.
const RUNNING: &str = "/proc/self/exe";

/// This very program, whatever has become of its file since it was started.
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
