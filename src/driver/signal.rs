//! What a listening worker hears. A signal is a hint: any role can send one, so a worker does nothing because of it
//! that the store has not confirmed.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Driver;
use crate::error::{Error, Result};

/// How many signals of a stream may wait to be read.
const WAITING: usize = 1024;

/// What a listening worker hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// There may be new work in this queue.
    Bell(String),
    /// Somebody may have asked for this job to be cancelled.
    Cancel(i64),
    /// A schedule may be due sooner than you know of.
    Schedules,
    /// This queue may be paused: what you have claimed of it and not started then goes back.
    Pause(String),
    /// Somebody may have asked for this worker to shut down.
    Stop(i64),
}

/// Something under way, such as a transaction, that may make work possible without a signal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Silent(pub String);

/// Takes each signal where it arrives. Anybody can send as many signals as he likes, so the call is short, waits for
/// nothing, and keeps nothing of a signal that means nothing to the listener.
pub type Hear = Arc<dyn Fn(Signal) + Send + Sync>;

/// What was heard and is still to be confirmed, or has been.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// These jobs of the worker are to be cancelled.
    pub cancel: BTreeSet<i64>,
    /// These queues are paused.
    pub paused: BTreeSet<String>,
    /// The worker is to shut down.
    pub stop: bool,
}

impl Hints {
    /// Whether there is nothing to confirm.
    pub fn is_empty(&self) -> bool {
        self.cancel.is_empty() && self.paused.is_empty() && !self.stop
    }
}

/// Listens, and yields what is heard, until an error ends it. Of signals that come faster than they are read, 1,024
/// wait and the others are dropped.
///
/// # Errors
/// As in [`Driver::listen`].
pub async fn signals(driver: &dyn Driver, worker: i64) -> Result<BoxStream<'static, Result<Signal>>> {
    let (teller, inbox) = mpsc::channel(WAITING);
    let hear = move |signal| {
        if let Err(TrySendError::Full(_)) = teller.try_send(signal) {
            tracing::debug!(name: "signal.dropped", target: "reveille::worker", "signals come faster than they are read");
        }
    };
    let deaf = driver.listen(worker, Arc::new(hear)).await?;
    Ok(stream::unfold(Some((inbox, deaf)), next).boxed())
}

type Listening = (mpsc::Receiver<Signal>, BoxFuture<'static, Error>);

async fn next(listening: Option<Listening>) -> Option<(Result<Signal>, Option<Listening>)> {
    let (mut inbox, mut deaf) = listening?;
    tokio::select! {
        biased;
        Some(signal) = inbox.recv() => Some((Ok(signal), Some((inbox, deaf)))),
        error = &mut deaf => Some((Err(error), None)),
    }
}
