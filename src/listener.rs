//! The listener: hears the signals of the store and passes them on, and comes back whenever it is cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::driver::{Driver, Signal};
use crate::error::{Error, Result};
use crate::held::Held;
use crate::wake::Bells;

/// How long it leaves it at that where it cannot hear.
const TRY_AGAIN: Duration = Duration::from_secs(300);

/// What a listener is for.
pub(crate) struct Listener {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) bells: Arc<Bells>,
    pub(crate) held: Arc<Held>,
    /// The worker that it vouches for.
    pub(crate) worker: Arc<AtomicI64>,
    /// Notified when to begin anew: the worker has a new id, or its store was away.
    pub(crate) anew: Arc<Notify>,
    /// Tripped when somebody asks for the worker to shut down.
    pub(crate) stop: CancellationToken,
}

impl Listener {
    /// Listens until the task is dropped.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new("listen for new jobs");
        loop {
            match self.listen(&mut backoff).await {
                Ok(()) => {}
                Err(error) if error.is_deaf() => {
                    self.bells.give_up_hearing();
                    tracing::warn!(
                        name: "worker.deaf", target: "reveille::worker", %error,
                        "new jobs are found by polling only"
                    );
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Err(error) => {
                    self.bells.go_deaf();
                    tokio::time::sleep(backoff.failed(&error)).await;
                }
            }
        }
    }

    /// Listens until it fails or is to begin anew.
    async fn listen(&self, backoff: &mut Backoff) -> Result<()> {
        let mut signals = self.driver.listen(self.worker.load(Ordering::Acquire)).await?;
        backoff.worked();
        self.bells.hear();
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                () = self.anew.notified() => return Ok(()),
            };
            match signal {
                Some(Ok(Signal::Bell(queue))) => self.bells.ring(&queue),
                Some(Ok(Signal::Cancel(id))) => self.held.cancel(id),
                Some(Ok(Signal::Schedules)) => self.bells.ring_for_schedules(),
                Some(Ok(Signal::Pause(queue))) => self.bells.pause(&queue),
                Some(Ok(Signal::Stop(id))) if id == self.worker.load(Ordering::Acquire) => self.stop.cancel(),
                Some(Ok(Signal::Stop(_))) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(Error::unavailable("listen: the store sends no more signals")),
            }
        }
    }
}
