//! A child whose handlers do nothing, for `bench pipe`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;

use serde::Deserialize;

use super::message::LONGEST_LINE;
use crate::output;

/// The number of bytes that are read or written at once.
const PIECE: usize = 64 * 1024;

#[derive(Deserialize)]
struct WorkerMessage<'a> {
    #[serde(rename = "type", borrow)]
    name: &'a str,
    run: Option<u64>,
}

/// Answers each job with `done`, until the worker says `stop` or standard input ends.
pub fn run() -> ExitCode {
    match answer_all(io::stdin().lock(), &mut output::messages()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("a child that does nothing has failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer_all(input: impl Read, output: &mut impl Write) -> io::Result<()> {
    let (mut input, mut line, mut answers) = (BufReader::with_capacity(PIECE, input), Vec::new(), Vec::new());
    loop {
        line.clear();
        if (&mut input).take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let message: WorkerMessage<'_> = serde_json::from_slice(&line)?;
        match (message.name, message.run) {
            ("hello", _) => writeln!(answers, "{{\"type\":\"ready\",\"version\":1}}")?,
            ("job", Some(run)) => writeln!(answers, "{{\"type\":\"done\",\"run\":{run}}}")?,
            ("stop", _) => return output.write_all(&answers).and_then(|()| output.flush()),
            ("cancel" | "answer", _) => {}
            _ => return Err(io::Error::other("a message of an unknown type")),
        }
        // One write answers all lines that came together.
        if input.buffer().is_empty() || answers.len() >= PIECE {
            output.write_all(&answers)?;
            output.flush()?;
            answers.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_answered_until_the_worker_says_stop() {
        let input = br#"{"type":"hello","versions":[1]}
{"type":"job","run":7,"payload":{}}
{"type":"stop"}
{"type":"job","run":8,"payload":{}}
"#;
        let mut output = Vec::new();
        answer_all(&input[..], &mut output).unwrap();
        assert_eq!(output, b"{\"type\":\"ready\",\"version\":1}\n{\"type\":\"done\",\"run\":7}\n");
        assert!(answer_all(&b"{\"type\":\"surprise\"}\n"[..], &mut Vec::new()).is_err());
    }
}
