//! The steps of one attempt: what earlier attempts have recorded, and what this attempt records.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{Notify, OnceCell};

use crate::driver::{Driver, Pausing, Recorded, Step};
use crate::error::{Error, Result};
use crate::handler::cancellation::{Cancellation, StopReason};
use crate::handler::output::{Output, Outputs};
use crate::job::{NewJob, Payload, ReservedJob, check_key};

/// The largest value of a step, in bytes.
const LARGEST: usize = 8 * 1024;
/// While the store is unavailable, the delay before the next try. It doubles with each try.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// The steps of one attempt.
pub(crate) struct Steps {
    driver: Arc<dyn Driver>,
    job: Arc<ReservedJob>,
    outputs: Arc<dyn Outputs>,
    cancellation: Cancellation,
    /// The steps that earlier attempts have recorded, once they are read.
    earlier: OnceCell<HashMap<String, Step>>,
    calls: Mutex<Calls>,
    failures: AtomicU32,
}

/// The calls of this attempt.
#[derive(Default)]
struct Calls {
    /// The names of the steps that run or are recorded.
    names: HashSet<String>,
    /// The number of steps whose code runs.
    running: usize,
    /// True while the handler sleeps or waits.
    is_pausing: bool,
}

/// A call under way. Dropping it ends the call; the name is free again unless the call has succeeded.
pub(crate) struct Call<'a> {
    steps: &'a Steps,
    name: &'a str,
    is_pause: bool,
    has_succeeded: bool,
}

impl Steps {
    pub(crate) fn new(
        driver: Arc<dyn Driver>,
        job: Arc<ReservedJob>,
        outputs: Arc<dyn Outputs>,
        cancellation: Cancellation,
    ) -> Steps {
        let (failures, earlier, calls) = (AtomicU32::new(job.failures), OnceCell::new(), Mutex::default());
        Steps { driver, job, outputs, cancellation, earlier, calls, failures }
    }

    /// The number of the job's failures: as reserved, or 0 after this attempt has recorded something new.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Begins a step, or a sleep or a wait if `is_pause`.
    ///
    /// # Errors
    /// Invalid if the name is used already, or if the call may not be made now.
    pub(crate) fn begin<'a>(&'a self, name: &'a str, is_pause: bool) -> Result<Call<'a>> {
        check_key("the name of a step", Some(name))?;
        let mut calls = self.calls();
        if calls.is_pausing {
            return Err(Error::invalid(format!(
                "step {name:?} cannot begin while the handler sleeps or waits; await the one before the other"
            )));
        }
        if is_pause && calls.running > 0 {
            return Err(Error::invalid(format!(
                "the handler cannot sleep or wait ({name:?}) while a step runs; call it after the step"
            )));
        }
        if !calls.names.insert(name.to_owned()) {
            return Err(Error::invalid(format!(
                "the name {name:?} is used twice in one attempt; give each step, sleep and wait its own name"
            )));
        }
        calls.running += usize::from(!is_pause);
        calls.is_pausing = is_pause;
        Ok(Call { steps: self, name, is_pause, has_succeeded: false })
    }

    /// Returns what an earlier attempt has recorded under this name.
    pub(crate) async fn earlier(&self, name: &str) -> Result<Option<Step>> {
        let id = self.job.reservation.id;
        // The first attempt has nothing before it.
        if self.job.reservation.attempt <= 1 {
            return Ok(None);
        }
        let read = async {
            let steps = self.until_answered(|| self.driver.steps(id)).await?;
            Ok::<HashMap<String, Step>, Error>(steps.into_iter().collect())
        };
        let earlier = self.earlier.get_or_try_init(|| read).await?;
        earlier.get(name).cloned().map(|step| self.opened(step)).transpose()
    }

