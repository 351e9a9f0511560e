//! Gathering jobs for a handler of batches. Each attempt hands over its job, and waits for the job's outcome.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all, ready};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::error::{Error, Result};
use crate::handler::batch::{Batch, BatchArguments, BatchHandler, BatchItem, IntoOutcomes};
use crate::handler::cancellation::{Cancellation, StopReason};
use crate::handler::extract::Context;
use crate::handler::{Gathers, Registered, does_not_fit};
use crate::job::Job;
use crate::job::outcome::{Outcome, panicked};

/// The rule by which a batch starts: once the batch is full, or once its first job has waited for the time `within`.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Gather {
    most: usize,
    within: Duration,
}

impl Gather {
    /// Returns the rule for batches of at most `most` jobs, which are gathered for 20 ms at most.
    pub fn up_to(most: usize) -> Gather {
        Gather { most, within: Duration::from_millis(20) }
    }

    /// Sets the time for which a batch waits for further jobs after its first job; default 20 ms.
    pub fn within(self, within: Duration) -> Gather {
        Gather { within, ..self }
    }
}

/// Registers a batch handler as a handler of single jobs. The handler of single jobs hands each job to the gatherer.
pub(crate) fn register<A, H>(gather: Gather, handler: H) -> Registered
where
    A: BatchArguments,
    H: BatchHandler<A>,
    H::Future: Future<Output: IntoOutcomes> + Send + 'static,
{
    let gatherer = Arc::new(Gatherer {
        gather,
        run: Box::new(move |batch: Batch<A::Job>, context: &Context| {
            let jobs = batch.len();
            let handling = handler.call(A::extract(batch, context));
            handling.map(move |returned| returned.into_outcomes(jobs)).boxed()
        }),
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
        check: A::check,
        timeout: A::Job::TIMEOUT,
        retry_policy: A::Job::retry_policy(),
    }
}

type Run<J> = dyn Fn(Batch<J>, &Context) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync;

/// Gathers the jobs of one kind, separately for each queue.
struct Gatherer<J> {
    gather: Gather,
    run: Box<Run<J>>,
    /// The largest number of jobs of a batch, by queue: at most one job per slot.
    most: OnceLock<HashMap<String, usize>>,
    /// The number of all jobs that attempts have handed over so far.
    members: AtomicU64,
    /// True once a shutdown has begun. From then on, no batch waits for further jobs.
    hurries: AtomicBool,
    gathering: Mutex<HashMap<String, Gathering<J>>>,
}

/// A batch that has not started.
struct Gathering<J> {
    members: Vec<Member<J>>,
    /// The number of batches of the queue before this batch.
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
    /// Hands over a job. The future yields the job's outcome once the batch is done.
    fn add(self: &Arc<Self>, job: J, context: Context) -> BoxFuture<'static, Outcome> {
        let queue = context.job().queue.clone();
        let cancellation = context.cancellation();
        context.pausing().refuse_in_batch();
        let (answer, mut outcome) = oneshot::channel();
        let number = self.members.fetch_add(1, Ordering::Relaxed);
        self.gather(&queue, Member { number, item: BatchItem { job, context }, answer });
        let gatherer = Arc::clone(self);
        async move {
            let answered = tokio::select! {
                biased;
                answered = &mut outcome => answered,
                () = cancellation.cancelled() => {
                    if gatherer.withdraw(&queue, number) {
                        return not_begun();
                    }
                    outcome.await
                }
            };
            answered.unwrap_or_else(|_| Outcome::Fail("the batch of this job was dropped before it was done".into()))
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

    /// Takes a job out of a batch that has not started. Returns false if the job's batch has started.
    fn withdraw(&self, queue: &str, number: u64) -> bool {
        let mut all = self.lock();
        let Some(gathering) = all.get_mut(queue) else { return false };
        let Some(place) = gathering.members.iter().position(|member| member.number == number) else { return false };
        gathering.members.remove(place);
        if gathering.members.is_empty() {
            // The next job begins another batch. With a new number, the timer of the empty batch does not start the
            // other batch.
            gathering.number += 1;
        }
        true
    }

    /// Runs a batch in a separate task, so that the end of one attempt does not end the batch for the others.
    fn start(self: &Arc<Self>, members: Vec<Member<J>>) {
        if !members.is_empty() {
            let span = tracing::info_span!(target: "reveille::job", "batch", kind = J::KIND, jobs = members.len());
            tokio::spawn(Arc::clone(self).work(members).instrument(span));
        }
    }

    async fn work(self: Arc<Self>, mut members: Vec<Member<J>>) {
        // Attempts that start together hand over their jobs in any order, but a batch has the order of the ids.
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
        let (jobs, stop) = (items.len(), Cancellation::default());
        let cancellations: Vec<_> = items.iter().map(|item| item.context.cancellation()).collect();
        let batch = Batch { items, stop: stop.clone() };
        let handling = AssertUnwindSafe(async { (self.run)(batch, &context).await }).catch_unwind();
        let outcomes = {
            let all_cancelled = async {
                join_all(cancellations.iter().map(Cancellation::cancelled)).await;
                stop.request(cancellations.iter().find_map(Cancellation::reason).unwrap_or(StopReason::Lost));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                returned = handling => returned,
                () = all_cancelled => return,
                // All attempts of the batch were abandoned: by a timeout, or at a shutdown.
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
                "a batch of {most} jobs of the kind {:?} cannot be gathered: each job takes a slot, \
                    and no queue has more \
                 than {slots}; gather fewer jobs, or give a queue more slots",
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

/// Returns the outcome of a job that was cancelled before its batch started. The attempt replaces this outcome by the
/// ending that fits the reason of the cancellation.
fn not_begun() -> Outcome {
    Outcome::Fail("cancelled before its batch started".into())
}
