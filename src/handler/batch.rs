//! Handlers of many jobs at once: each attempt hands its job over to be gathered, and waits for its outcome.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all, ready};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::error::{Error, Result};
use crate::handler::extract::{Cancellation, Context, Extract, State, States};
use crate::handler::{Gathers, Registered, does_not_fit};
use crate::job::Job;
use crate::job::outcome::{IntoOutcome, Outcome, panicked};

/// When enough jobs are gathered for a batch: there are so many, or the first of them has waited so long.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Gather {
    most: usize,
    within: Duration,
}

impl Gather {
    /// At most so many jobs in a batch, and 20 ms to gather them.
    pub fn up_to(most: usize) -> Gather {
        Gather { most, within: Duration::from_millis(20) }
    }

    /// How long to wait for further jobs after the first one.
    pub fn within(self, within: Duration) -> Gather {
        Gather { within, ..self }
    }
}

/// Jobs of one kind, from one queue, to be worked together: a slice, in the order of their ids.
#[derive(Clone)]
pub struct Batch<J> {
    items: Vec<BatchItem<J>>,
    stop: CancellationToken,
}

/// One job of a batch.
#[derive(Clone)]
pub struct BatchItem<J> {
    /// The job.
    pub job: J,
    /// Its attempt: its id, how often it was tried, whether it had better stop.
    pub context: Context,
}

impl<J> Batch<J> {
    /// Tells when the handler had better stop: all jobs of the batch are to stop. That one of them is, its own context
    /// tells.
    pub fn cancellation(&self) -> Cancellation {
        Cancellation(self.stop.clone())
    }
}

impl<J> Deref for Batch<J> {
    type Target = [BatchItem<J>];

    fn deref(&self) -> &[BatchItem<J>] {
        &self.items
    }
}

impl<J> IntoIterator for Batch<J> {
    type Item = BatchItem<J>;
    type IntoIter = std::vec::IntoIter<BatchItem<J>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, J> IntoIterator for &'a Batch<J> {
    type Item = &'a BatchItem<J>;
    type IntoIter = std::slice::Iter<'a, BatchItem<J>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// What a batch handler may return: anything that is [`IntoOutcome`], for all jobs alike; or a `Vec` of such, one for
/// each job in the batch's order; or a `Result` of such a `Vec`, whose error is every job's failure.
pub trait IntoOutcomes {
    /// The outcomes of so many jobs.
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome>;
}

impl<T: IntoOutcome> IntoOutcomes for T {
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome> {
        vec![self.into_outcome(); jobs]
    }
}

impl<T: IntoOutcome> IntoOutcomes for Vec<T> {
    /// A wrong number of outcomes says nothing of any of the jobs: all have failed.
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome> {
        if self.len() == jobs {
            return self.into_iter().map(IntoOutcome::into_outcome).collect();
        }
        let error = format!("the handler of a batch of {jobs} jobs returned {} outcomes", self.len());
        vec![Outcome::Fail(error); jobs]
    }
}

impl<T: IntoOutcome, E: Display> IntoOutcomes for std::result::Result<Vec<T>, E> {
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome> {
        match self {
            Ok(outcomes) => outcomes.into_outcomes(jobs),
            Err(error) => Err::<(), E>(error).into_outcomes(jobs),
        }
    }
}

/// An async function that works many jobs of one kind at once.
///
/// Its first argument is the [`Batch`], and says the kind; up to four more are [`State`]s; it returns anything that is
/// [`IntoOutcomes`]. Implemented for such functions and closures, never by hand.
pub trait BatchHandler<Arguments>: Send + Sync + 'static {
    /// What it works.
    type Job: Job;

    /// Run it once.
    fn call(&self, batch: Batch<Self::Job>, context: &Context) -> BoxFuture<'static, Vec<Outcome>>;

    /// Whether all its arguments can be made.
    ///
    /// # Errors
    /// Invalid, saying what is missing.
    fn check(states: &States) -> Result<()>;
}

