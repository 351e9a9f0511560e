//! What the worker knows of one child: its runs, and the lines that it has not taken yet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use reveille::handler::KeptSlot;
use tokio::sync::Notify;

use super::message;
use super::run::{RunEnd, RunEvents};

/// The most bytes that are written at once, unless a single line is longer.
const BATCH: usize = 256 * 1024;

/// Where a child is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The child has not said that it is ready.
    Starting,
    Ready,
    /// The child gets no further jobs, and is to exit.
    Stopping,
    /// The child has exited, or is being killed.
    Ended,
}

/// Wakes the tasks of one child.
#[derive(Default)]
pub struct Wakes {
    /// There are lines to write.
    pub writer: Notify,
    /// The next step of the child's life may have changed.
    pub life: Notify,
}

pub struct ChildState {
    pub stage: Stage,
    /// The kinds that the child has handlers for; `None`: all.
    pub kinds: Option<HashSet<String>>,
    pub runs: HashMap<u64, Run>,
    /// The number of runs of each queue.
    pub busy: Vec<usize>,
    /// True while the child's only run is that of a job whose last child died.
    pub is_alone: bool,
    /// The number of the last run.
    last_run: u64,
    /// The number of the last run whose line was written, or is being written. The child may answer this run and those
    /// before it.
    given: u64,
    outbox: VecDeque<Line>,
    /// True while lines that were taken are being written.
    is_writing: bool,
    /// The number of the child's requests without an answer.
    pub requests: usize,
    pub has_been_ready: bool,
    /// The time at which the child was found to take no more input.
    pub input_closed: Option<Instant>,
    /// True once a message about an ended run was logged as a warning.
    pub has_warned: bool,
    /// True once the child has to be killed, and its runs go back.
    pub is_killed: bool,
    /// The time at which the runs of a stopping child have to be over.
    pub grace_until: Option<Instant>,
    /// The time at which the child has to have exited.
    pub exit_until: Option<Instant>,
    pub started: Instant,
    pub wakes: Arc<Wakes>,
}

/// A run that has not been answered.
pub struct Run {
    /// The place of the job's queue among the worker's queues.
    pub queue: usize,
    pub job: i64,
    pub events: Arc<RunEvents>,
    /// The time at which the attempt ended without an answer.
    pub abandoned: Option<Instant>,
    /// The worker's slot, which is free again when the run ends.
    pub _slot: KeptSlot,
}

struct Line {
    /// The number of the run that this line gives; `None` for another message.
    run: Option<u64>,
    text: Vec<u8>,
}

/// What became of a message about a run.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// The run is open.
    Open,
    /// The run has ended.
    Ended,
    /// The child was never given this run.
    NeverGiven,
}

impl ChildState {
    pub fn new(queues: usize) -> ChildState {
        ChildState {
            stage: Stage::Starting,
            kinds: None,
            runs: HashMap::new(),
            busy: vec![0; queues],
            is_alone: false,
            last_run: 0,
            given: 0,
            outbox: VecDeque::new(),
            is_writing: false,
            requests: 0,
            has_been_ready: false,
            input_closed: None,
            has_warned: false,
            is_killed: false,
            grace_until: None,
            exit_until: None,
            started: Instant::now(),
            wakes: Arc::default(),
        }
    }

    pub fn knows(&self, kind: &str) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind))
    }

    /// Adds a run, and queues its line. Returns the run's number.
    pub fn give(&mut self, run: Run, line: &[u8]) -> u64 {
        self.last_run += 1;
        let number = self.last_run;
        self.busy[run.queue] += 1;
        self.runs.insert(number, run);
        let text = [message::job_of_run(number).as_bytes(), line].concat();
        self.outbox.push_back(Line { run: Some(number), text });
        self.wakes.writer.notify_one();
        number
    }

    /// Queues a line that gives no run.
    pub fn send(&mut self, text: Vec<u8>) {
        self.outbox.push_back(Line { run: None, text });
        self.wakes.writer.notify_one();
    }

    /// Returns true if lines wait to be written, or are being written.
    pub fn has_lines(&self) -> bool {
        !self.outbox.is_empty() || self.is_writing
    }

    /// Takes lines to write; the lines that were taken before are written. From now on the child may answer the runs
    /// that these lines give.
    pub fn take_lines(&mut self) -> Vec<u8> {
        let mut batch = Vec::new();
        while self.outbox.front().is_some_and(|line| batch.is_empty() || batch.len() + line.text.len() <= BATCH) {
            let Some(line) = self.outbox.pop_front() else { break };
            self.given = line.run.unwrap_or(self.given);
            if batch.is_empty() {
                batch = line.text;
            } else {
                batch.extend_from_slice(&line.text);
            }
        }
        self.is_writing = !batch.is_empty();
        if self.stage == Stage::Stopping {
            self.wakes.life.notify_one();
        }
        batch
    }

    pub fn known(&self, run: u64) -> Known {
        match run {
            _ if run == 0 || run > self.given => Known::NeverGiven,
            _ if self.runs.contains_key(&run) => Known::Open,
            _ => Known::Ended,
        }
    }

    /// Returns true if no byte of the run's line was written.
    pub fn is_unsent(&self, run: u64) -> bool {
        run > self.given
    }

    /// Takes a run back whose line was not written.
    pub fn take_back(&mut self, run: u64) {
        self.outbox.retain(|line| line.run != Some(run));
        self.end(run, RunEnd::Released);
    }

    /// Ends a run.
    pub fn end(&mut self, run: u64, end: RunEnd) {
        let Some(Run { queue, events, .. }) = self.runs.remove(&run) else { return };
        self.busy[queue] -= 1;
        self.is_alone = false;
        events.end(end);
        if self.stage == Stage::Stopping {
            self.wakes.life.notify_one();
        }
    }

    /// Tells the child that no further jobs come.
    pub fn stop(&mut self) {
        if matches!(self.stage, Stage::Starting | Stage::Ready) {
            self.stage = Stage::Stopping;
            self.send(message::stop());
            self.wakes.life.notify_one();
        }
    }

    /// The runs whose attempts have ended without an answer.
    pub fn abandoned(&self) -> impl Iterator<Item = Instant> {
        self.runs.values().filter_map(|run| run.abandoned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_may_be_answered_only_once_its_line_is_being_written() {
        let mut child = ChildState::new(1);
        assert_eq!(child.known(0), Known::NeverGiven);
        child.send(vec![b'x'; BATCH]);
        child.outbox.push_back(Line { run: Some(1), text: vec![b'y'] });
        child.last_run = 1;
        assert_eq!(child.take_lines().len(), BATCH);
        assert_eq!(child.known(1), Known::NeverGiven, "its line waits behind a long one");
        assert_eq!(child.take_lines(), b"y");
        assert_eq!((child.known(1), child.known(2)), (Known::Ended, Known::NeverGiven));
        assert!(child.take_lines().is_empty());
    }
}
