//! Reading the output of a program. Only the useful part is kept.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The number of stderr's last lines that are kept as the error.
const LAST_LINES: usize = 20;
/// The number of characters that are kept of each line of the error.
const LONGEST_LINE: usize = 1000;
/// The number of bytes of a line that are passed on to the worker's stderr. The rest of the line is dropped.
const LONGEST_PASSED_ON: usize = 8 * 1024;
/// The largest result in bytes: 1 MiB of stdout.
pub const LONGEST_RESULT: usize = 1 << 20;
/// The time for which a program's output is read after its end. A process that the program has left in the background
/// may hold stdout or stderr open.
pub const READ_ON: Duration = Duration::from_millis(200);
/// The number of bytes that are read at once.
const PIECE: usize = 8 * 1024;

/// The last lines that a program prints on stderr.
#[derive(Default)]
pub struct LastLines {
    lines: VecDeque<String>,
    /// The line that is being read, up to the limit of a line.
    line: Vec<u8>,
}

impl LastLines {
    /// Reads stderr to its end, and passes each line on to the worker's own stderr.
    pub async fn read(&mut self, stderr: Option<impl AsyncRead + Unpin>) {
        let Some(mut stderr) = stderr else { return };
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = stderr.read(&mut piece).await {
            self.add(&piece[..length]);
        }
    }

    /// Adds a piece of stderr, and passes each line that the piece ends on to the worker's own stderr.
    pub fn add(&mut self, piece: &[u8]) {
        let mut lines = piece.split(|&byte| byte == b'\n');
        // The first part of this piece continues the last line of the previous piece.
        self.extend_line(lines.next().unwrap_or_default());
        for line in lines {
            self.end_line();
            self.extend_line(line);
        }
    }

    fn extend_line(&mut self, part: &[u8]) {
        let room = LONGEST_PASSED_ON - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        say!("{line}");
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.chars().take(LONGEST_LINE).collect());
        self.line.clear();
    }

    /// Returns the kept lines as one text.
    pub fn into_text(mut self) -> String {
        if !self.line.is_empty() {
            self.end_line();
        }
        Vec::from(self.lines).join("\n")
    }
}

/// Reads a program's stdout to its end. Keeps at most one byte more than a result may have: the extra byte shows that
/// the result is too large.
pub async fn read_result(stdout: Option<impl AsyncRead + Unpin>, output: &mut Vec<u8>) {
    let Some(mut stdout) = stdout else { return };
    let most = LONGEST_RESULT as u64 + 1;
    let _ = (&mut stdout).take(most).read_to_end(output).await;
    // The rest of stdout is read and dropped, so that the program does not wait for a reader.
    let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(pieces: &[&[u8]]) -> String {
        let mut last = LastLines::default();
        pieces.iter().for_each(|piece| last.add(piece));
        last.into_text()
    }

    #[test]
    fn lines_are_the_same_in_whatever_pieces_they_come() {
        assert_eq!(last(&[b"one\ntwo\nthree"]), "one\ntwo\nthree");
        assert_eq!(last(&[b"on", b"e", b"\n", b"two\nth", b"", b"ree\n"]), "one\ntwo\nthree");
        assert_eq!(last(&[b"\n\nx"]), "\n\nx");
    }

    #[test]
    fn endless_lines_and_countless_lines_are_cut_to_the_limit() {
        let long = last(&[&[b'x'; 5000], &[b'y'; 5000], b"\nend"]);
        assert_eq!(long, format!("{}\nend", "x".repeat(LONGEST_LINE)));
        let mut endless = LastLines::default();
        (0..1000).for_each(|_| endless.extend_line(&[0; PIECE]));
        assert!(endless.line.capacity() <= 2 * LONGEST_PASSED_ON);
        let many = (0..100).map(|n| format!("{n}\n")).collect::<String>();
        assert_eq!(last(&[many.as_bytes()]).lines().collect::<Vec<_>>()[0], "80");
    }
}
