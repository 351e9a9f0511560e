//! All children of a worker: which child gets the next job, and how many jobs the worker may claim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reveille::handler::StopReason;
use reveille::worker::SlotLimits;
use reveille::{Context, Outcome};
use tokio::sync::{Notify, watch};

use super::child_state::{ChildState, Run, Stage, Wakes};
use super::message;
use super::run::{GivenRun, RunEnd, RunEvents};

/// The time for which a child stays reserved for a job that has left to come again.
const RESERVED_FOR: Duration = Duration::from_secs(10);

/// A queue, and the number of its jobs that one child runs at once.
pub struct Share {
    pub queue: String,
    pub each: usize,
}

/// The children of one worker.
pub struct Fleet {
    shares: Vec<Share>,
    limits: SlotLimits,
    state: Mutex<FleetState>,
    /// Notified when a run has ended or a child has changed.
    freed: Notify,
    /// True once a child was ready.
    pub was_ready: watch::Sender<bool>,
}

#[derive(Default)]
pub struct FleetState {
    pub children: BTreeMap<u64, ChildState>,
    last_child: u64,
    reserved: Option<Reserved>,
    /// True once no child gets further jobs.
    pub is_stopping: bool,
}

/// A child that gets nothing new, until it holds nothing and can take one job whose last child died.
struct Reserved {
    child: u64,
    job: i64,
    /// True if the job no longer waits. It may come again.
    has_left: bool,
}

/// What became of a job that looks for a child.
enum Search {
    Found(u64),
    Refused(Outcome),
    Wait,
}

impl Fleet {
    /// Makes a fleet without children. `limits`: the slots of the worker, which are 0 until a child is ready.
    pub fn new(shares: Vec<Share>, limits: SlotLimits) -> Arc<Fleet> {
        let fleet = Fleet {
            shares,
            limits,
            state: Mutex::default(),
            freed: Notify::new(),
            was_ready: watch::Sender::default(),
        };
        fleet.update(&mut fleet.lock());
        Arc::new(fleet)
    }

    pub fn queues(&self) -> Vec<&str> {
        self.shares.iter().map(|share| &*share.queue).collect()
    }

    /// The most runs that one child has at once.
    pub fn slots_of_child(&self) -> usize {
        self.shares.iter().map(|share| share.each).sum()
    }

    /// Adds a child that was just started. Returns its number, and what wakes its tasks.
    pub fn add(&self) -> (u64, Arc<Wakes>) {
        let mut state = self.lock();
        state.last_child += 1;
        let (number, mut child) = (state.last_child, ChildState::new(self.shares.len()));
        child.send(message::hello(&self.queues(), self.slots_of_child()));
        if state.is_stopping {
            child.stop();
        }
        let wakes = Arc::clone(&child.wakes);
        state.children.insert(number, child);
        (number, wakes)
    }

    /// Removes a child that has ended. `cause`: the error of its runs; `None` if they go back.
    pub fn remove(&self, number: u64, cause: Option<&str>) -> usize {
        let mut state = self.lock();
        let Some(mut child) = state.children.remove(&number) else { return 0 };
        let runs: Vec<u64> = child.runs.keys().copied().collect();
        let sent = runs.iter().filter(|run| !child.is_unsent(**run)).count();
        let error: Option<Arc<str>> = cause.map(|cause| lost(cause, sent).into());
        for run in runs {
            let error = error.clone().filter(|_| !child.is_unsent(run));
            child.end(run, error.map_or(RunEnd::Released, RunEnd::Lost));
        }
        if state.reserved.as_ref().is_some_and(|reserved| reserved.child == number) {
            state.reserved = None;
        }
        self.update(&mut state);
        sent
    }