macro_rules! batch_handler {
    ($($state:ident),*) => {
        impl<F, Fut, J, $($state,)*> BatchHandler<(J, $($state,)*)> for F
        where
            F: Fn(Batch<J>, $(State<$state>,)*) -> Fut + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: IntoOutcomes,
            J: Job,
            $($state: Clone + Send + Sync + 'static,)*
        {
            type Job = J;

            fn call(&self, batch: Batch<J>, context: &Context) -> BoxFuture<'static, Vec<Outcome>> {
                let (_, jobs) = (context, batch.len());
                self(batch, $(State::<$state>::extract(context),)*).map(move |returned| returned.into_outcomes(jobs)).boxed()
            }

            fn check(states: &States) -> Result<()> {
                let _ = states;
                $(State::<$state>::check(states)?;)*
                Ok(())
            }
        }
    };
}

batch_handler!();
batch_handler!(A);
batch_handler!(A, B);
batch_handler!(A, B, C);
batch_handler!(A, B, C, D);

/// What the worker knows of a batch handler: a handler of single jobs that has each gathered.
pub(crate) fn register<A: 'static, H: BatchHandler<A>>(gather: Gather, handler: H) -> Registered {
    let gatherer = Arc::new(Gatherer {
        gather,
        run: Box::new(move |batch, context| handler.call(batch, context)),
        most: OnceLock::new(),
        members: AtomicU64::new(0),
        hurries: AtomicBool::new(false),
        gathering: Mutex::default(),
    });
    Registered {
        gathers: Some(Box::new(Arc::clone(&gatherer))),
        call: Box::new(move |context| match context.job().payload.decode() {
            Ok(job) => gatherer.add(job, context.clone()),
            Err(error) => ready(Outcome::Undecodable(does_not_fit(&error))).boxed(),
        }),
        check: H::check,
        timeout: H::Job::TIMEOUT,
        retry_policy: H::Job::retry_policy(),
    }
}

type Run<J> = dyn Fn(Batch<J>, &Context) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync;

/// Gathers the jobs of one kind, each queue's by themselves.
struct Gatherer<J> {
    gather: Gather,
    run: Box<Run<J>>,
    /// How many at most, by queue: no more can come than it has slots.
    most: OnceLock<HashMap<String, usize>>,
    /// How many there have been.
    members: AtomicU64,
    /// Set at a shutdown: what still comes need not wait for more.
    hurries: AtomicBool,
    gathering: Mutex<HashMap<String, Gathering<J>>>,
}

/// A batch that is not complete.
struct Gathering<J> {
    members: Vec<Member<J>>,
    /// How many batches there were before.
    number: u64,
}

struct Member<J> {
    number: u64,
    item: BatchItem<J>,
    answer: oneshot::Sender<Outcome>,
}

impl<J> Default for Gathering<J> {
    fn default() -> Gathering<J> {
        Gathering { members: Vec::new(), number: 0 }
    }
}

impl<J> Gathering<J> {
    fn take(&mut self) -> Vec<Member<J>> {
        self.number += 1;
        std::mem::take(&mut self.members)
    }
}

