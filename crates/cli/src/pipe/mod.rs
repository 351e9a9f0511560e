//! `reveille work --pipe`: jobs are worked by a few long-lived children, by the protocol of `docs/reference/pipe.md`.
//!
//! `message` and `lines` are the protocol. `child_state` and `fleet` know which child has which runs. `run` is the
//! handler of one job. `child` serves one child, `receive` acts on its messages, and `steps` decides when it ends.

mod child;
mod child_state;
mod fleet;
pub mod lines;
pub mod message;
pub mod no_op_child;
mod receive;
mod run;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use reveille::driver::FailureReason;
use reveille::enqueue::Enqueuer;
use reveille::handler::Encryption;
use reveille::worker::SlotLimits;
use reveille::{Context, Database, Outcome};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::passed_variables::PassedVariables;
use crate::strays::Strays;

use child::{Life, Step, live};
use fleet::{Fleet, Share, is_of_child};
use steps::Waits;

/// If no child was ever ready, the worker gives up after this number of starts of one child.
const MOST_STARTS: u32 = 5;

/// The settings of the children of one worker.
pub struct PipeOptions {
    pub command: String,
    pub children: usize,
    /// The worker's queues with their slots.
    pub queues: Vec<(String, usize)>,
    pub passed: PassedVariables,
    pub strays: Arc<Strays>,
    pub database: Database,
    pub encryption: Option<Arc<Encryption>>,
    /// The time that the other runs of a child with a stuck run have.
    pub grace: Duration,
    /// The factor by which the waits for children are shorter.
    pub haste: u32,
}

/// The children of one worker.
pub struct Pipe {
    options: PipeOptions,
    waits: Waits,
    fleet: Arc<Fleet>,
    stopping: CancellationToken,
    /// The reason why the worker gives up, once it does.
    given_up: watch::Sender<Option<String>>,
}

impl Pipe {
    /// Prepares the children, without starting them. `limits` are the slots of the worker.
    pub fn new(options: PipeOptions, limits: SlotLimits) -> Arc<Pipe> {
        let share =
            |(queue, slots): &(String, usize)| Share { queue: queue.clone(), each: slots.div_ceil(options.children) };
        let fleet = Fleet::new(options.queues.iter().map(share).collect(), limits);
        let waits = Waits::new(options.grace, options.haste);
        Arc::new(Pipe { waits, fleet, options, stopping: CancellationToken::new(), given_up: watch::Sender::default() })
    }

    /// Starts the children, and starts others in their place when they end. Dropping the result kills all children.
    pub fn start(self: &Arc<Pipe>) -> JoinSet<()> {
        let mut children = JoinSet::new();
        (0..self.options.children).for_each(|_| drop(children.spawn(keep_one(Arc::clone(self)))));
        children
    }

    /// Waits until a child is ready. Returns the kinds of the children, if they say which.
    ///
    /// # Errors
    /// If no child was ready after five starts; the error says how the last one ended.
    pub async fn ready(&self) -> Result<Option<Vec<String>>, Failure> {
        let (mut ready, mut given_up) = (self.fleet.was_ready.subscribe(), self.given_up.subscribe());
        tokio::select! {
            _ = ready.wait_for(|ready| *ready) => {}
            error = given_up.wait_for(Option::is_some) => {
                let error = error.ok().and_then(|error| error.clone()).unwrap_or_default();
                return Err(Failure::Error(error));
            }
        }
        Ok(self.fleet.kinds().map(|kinds| kinds.into_iter().collect()))
    }

    /// Tells the children that no further jobs come. Each exits once its runs have ended.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.fleet.stop();
    }

    /// Stops the children, and waits for their end.
    pub async fn shut_down(&self, mut children: JoinSet<()>) {
        self.stop();
        while children.join_next().await.is_some() {}
    }

    /// Works one job.
    pub async fn run(self: Arc<Pipe>, context: Context) -> Outcome {
        let is_alone = context.attempt().failures > 0 && self.has_lost_a_child(&context).await;
        match self.fleet.give(&context, is_alone).await {
            Ok(given) => given.outcome().await,
            Err(outcome) => outcome,
        }
    }

    /// Returns true if the job's last failure was the death of its child.
    async fn has_lost_a_child(&self, context: &Context) -> bool {
        let Ok(Some(job)) = self.options.database.admin().job(context.id()).await else { return false };
        let Some(last) = job.errors().pop() else { return false };
        let opened = self.options.encryption.as_ref().map(|keys| keys.open_error(&context.job().kind, &last.error));
        let error = opened.and_then(Result::ok).unwrap_or(last.error);
        last.reason == Some(FailureReason::Lost) && is_of_child(&error)
    }

    /// Returns the enqueuer for the jobs that children enqueue.
    fn enqueuer(&self) -> Enqueuer {
        let enqueuer = self.options.database.enqueuer();
        match &self.options.encryption {
            Some(encryption) => enqueuer.middleware(Arc::clone(encryption)),
            None => enqueuer,
        }
    }

    fn next_step(&self, number: u64) -> Step {
        let step = self.fleet.with(number, |child| {
            let before = child.stage;
            (child.next_step(&self.waits, std::time::Instant::now()), before != child.stage)
        });
        let Some((step, has_changed)) = step else { return Step::Wait(None) };
        if has_changed {
            self.fleet.changed();
        }
        step
    }

    fn log_end(child: u64, runs: usize, end: &str, was_asked: bool) {
        if was_asked {
            tracing::info!(name: "pipe.child_ended", target: "reveille::pipe", child, runs, end, "a child has ended");
        } else {
            tracing::warn!(
                name: "pipe.child_died", target: "reveille::pipe", child, runs, end,
                "a child has died, and its runs have failed"
            );
        }
    }
}

/// Keeps one child alive: starts another one after a pause, until the worker shuts down.
async fn keep_one(pipe: Arc<Pipe>) {
    let (mut pause, mut starts) = (pipe.waits.first_pause, 0);
    loop {
        let Life { lived, end, was_asked } = live(&pipe).await;
        if pipe.stopping.is_cancelled() {
            return;
        }
        starts += 1;
        if starts >= MOST_STARTS && !*pipe.fleet.was_ready.borrow() {
            let error = format!("no child was ready after {starts} starts of the command; the last child {end}");
            pipe.given_up.send_replace(Some(error));
            return;
        }
        if lived >= pipe.waits.long_life {
            pause = pipe.waits.first_pause;
        }
        // A child that was replaced has not failed, but a stuck one may be stuck again soon.
        tracing::debug!(name: "pipe.pause", target: "reveille::pipe", ?pause, was_asked, "starting another child");
        if pipe.stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(pipe.waits.longest_pause);
    }
}
