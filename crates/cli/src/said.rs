//! What a program says, read without keeping more of it than can be of use.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt};

/// How many lines of stderr are kept as the error.
const LAST_LINES: usize = 20;
/// How many characters of each.
const LONGEST_LINE: usize = 1000;
/// How many bytes of a line are passed on; the rest of it is dropped.
const LONGEST_PASSED_ON: usize = 8 * 1024;
/// How many bytes of stdout can be a result.
pub const LONGEST_RESULT: usize = 1 << 20;
/// How much is read at once.
const PIECE: usize = 8 * 1024;

/// The last lines that a program says on stderr.
#[derive(Default)]
pub struct LastLines {
    lines: VecDeque<String>,
    /// The line that has no end yet, up to its limit.
    line: Vec<u8>,
}

impl LastLines {
    /// Reads to the end, and passes each line on to the worker's own stderr.
    pub async fn listen(&mut self, stderr: Option<impl AsyncRead + Unpin>) {
        let Some(mut stderr) = stderr else { return };
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = stderr.read(&mut piece).await {
            self.hear(&piece[..length]);
        }
    }

    fn hear(&mut self, piece: &[u8]) {
        let mut lines = piece.split(|&byte| byte == b'\n');
        // What precedes the first line's end goes on with the line before.
        self.go_on(lines.next().unwrap_or_default());
        for line in lines {
            self.end_line();
            self.go_on(line);
        }
    }

    fn go_on(&mut self, part: &[u8]) {
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

    /// All of them as one text.
    pub fn into_text(mut self) -> String {
        if !self.line.is_empty() {
            self.end_line();
        }
        Vec::from(self.lines).join("\n")
    }
}

/// Reads to the end what a program prints on stdout, and keeps no more than shows that it is too much.
pub async fn result(stdout: Option<impl AsyncRead + Unpin>, output: &mut Vec<u8>) {
    let Some(mut stdout) = stdout else { return };
    let most = LONGEST_RESULT as u64 + 1;
    let _ = (&mut stdout).take(most).read_to_end(output).await;
    // The program is not to wait for a reader.
    let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(pieces: &[&[u8]]) -> String {
        let mut last = LastLines::default();
        pieces.iter().for_each(|piece| last.hear(piece));
        last.into_text()
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut_into_pieces() {
        assert_eq!(last(&[b"one\ntwo\nthree"]), "one\ntwo\nthree");
        assert_eq!(last(&[b"on", b"e", b"\n", b"two\nth", b"", b"ree\n"]), "one\ntwo\nthree");
        assert_eq!(last(&[b"\n\nx"]), "\n\nx");
    }

    #[test]
    fn of_a_line_without_end_and_of_lines_without_number_the_limit_is_kept() {
        let long = last(&[&[b'x'; 5000], &[b'y'; 5000], b"\nend"]);
        assert_eq!(long, format!("{}\nend", "x".repeat(LONGEST_LINE)));
        let mut endless = LastLines::default();
        (0..1000).for_each(|_| endless.go_on(&[0; PIECE]));
        assert!(endless.line.capacity() <= 2 * LONGEST_PASSED_ON);
        let many = (0..100).map(|n| format!("{n}\n")).collect::<String>();
        assert_eq!(last(&[many.as_bytes()]).lines().collect::<Vec<_>>()[0], "80");
    }
}
