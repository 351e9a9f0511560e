//! Reading lines in bounded pieces.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The number of bytes that are read at once.
const PIECE: usize = 64 * 1024;
/// A buffer that has grown larger than this is given back once it is empty.
const LARGEST_KEPT: usize = 1 << 20;

/// Reads lines of a limited length.
pub struct Lines<R> {
    input: R,
    longest: usize,
    buffer: Vec<u8>,
    /// The place in the buffer at which the next line begins.
    start: usize,
    /// The place in the buffer up to which no end of a line is left.
    searched: usize,
}

/// What ended the reading of lines.
#[derive(Debug)]
pub enum LinesEnd {
    /// The input has ended, or cannot be read. A last line without its end is dropped.
    Input,
    /// A line is longer than the limit.
    TooLong,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(input: R, longest: usize) -> Lines<R> {
        Lines { input, longest, buffer: Vec::new(), start: 0, searched: 0 }
    }

    /// Returns the next line, without its end. If the future is dropped early, no byte is lost.
    pub async fn next(&mut self) -> Result<&[u8], LinesEnd> {
        loop {
            if let Some(length) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                let (start, end) = (self.start, self.searched + length);
                (self.start, self.searched) = (end + 1, end + 1);
                if end - start > self.longest {
                    return Err(LinesEnd::TooLong);
                }
                return Ok(&self.buffer[start..end]);
            }
            self.make_room();
            if self.buffer.len() > self.longest {
                return Err(LinesEnd::TooLong);
            }
            let before = self.buffer.len();
            self.buffer.reserve(PIECE);
            match (&mut self.input).take(PIECE as u64).read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(LinesEnd::Input),
                Ok(_) => self.searched = before,
            }
        }
    }

    /// Drops the lines that were returned.
    fn make_room(&mut self) {
        self.buffer.drain(..self.start);
        (self.start, self.searched) = (0, self.buffer.len());
        if self.buffer.is_empty() && self.buffer.capacity() > LARGEST_KEPT {
            self.buffer = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8], longest: usize) -> (Vec<String>, LinesEnd) {
        let (mut lines, mut found) = (Lines::new(input, longest), Vec::new());
        loop {
            match lines.next().await {
                Ok(line) => found.push(String::from_utf8(line.to_vec()).unwrap()),
                Err(end) => return (found, end),
            }
        }
    }

    #[tokio::test]
    async fn a_line_has_the_longest_length_or_less() {
        let (found, end) = lines(b"one\n\nthree\nha", 5).await;
        assert_eq!(found, ["one", "", "three"]);
        assert!(matches!(end, LinesEnd::Input), "half a line is no line");
        let (found, end) = lines(b"one\nlonger\n", 5).await;
        assert_eq!(found, ["one"]);
        assert!(matches!(end, LinesEnd::TooLong));
    }

    #[tokio::test]
    async fn long_lines_come_in_pieces_and_an_endless_one_is_refused_early() {
        let long = vec![b'x'; 3 * PIECE];
        let input = [&long[..], b"\nb\n", &long, b"\n"].concat();
        let (found, _) = lines(&input, 3 * PIECE).await;
        assert_eq!(found.iter().map(String::len).collect::<Vec<_>>(), [3 * PIECE, 1, 3 * PIECE]);
        let mut endless = Lines::new(tokio::io::repeat(b'x'), 3 * PIECE);
        assert!(matches!(endless.next().await, Err(LinesEnd::TooLong)));
        assert!(endless.buffer.capacity() <= 12 * PIECE, "{}", endless.buffer.capacity());
    }
}
