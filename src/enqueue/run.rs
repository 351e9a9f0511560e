//! `Context::run`: a handler enqueues a job, and waits for its end.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::driver::{Pausing, Step, WaitState};
use crate::error::{Error, Result};
use crate::handler::{Context, Output};
use crate::job::{Enqueueable, Payload};

/// A job ends sooner than this, or not at all.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The end of a job, as the payload of the event that the store emits.
#[derive(Deserialize)]
struct End {
    outcome: String,
    result: Option<Box<RawValue>>,
    error: Option<String>,
}

impl Context {
    /// Enqueues a job once, waits for its end, and returns its result. Gives the slot back meanwhile, as
    /// [`sleep`](Context::sleep) does.
    ///
    /// The job is enqueued with the record of the step, both or none. So no attempt enqueues it twice, whatever dies
    /// when. It passes through the worker's middleware, and its parent is the job of this context. It is a job like
    /// others, with retries of its own: this handler goes on once it is completed, dead or cancelled. Its first end
    /// counts, in all later attempts. A cancel of this job does not cancel the other.
    ///
    /// ```
    /// # use reveille::{Context, Job};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Album { photos: Vec<i64> }
    /// # impl Job for Album { const KIND: &'static str = "album"; }
    /// # #[derive(Serialize, Deserialize)] struct Resize { photo: i64 }
    /// # impl Job for Resize { const KIND: &'static str = "resize"; }
    /// async fn album(album: Album, context: Context) -> reveille::Result<()> {
    ///     for photo in album.photos {
    ///         let bytes: u64 = context.run(format!("resize {photo}"), &Resize { photo }).await?;
    ///         println!("photo {photo} has {bytes} bytes now");
    ///     }
    ///     Ok(())
    /// }
    /// # drop(reveille::Worker::builder(reveille::driver::Memory::new()).handle(album));
    /// ```
    ///
    /// # Errors
    /// Invalid if the job is dead or was cancelled, or its result does not decode to the type; a job without a result
    /// has the result `null`. Invalid, before anything is enqueued, if the job cannot be stored or has a unique key, or
    /// as in [`sleep`](Context::sleep). Lost if this worker no longer holds the job.
    pub async fn run<T: DeserializeOwned>(&self, name: impl Into<String>, job: &impl Enqueueable) -> Result<T> {
        let name = name.into();
        self.check_may_pause(&name)?;
        let job = self.enqueuer().prepare(job)?;
        if job.unique_key.is_some() {
            return Err(Error::invalid(format!(
                "the job of step {name:?} has a unique key; leave the key out, since the step enqueues the job once"
            )));
        }
        let steps = self.steps();
        let call = steps.begin(&name, false)?;
        let step = match steps.earlier(&name).await? {
            Some(step) => step,
            None => steps.run_child(&name, &job).await?,
        };
        let Step::Value(child) = step else { return Err(self.is_another(&name, &step, "a job to run")) };
        let child: i64 = self.read(&name, &child)?;
        call.succeeded();
        match self.pause(&format!("reveille:end:{child}"), Pausing::Event(LONGEST)).await? {
            Step::Wait(WaitState::Event(end)) => self.result_of(child, &job.kind, &name, &end),
            _ => Err(Error::invalid(format!("job {child} of step {name:?} has not ended within 10 years"))),
        }
    }

    fn result_of<T: DeserializeOwned>(&self, id: i64, kind: &str, name: &str, end: &Payload) -> Result<T> {
        let end: End = self.read(name, end)?;
        if end.outcome != "completed" {
            let mut error = format!("job {id} of step {name:?} is {}", end.outcome);
            if let Some(text) = end.error
                && let Output::Error(text) = self.load_of_others()(id, kind, Output::Error(text))?
            {
                error = format!("{error}: {text}");
            }
            return Err(Error::invalid(error));
        }
        let Some(result) = end.result else { return self.read(name, &Payload::encode(&())?) };
        match self.load_of_others()(id, kind, Output::Result(Payload::parse(result.get())?))? {
            Output::Result(result) => self.read(name, &result),
            _ => Err(Error::invalid(format!("a middleware has replaced the result of job {id}"))),
        }
    }
}