    /// Tells all children that no further jobs come.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        state.children.values_mut().for_each(ChildState::stop);
        self.update(&mut state);
    }

    /// The kinds of the children that are ready; `None` if one of them works all kinds, or if none is ready any more.
    pub fn kinds(&self) -> Option<BTreeSet<String>> {
        let state = self.lock();
        let ready = || state.children.values().filter(|child| child.stage == Stage::Ready);
        ready().next()?;
        ready().map(|child| child.kinds.clone()).try_fold(BTreeSet::new(), |mut all, kinds| {
            all.extend(kinds?);
            Some(all)
        })
    }

    /// Gives the job to a child, as soon as one can take it. `is_alone`: to one that holds nothing else.
    ///
    /// # Errors
    /// The outcome of a job that no child takes.
    pub async fn give(self: &Arc<Fleet>, context: &Context, is_alone: bool) -> Result<GivenRun, Outcome> {
        let line = message::job(context).map_err(Outcome::Fail)?;
        let cancellation = context.cancellation();
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            match self.try_give(context, is_alone, &line) {
                Ok(Some(given)) => return Ok(given),
                Ok(None) => {}
                Err(outcome) => return Err(outcome),
            }
            tokio::select! {
                () = freed => {}
                () = cancellation.cancelled() => {
                    self.leave(context.id(), cancellation.reason() == Some(StopReason::TimedOut));
                    return Err(Outcome::Release);
                }
            }
        }
    }

    /// Notes that a job no longer waits. If the job comes again at once, its child stays reserved for a while.
    fn leave(self: &Arc<Fleet>, job: i64, comes_again: bool) {
        let is_of_job = move |reserved: &Reserved| reserved.job == job;
        let mut state = self.lock();
        let Some(reserved) = state.reserved.as_mut().filter(|reserved| is_of_job(reserved)) else { return };
        reserved.has_left = true;
        if !comes_again {
            state.reserved = None;
            return self.update(&mut state);
        }
        let fleet = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(RESERVED_FOR).await;
            let mut state = fleet.lock();
            state.reserved = state.reserved.take().filter(|reserved| !(is_of_job(reserved) && reserved.has_left));
            fleet.update(&mut state);
        });
    }

    fn try_give(
        self: &Arc<Fleet>,
        context: &Context,
        is_alone: bool,
        line: &[u8],
    ) -> Result<Option<GivenRun>, Outcome> {
        let (job, events) = (context.job(), Arc::<RunEvents>::default());
        let Some(queue) = self.shares.iter().position(|share| share.queue == job.queue) else {
            return Err(Outcome::Release);
        };
        let mut state = self.lock();
        let found = if is_alone {
            state.search_alone(context.id(), &job.kind)
        } else {
            state.search(&job.kind, queue, self.shares[queue].each)
        };
        let number = match found {
            Search::Found(number) => number,
            Search::Refused(outcome) => return Err(outcome),
            Search::Wait => {
                self.update_limits(&state);
                return Ok(None);
            }
        };
        let Some(child) = state.children.get_mut(&number) else { return Err(Outcome::Release) };
        child.is_alone = is_alone;
        let run =
            Run { queue, job: context.id(), events: Arc::clone(&events), abandoned: None, _slot: context.keep_slot() };
        let run = child.give(run, line);
        if is_alone {
            self.update_limits(&state);
        }
        let (fleet, context) = (Arc::clone(self), context.clone());
        Ok(Some(GivenRun { fleet, child: number, run, events, context, has_ended: false }))
    }

    /// Asks a child to stop a run. A run whose line was not written goes back instead.
    pub fn cancel(&self, child: u64, run: u64, reason: StopReason) {
        let mut state = self.lock();
        let Some(child) = state.children.get_mut(&child) else { return };
        if !child.runs.contains_key(&run) {
            return;
        }
        if child.is_unsent(run) {
            child.take_back(run);
            self.update(&mut state);
        } else {
            child.send(message::cancel(run, reason));
        }
    }

    /// Notes that the attempt of an open run has ended without an answer.
    pub fn abandon(&self, child: u64, run: u64, reason: Option<StopReason>) {
        let mut state = self.lock();
        let Some(child) = state.children.get_mut(&child) else { return };
        let Some(open) = child.runs.get_mut(&run) else { return };
        open.abandoned = Some(Instant::now());
        // The worker shuts down, and releases the job now.
        child.is_killed |= reason == Some(StopReason::Shutdown);
        child.wakes.life.notify_one();
    }

    /// Changes the state of one child, if it is still there. Call [`update`](Fleet::update) after a change of what the
    /// child can take.
    pub fn with<T>(&self, number: u64, change: impl FnOnce(&mut ChildState) -> T) -> Option<T> {
        self.lock().children.get_mut(&number).map(change)
    }

    /// Sets the worker's slots by what the children can take, and wakes the jobs that wait for a child.
    pub fn changed(&self) {
        self.update(&mut self.lock());
    }

    /// Ends a run that the child has answered.
    pub fn end(&self, number: u64, run: u64, end: RunEnd) {
        let mut state = self.lock();
        let is_reserved = state.reserved.is_some();
        let Some(child) = state.children.get_mut(&number) else { return };
        let was_open = child.stage == Stage::Ready && !child.is_alone && !child.is_killed;
        child.end(run, end);
        // While a child takes new jobs, the worker's slots are the same whatever it holds.
        if !was_open || is_reserved {
            self.update(&mut state);
        }
        self.freed.notify_waiters();
    }

    fn update(&self, state: &mut FleetState) {
        self.update_limits(state);
        self.freed.notify_waiters();
    }

    fn update_limits(&self, state: &FleetState) {
        for (place, share) in self.shares.iter().enumerate() {
            let slots = |(number, child): (&u64, &ChildState)| {
                if state.is_open(*number, child) { share.each } else { child.busy[place] }
            };
            self.limits.set(&share.queue, state.children.iter().map(slots).sum());
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, FleetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FleetState {
    /// Returns true if the child may get further jobs.
    fn is_open(&self, number: u64, child: &ChildState) -> bool {
        let is_reserved = self.reserved.as_ref().is_some_and(|reserved| reserved.child == number);
        child.stage == Stage::Ready && !child.is_alone && !child.is_killed && !is_reserved
    }

    /// Finds the child with the fewest runs that can take a job of this kind and queue.
    fn search(&self, kind: &str, queue: usize, each: usize) -> Search {
        let open = || self.children.iter().filter(|(number, child)| self.is_open(**number, child));
        if open().next().is_none() {
            return Search::Refused(Outcome::Release);
        }
        if !self.is_known(kind) {
            return Search::Refused(Outcome::Unhandled);
        }
        let free = open().filter(|(_, child)| child.knows(kind) && child.busy[queue] < each);
        free.min_by_key(|(_, child)| child.runs.len()).map_or(Search::Wait, |(number, _)| Search::Found(*number))
    }

    /// Finds a child without runs. If there is none, reserves a child for the job.
    fn search_alone(&mut self, job: i64, kind: &str) -> Search {
        if !self.children.values().any(|child| child.stage == Stage::Ready && !child.is_killed) {
            return Search::Refused(Outcome::Release);
        }
        if !self.is_known(kind) {
            return Search::Refused(Outcome::Unhandled);
        }
        let own = self.reserved.as_ref().filter(|reserved| reserved.job == job).map(|reserved| reserved.child);
        let takes = |number: u64, child: &ChildState| {
            child.knows(kind)
                && (self.is_open(number, child)
                    || own == Some(number) && child.stage == Stage::Ready && !child.is_alone && !child.is_killed)
        };
        let candidates = || self.children.iter().filter(|(number, child)| takes(**number, child));
        if let Some((&number, _)) = candidates().find(|(_, child)| child.runs.is_empty()) {
            self.reserved = self.reserved.take().filter(|reserved| reserved.job != job);
            return Search::Found(number);
        }
        let least_busy = candidates().min_by_key(|(_, child)| child.runs.len()).map(|(number, _)| *number);
        match &mut self.reserved {
            Some(reserved) if reserved.job == job => reserved.has_left = false,
            Some(_) => {}
            None => {
                tracing::debug!(
                    name: "pipe.child_reserved", target: "reveille::pipe", child = least_busy, id = job,
                    "a child gets nothing new, until it can take a job whose last child died"
                );
                self.reserved = least_busy.map(|child| Reserved { child, job, has_left: false });
            }
        }
        Search::Wait
    }

    fn is_known(&self, kind: &str) -> bool {
        self.children.values().any(|child| child.stage == Stage::Ready && child.knows(kind))
    }
}

/// The beginning of the errors of runs whose child has died. [`is_of_child`] knows it again.
const LOST: &str = "the child ";

/// Returns the error of the runs of a child that died. `cause`: what the child did, and the end of its stderr.
fn lost(cause: &str, runs: usize) -> String {
    let of = match runs {
        1 => "this job alone".to_owned(),
        2 => "this job and another one".to_owned(),
        _ => format!("this job and {} others", runs.saturating_sub(1)),
    };
    format!("{LOST}of {of} {cause}")
}

/// Returns true if this is the error of a job whose child died.
pub fn is_of_child(error: &str) -> bool {
    error.starts_with(LOST)
}
