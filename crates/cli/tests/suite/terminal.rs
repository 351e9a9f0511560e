//! A terminal for the tests' commands.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::harness::eventually;

fn size(lines: u16, columns: u16) -> Winsize {
    Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal of 24 lines, and all that commands have written to it.
pub struct Terminal {
    keys: File,
    /// The side of the commands. While it is open, the terminal stays.
    slave: File,
    shown: Arc<Mutex<(vt100::Parser, Vec<u8>)>>,
}

impl Terminal {
    pub fn open(columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, size(24, columns)).unwrap();
        let slave = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(slave).unwrap();
        let keys = File::from(master);
        let shown = Arc::new(Mutex::new((vt100::Parser::new(24, columns, 0), Vec::new())));
        let (mut screen, showing) = (keys.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                let (parser, written) = &mut *showing.lock().unwrap();
                parser.process(&piece[..length]);
                written.extend(&piece[..length]);
            }
        });
        Terminal { keys, slave, shown }
    }

    /// Returns the terminal as the stdin, stdout or stderr of a command.
    pub fn end(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    pub fn resize(&mut self, lines: u16, columns: u16) {
        self.shown.lock().unwrap().0.screen_mut().set_size(lines, columns);
        tcsetwinsize(&self.keys, size(lines, columns)).unwrap();
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Returns what the terminal shows.
    pub fn contents(&self) -> String {
        self.shown.lock().unwrap().0.screen().contents()
    }

    /// Returns all that commands have written.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap().1).into_owned()
    }

    /// Waits until the terminal shows `part`.
    pub async fn until(&self, part: &str) {
        eventually(part, async || self.contents().contains(part)).await;
    }

    /// Waits until the terminal shows exactly this text.
    pub async fn until_only(&self, text: &str) {
        eventually(text, async || self.contents() == text).await;
    }

    /// Waits until the terminal shows no text with this part.
    pub async fn until_no(&self, part: &str) {
        eventually(part, async || !self.contents().contains(part)).await;
    }

    /// Waits until the former screen is back, and checks that keys are echoed again.
    pub async fn until_restored(&self) {
        let restored = async || !self.shown.lock().unwrap().0.screen().alternate_screen();
        eventually("the former screen is back", restored).await;
        let local = tcgetattr(&self.keys).unwrap().local_modes;
        assert!(local.contains(LocalModes::ICANON | LocalModes::ECHO), "{local:?}");
    }
}