impl<J: Job> Gatherer<J> {
    /// One more job; its outcome comes when its batch is done.
    fn add(self: &Arc<Self>, job: J, context: Context) -> BoxFuture<'static, Outcome> {
        let queue = context.job().queue.clone();
        let Cancellation(token) = context.cancellation();
        let (answer, mut outcome) = oneshot::channel();
        let number = self.members.fetch_add(1, Ordering::Relaxed);
        self.gather(&queue, Member { number, item: BatchItem { job, context }, answer });
        let gatherer = Arc::clone(self);
        async move {
            let answered = tokio::select! {
                biased;
                answered = &mut outcome => answered,
                () = token.cancelled() => {
                    if gatherer.withdraw(&queue, number) {
                        return not_begun();
                    }
                    outcome.await
                }
            };
            answered.unwrap_or_else(|_| Outcome::Fail("its batch was broken off".into()))
        }
        .boxed()
    }

    fn gather(self: &Arc<Self>, queue: &str, member: Member<J>) {
        let most = self.most.get().and_then(|most| most.get(queue)).copied().unwrap_or(self.gather.most);
        let mut all = self.lock();
        let gathering = all.entry(queue.to_owned()).or_default();
        gathering.members.push(member);
        if gathering.members.len() >= most {
            let members = gathering.take();
            drop(all);
            self.start(members);
        } else if gathering.members.len() == 1 {
            let (gatherer, queue, number) = (Arc::clone(self), queue.to_owned(), gathering.number);
            let within = if self.hurries.load(Ordering::Relaxed) { Duration::ZERO } else { self.gather.within };
            tokio::spawn(async move {
                tokio::time::sleep(within).await;
                let mut all = gatherer.lock();
                let members = all.get_mut(&queue).filter(|gathering| gathering.number == number).map(Gathering::take);
                drop(all);
                gatherer.start(members.unwrap_or_default());
            });
        }
    }

    /// Takes a job out of a batch that has not begun; whether it was in one.
    fn withdraw(&self, queue: &str, number: u64) -> bool {
        let mut all = self.lock();
        let Some(gathering) = all.get_mut(queue) else { return false };
        let Some(place) = gathering.members.iter().position(|member| member.number == number) else { return false };
        gathering.members.remove(place);
        if gathering.members.is_empty() {
            // The next one is the first of another batch.
            gathering.number += 1;
        }
        true
    }

    /// Runs a batch, in a task of its own: none of its jobs' attempts can end it for the others.
    fn start(self: &Arc<Self>, members: Vec<Member<J>>) {
        if !members.is_empty() {
            let span = tracing::info_span!(target: "reveille::job", "batch", kind = J::KIND, jobs = members.len());
            tokio::spawn(Arc::clone(self).work(members).instrument(span));
        }
    }

    async fn work(self: Arc<Self>, mut members: Vec<Member<J>>) {
        // Attempts that were started together come in any order.
        members.sort_by_key(|member| member.item.context.id());
        let (mut items, mut answers) = (Vec::new(), Vec::new());
        for member in members {
            if member.item.context.cancellation().is_cancelled() {
                let _ = member.answer.send(not_begun());
            } else if !member.answer.is_closed() {
                items.push(member.item);
                answers.push(member.answer);
            }
        }
        let Some(context) = items.first().map(|item| item.context.clone()) else { return };
        let (jobs, stop) = (items.len(), CancellationToken::new());
        let tokens: Vec<_> = items.iter().map(|item| item.context.cancellation()).collect();
        let batch = Batch { items, stop: stop.clone() };
        let handling = AssertUnwindSafe(async { (self.run)(batch, &context).await }).catch_unwind();
        let outcomes = {
            let all_told = async {
                join_all(tokens.iter().map(Cancellation::cancelled)).await;
                stop.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                returned = handling => returned,
                () = all_told => return,
                // Every attempt has been given up: timed out, or left behind at a shutdown.
                _ = join_all(answers.iter_mut().map(oneshot::Sender::closed)) => return,
            }
        };
        let outcomes = outcomes.unwrap_or_else(|panic| vec![Outcome::Fail(panicked(&*panic)); jobs]);
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            let _ = answer.send(outcome);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Gathering<J>>> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Job> Gathers for Arc<Gatherer<J>> {
    fn fit(&self, queues: &[(String, usize)]) -> Result<()> {
        let most = self.gather.most;
        let slots = queues.iter().map(|(_, slots)| *slots).max().unwrap_or_default();
        if !(1..=slots).contains(&most) {
            return Err(Error::invalid(format!(
                "a batch of {most} jobs of the kind {:?} cannot be gathered: the queue with the most slots has {slots}, and each job takes one",
                J::KIND
            )));
        }
        let fitting = queues.iter().map(|(name, slots)| (name.clone(), most.min(*slots))).collect();
        let _ = self.most.set(fitting);
        Ok(())
    }

    fn hurry(&self) {
        self.hurries.store(true, Ordering::Relaxed);
        self.run_gathered();
    }

    fn run_gathered(&self) {
        let batches: Vec<_> = self.lock().values_mut().map(Gathering::take).collect();
        batches.into_iter().for_each(|members| self.start(members));
    }
}

/// What comes of a job that was told to stop before its batch began: the attempt knows why it was.
fn not_begun() -> Outcome {
    Outcome::Fail("told to stop before its batch began".into())
}
