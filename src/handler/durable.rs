//! Durable handlers: steps that are recorded, sleeps, and waits for events.

use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::driver::{Pausing, SleepState, Step, WaitState};
use crate::error::{Error, Result};
use crate::handler::extract::Context;
use crate::job::{Payload, check_event};

/// The error of [`Context::step`]: the error that the step's code returned, or an error of Reveille.
///
/// It prints as the error that it holds.
#[derive(Debug)]
pub enum StepError<E> {
    /// The code of the step returned this error. Nothing is recorded.
    Failed(E),
    /// The step could not begin, or its value could not be recorded or read.
    Unrecorded(Error),
}

impl<E: fmt::Display> fmt::Display for StepError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepError::Failed(error) => error.fmt(f),
            StepError::Unrecorded(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for StepError<E> {}

impl<E> From<Error> for StepError<E> {
    fn from(error: Error) -> StepError<E> {
        StepError::Unrecorded(error)
    }
}

impl From<StepError<Error>> for Error {
    fn from(error: StepError<Error>) -> Error {
        match error {
            StepError::Failed(error) | StepError::Unrecorded(error) => error,
        }
    }
}

/// Durable steps. The guide: [steps](crate::guide::features::steps), [events](crate::guide::features::events).
impl Context {
    /// Runs the code of a step, and records its value. In later attempts, returns the recorded value and does not run
    /// the code.
    ///
    /// Steps are found by their names, so steps may be added, removed and reordered while jobs are under way. The code
    /// gets the step's [key](Context::step_key), to pass on to a service that knows idempotency keys: the code runs
    /// once more if the worker dies between the end of the code and the record. A step of a later attempt goes on where
    /// the earlier attempt failed, even after the job was dead and is revived. A new step sets the job's failures to 0.
    ///
    /// The value is JSON of up to 8 KiB. The returned value has passed through JSON in the first attempt, too.
    ///
    /// ```
    /// # use reveille::{Context, Job};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Checkout { order: i64 }
    /// # impl Job for Checkout { const KIND: &'static str = "checkout"; }
    /// # async fn charge(key: String, order: i64) -> Result<i64, std::io::Error> { Ok(order) }
    /// # async fn send_receipt(key: String, charge: i64) -> Result<(), std::io::Error> { Ok(()) }
    /// async fn checkout(job: Checkout, context: Context) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///     let charged = context.step("charge", async |key| charge(key, job.order).await).await?;
    ///     context.step("receipt", async |key| send_receipt(key, charged).await).await?;
    ///     Ok(())
    /// }
    /// # drop(reveille::Worker::builder(reveille::driver::Memory::new()).handle(checkout));
    /// ```
    ///
    /// # Errors
    /// [`Failed`](StepError::Failed) if the code returns an error; nothing is recorded, and the step may be called
    /// again. [`Unrecorded`](StepError::Unrecorded) if the name is used twice in one attempt, the value is too large or
    /// does not decode, the job is completed already, or this worker no longer holds the job.
    pub async fn step<T, E, F, Fut>(&self, name: impl Into<String>, code: F) -> Result<T, StepError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(String) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let name = name.into();
        self.check_is_open(&name)?;
        let steps = self.steps();
        let call = steps.begin(&name, false)?;
        let step = match steps.earlier(&name).await? {
            Some(step) => step,
            None => {
                let value = code(self.step_key(&name)).await.map_err(StepError::Failed)?;
                let value = Payload::encode_as(&format!("the value of step {name:?}"), &value)?;
                // A value that no later attempt could read is not recorded.
                self.read::<T>(&name, &value)?;
                steps.record(&name, value).await?
            }
        };
        let Step::Value(value) = step else { return Err(self.is_another(&name, &step, "a step").into()) };
        let value = self.read(&name, &value)?;
        call.succeeded();
        Ok(value)
    }

    /// Returns the idempotency key of a step: the same text in all attempts of the job, and another one for each other
    /// job and step. It holds the job's id, the time of its enqueue, and the name.
    pub fn step_key(&self, name: &str) -> String {
        let enqueued = self.job().created_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{}-{}-{name}", self.id(), enqueued.as_micros())
    }

    /// Sleeps, and gives the slot back meanwhile: the worker drops the handler, and the job is due again after
    /// `duration`. The next attempt runs the handler from its beginning, and passes over this sleep and over the steps
    /// before it.
    ///
    /// The end of the sleep is recorded once, by the store's clock, so a crash or an earlier attempt does not make the
    /// sleep longer or shorter. A sleep is no failure, even in the last attempt.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use reveille::{Context, Job};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Trial { user: i64 }
    /// # impl Job for Trial { const KIND: &'static str = "trial"; }
    /// async fn trial(job: Trial, context: Context) -> reveille::Result<()> {
    ///     context.sleep("trial", Duration::from_secs(14 * 24 * 3600)).await?;
    ///     // … two weeks later
    /// #   let _ = job;
    ///     Ok(())
    /// }
    /// # drop(reveille::Worker::builder(reveille::driver::Memory::new()).handle(trial));
    /// ```
    ///
    /// # Errors
    /// Invalid, before anything is recorded, if the name is used twice in one attempt, a step runs, the job is
    /// completed already, or the job is one of a batch. Lost if this worker no longer holds the job.
    pub async fn sleep(&self, name: impl Into<String>, duration: Duration) -> Result<()> {
        let name = name.into();
        match self.pause(&name, Pausing::Sleep(duration)).await? {
            Step::Sleep(_) => Ok(()),
            step => Err(self.is_another(&name, &step, "a sleep")),
        }
    }

    /// Waits for an event, and gives the slot back meanwhile, as [`sleep`](Context::sleep) does. Returns the payload of
    /// the event, or `None` if the event does not come within `limit`.
    ///
    /// It does not matter whether the event is [emitted](crate::enqueue::emit) before the wait begins or later. The
    /// payload, or that the time was over, is recorded before the handler goes on, so all later attempts get the same.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use reveille::{Context, Job};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Order { id: i64 }
    /// # impl Job for Order { const KIND: &'static str = "order"; }
    /// #[derive(Serialize, Deserialize)]
    /// struct Paid { cents: i64 }
    ///
    /// async fn order(job: Order, context: Context) -> reveille::Result<()> {
    ///     let paid: Option<Paid> =
    ///         context.wait_for(format!("paid:{}", job.id), Duration::from_secs(30 * 24 * 3600)).await?;
    ///     if let Some(paid) = paid {
    ///         println!("order {} is paid: {} cents", job.id, paid.cents);
    ///     }
    ///     Ok(())
    /// }
    /// # drop(reveille::Worker::builder(reveille::driver::Memory::new()).handle(order));
    /// ```
    ///
    /// # Errors
    /// As in [`sleep`](Context::sleep). Invalid if no program can emit an event of this name, or if the payload does
    /// not decode to the type.
    pub async fn wait_for<T: DeserializeOwned>(&self, event: impl Into<String>, limit: Duration) -> Result<Option<T>> {
        let event = event.into();
        check_event(&event)?;
        match self.pause(&event, Pausing::Event(limit)).await? {
            Step::Wait(WaitState::Event(payload)) => self.read(&event, &payload).map(Some),
            Step::Wait(_) => Ok(None),
            step => Err(self.is_another(&event, &step, "a wait for an event")),
        }
    }

    /// Begins a sleep or a wait, or goes on with it. Returns only once it is over.
    pub(crate) async fn pause(&self, name: &str, pausing: Pausing) -> Result<Step> {
        self.check_may_pause(name)?;
        let steps = self.steps();
        let call = steps.begin(name, true)?;
        let earlier = steps.earlier(name).await?;
        let step = match earlier.filter(|step| !is_unfinished(step)) {
            Some(step) => step,
            None => {
                let recorded = steps.record_wait(name, pausing).await?;
                if is_unfinished(&recorded.step) {
                    self.pausing().begin(recorded.left).await;
                }
                recorded.step
            }
        };
        call.succeeded();
        Ok(step)
    }

    pub(crate) fn check_may_pause(&self, name: &str) -> Result<()> {
        self.check_is_open(name)?;
        if self.pausing().is_in_batch() {
            return Err(Error::invalid(format!(
                "a handler of batches cannot sleep or wait ({name:?}), since the other jobs of the batch would wait, \
                 too; give these jobs a handler of their own"
            )));
        }
        Ok(())
    }

    /// Refuses a step after `complete_in`: the handler's transaction has locked the job.
    pub(crate) fn check_is_open(&self, name: &str) -> Result<()> {
        match self.completed_in() {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!(
                "step {name:?} comes after `complete_in`, which completes the job; call the step before"
            ))),
        }
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str, value: &Payload) -> Result<T> {
        value.decode().map_err(|error| {
            let id = self.id();
            Error::invalid(format!(
                "the recorded value of {name:?} of job {id} does not decode to its type: {error}; give a step whose \
                 type has changed another name"
            ))
        })
    }

    pub(crate) fn is_another(&self, name: &str, step: &Step, wanted: &str) -> Error {
        let (id, is) = (self.id(), step.describe());
        Error::invalid(format!("{name:?} of job {id} was recorded as {is} and is now {wanted}; give it another name"))
    }
}

fn is_unfinished(step: &Step) -> bool {
    matches!(step, Step::Sleep(SleepState::Open) | Step::Wait(WaitState::Open))
}
