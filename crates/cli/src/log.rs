//! Writing the log to stderr.

use std::io::{self, Write};

use crate::output;

/// A writer that hides all errors, so that a closed log or a full disk fails no job.
pub struct Patient<W>(pub W);

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let _alone = output::remove_progress();
        let _ = self.0.write_all(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}
