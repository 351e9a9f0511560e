//! The signals that a listening worker receives. A signal is only a hint, since any role can send a false one. A worker
//! cancels a job, pauses or stops only if the store confirms the hint.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Driver;
use crate::error::{Error, Result};

/// The largest number of unread signals that a stream keeps.
const UNREAD: usize = 1024;

/// A notification between the store and a listening worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// This queue may have new jobs.
    Bell(String),
    /// A user may have asked to cancel this job.
    Cancel(i64),
    /// The next tick of a schedule may be due sooner than the worker knows.
    Schedules,
    /// This queue may be paused. If it is paused, the worker releases its claimed jobs of the queue that have not
    /// started.
    Pause(String),
    /// A user may have asked this worker to shut down.
    Stop(i64),
    /// A linked job may have ended: a job that others wait for, or that belongs to a workflow. Or an event may have
    /// come for which a job waits.
    LinkedEnd,
}

/// An open transaction, which may make jobs due without a signal. The text names the transaction, and is unique in the
/// store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenTransaction(pub String);

/// The function that a store calls with each signal as the signal arrives.
///
/// The function returns at once, and keeps nothing of a signal that does not concern the listener, because any role can
/// send any number of signals.
pub type OnSignal = Arc<dyn Fn(Signal) + Send + Sync>;

/// Hints that the store is asked to confirm, or has confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hints {
    /// The worker's jobs that are to be cancelled.
    pub cancel: BTreeSet<i64>,
    /// The queues that are paused.
    pub paused: BTreeSet<String>,
    /// True if the worker is to shut down.
    pub stop: bool,
}

impl Hints {
    /// Returns whether there is no hint to confirm.
    pub fn is_empty(&self) -> bool {
        self.cancel.is_empty() && self.paused.is_empty() && !self.stop
    }
}

/// Listens, and returns a stream of signals that ends with the first error. The stream keeps at most 1,024 unread
/// signals and drops further signals.
///
/// # Errors
/// As in [`Driver::listen`].
pub async fn signals(driver: &dyn Driver, worker: i64) -> Result<BoxStream<'static, Result<Signal>>> {
    let (sender, receiver) = mpsc::channel(UNREAD);
    let on_signal = move |signal| {
        if let Err(TrySendError::Full(_)) = sender.try_send(signal) {
            tracing::debug!(
                name: "signal.dropped", target: "reveille::worker",
                "dropped a signal: signals come faster than this program reads them"
            );
        }
    };
    let listening = driver.listen(worker, Arc::new(on_signal)).await?;
    Ok(stream::unfold(Some((receiver, listening)), next).boxed())
}

type Listening = (mpsc::Receiver<Signal>, BoxFuture<'static, Error>);

async fn next(state: Option<Listening>) -> Option<(Result<Signal>, Option<Listening>)> {
    let (mut receiver, mut listening) = state?;
    tokio::select! {
        biased;
        Some(signal) = receiver.recv() => Some((Ok(signal), Some((receiver, listening)))),
        error = &mut listening => Some((Err(error), None)),
    }
}
