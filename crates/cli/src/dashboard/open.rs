//! Opens the pages in a browser.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The time after which the browser has surely read the file.
const FILE_LIFE: Duration = Duration::from_secs(60);

/// Opens a link that has a token.
///
/// All users of the machine can see the arguments of its programs, so the browser gets the name of a file that only
/// this user can read. The file leads to the link.
pub fn open(link: &str, stop: CancellationToken) {
    let opened = write(link).and_then(|file| {
        let started = start(&file);
        tokio::spawn(async move {
            stop.run_until_cancelled(tokio::time::sleep(FILE_LIFE)).await;
            let _ = fs::remove_file(file);
        });
        started
    });
    if let Err(error) = opened {
        say!("cannot start a browser ({error}); open the address yourself");
    }
}

fn start(file: &Path) -> io::Result<()> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let (input, output, errors) = (Stdio::null(), Stdio::null(), Stdio::null());
    Command::new(program).arg(file).stdin(input).stdout(output).stderr(errors).spawn().map(drop)
}

/// Writes a page that leads to the link.
fn write(link: &str) -> io::Result<PathBuf> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_dir());
    let folder = folder.unwrap_or_else(std::env::temp_dir);
    let file = folder.join(format!("reveille-dashboard-{:016x}.html", fastrand::u64(..)));
    // The file must be new: somebody else could have put one there.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?.write_all(page(link).as_bytes())?;
    Ok(file)
}

fn page(link: &str) -> String {
    let link = link.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>Reveille</title>\
         <meta http-equiv=\"refresh\" content=\"0; url={link}\"><a href=\"{link}\">Reveille</a>"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_user_can_read_the_link() {
        let file = write("http://127.0.0.1:7070/?token=a\"b").unwrap();
        let (mode, text) = (fs::metadata(&file).unwrap().permissions().mode(), fs::read_to_string(&file).unwrap());
        fs::remove_file(file).unwrap();
        assert_eq!(mode & 0o777, 0o600);
        assert!(text.contains("url=http://127.0.0.1:7070/?token=a&quot;b\""), "{text}");
    }
}
