//! The signals that a listening worker receives. A signal is a hint, which any role can send: a worker does only what
//! the store confirms.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Driver;
use crate::error::{Error, Result};

/// How many unread signals a stream keeps.
const UNREAD: usize = 1024;

/// A notification between the store and a listening worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// This queue may have new work.
    Bell(String),
    /// This job may be asked to be cancelled.
    Cancel(i64),
    /// A schedule may be due sooner than the worker knows.
    Schedules,
    /// This queue may be paused. If it is, claimed jobs that have not started go back.
    Pause(String),
    /// This worker may be asked to shut down.
    Stop(i64),
}

/// A transaction under way, by any name that is unique in the store. It may make jobs due without a signal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenTransaction(pub String);

/// The function that is called with each signal as it arrives.
///
/// Any role can send any number of signals. So the function returns at once, and keeps nothing of a signal that does
/// not concern the listener.
pub type OnSignal = Arc<dyn Fn(Signal) + Send + Sync>;

/// Signals that the store has still to confirm, or has confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hints {
    /// The worker's jobs that are to be cancelled.
    pub cancel: BTreeSet<i64>,
    /// The queues that are paused.
    pub paused: BTreeSet<String>,
    /// Whether the worker is to shut down.
    pub stop: bool,
}

impl Hints {
    /// Tells whether there is nothing to confirm.
    pub fn is_empty(&self) -> bool {
        self.cancel.is_empty() && self.paused.is_empty() && !self.stop
    }
}

/// Listens, and yields each signal until an error ends the stream. At most 1,024 unread signals are kept; further ones
/// are dropped.
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