    /// Records the value of a step, and returns what the store keeps.
    pub(crate) async fn record(&self, name: &str, value: Payload) -> Result<Step> {
        let size = value.as_bytes().len();
        if size > LARGEST {
            return Err(Error::invalid(format!(
                "the value of step {name:?} has {size} bytes, and the limit is {LARGEST}; keep large data elsewhere \
                 and return a reference"
            )));
        }
        let Output::Step(value) = self.outputs.pass(&self.job, Output::Step(value))? else {
            return Err(Error::invalid(format!("a middleware has replaced the value of step {name:?}")));
        };
        let recording = || self.driver.record_step(&self.job.reservation, name, &value);
        let recorded = self.until_answered(recording).await?;
        self.opened(self.noted(recorded)?.step)
    }

    /// Enqueues a job and records its id, and returns what the store keeps.
    pub(crate) async fn run_child(&self, name: &str, job: &NewJob) -> Result<Step> {
        let recording = || self.driver.run_child(&self.job.reservation, name, job);
        let recorded = self.until_answered(recording).await?;
        Ok(self.noted(recorded)?.step)
    }

    /// Begins a sleep or a wait, or goes on with it.
    pub(crate) async fn record_wait(&self, name: &str, pausing: Pausing) -> Result<Recorded> {
        let recording = || self.driver.record_wait(&self.job.reservation, name, pausing);
        let recorded = self.until_answered(recording).await?;
        self.noted(recorded)
    }

    /// Notes the number of failures. If the reservation does not stand, asks the handler to stop.
    fn noted(&self, recorded: Option<Recorded>) -> Result<Recorded> {
        let Some(recorded) = recorded else {
            self.cancellation.request(StopReason::Lost);
            let id = self.job.reservation.id;
            return Err(Error::lost(format!("this worker no longer holds job {id}; stop working on the job")));
        };
        self.failures.store(recorded.failures, Ordering::Relaxed);
        Ok(recorded)
    }

    /// Returns a stored step as the middlewares have got it from the handler.
    fn opened(&self, step: Step) -> Result<Step> {
        let Step::Value(value) = step else { return Ok(step) };
        match self.outputs.load(&self.job, Output::Step(value))? {
            Output::Step(value) => Ok(Step::Value(value)),
            _ => Err(Error::invalid("a middleware has replaced the value of a step")),
        }
    }

    /// Asks the store until it answers, or until the handler should stop. The code of a step has run by now, and would
    /// run again if its value were not recorded.
    async fn until_answered<'a, T>(&self, ask: impl Fn() -> BoxFuture<'a, Result<T>>) -> Result<T> {
        let mut delay = FIRST_DELAY;
        loop {
            match ask().await {
                Err(error) if error.is_unavailable() || error.is_locked() => {
                    tokio::select! {
                        () = self.cancellation.cancelled() => return Err(error),
                        () = tokio::time::sleep(delay) => delay = (delay * 2).min(LONGEST_DELAY),
                    }
                }
                answer => return answer,
            }
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call<'_> {
    /// Keeps the name from being used again in this attempt.
    pub(crate) fn succeeded(mut self) {
        self.has_succeeded = true;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut calls = self.steps.calls();
        if self.is_pause {
            calls.is_pausing = false;
        } else {
            calls.running -= 1;
        }
        if !self.has_succeeded {
            calls.names.remove(self.name);
        }
    }
}

/// Says that the handler sleeps or waits, so that the worker drops the handler and snoozes the job.
#[derive(Default)]
pub(crate) struct Pause {
    until: OnceLock<Instant>,
    begun: Notify,
    /// True if the job is one of a batch, whose handler cannot be dropped for one job.
    is_in_batch: AtomicBool,
}

impl Pause {
    /// Gives the slot back for this long. The future never resolves: the worker drops it with the handler.
    pub(crate) async fn begin(&self, left: Duration) {
        let _ = self.until.set(Instant::now() + left);
        self.begun.notify_one();
        std::future::pending().await
    }

    /// Waits until the handler sleeps or waits. Returns the time for which the job is to be snoozed.
    pub(crate) async fn begun(&self) -> Duration {
        self.begun.notified().await;
        self.until.get().map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn refuse_in_batch(&self) {
        self.is_in_batch.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_in_batch(&self) -> bool {
        self.is_in_batch.load(Ordering::Relaxed)
    }
}
