//! The settler: records how attempts ended, in batches of what has ended while the batch before was on its way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::driver::Settlement;
use crate::worker::attempt::Attempts;

mod locked;
mod record;

use locked::Retries;
use record::Recorder;

/// At most so many endings in one batch.
const LARGEST_BATCH: usize = 1000;
/// For so long a batch may go on growing by what is ready to end, which handlers that keep their threads busy can draw
/// out.
const MOMENT: Duration = Duration::from_millis(1);
/// While more endings than these wait for the locks of others, which then lock more than some rows, none is taken: the
/// slots fill up, and the worker claims no more.
const MOST_LOCKED: usize = 1000;
/// How soon to look again.
const LOCKED: Duration = Duration::from_millis(50);

/// Settles what attempts hand over.
pub(crate) struct Settler {
    attempts: Arc<Attempts>,
    inbox: mpsc::Receiver<Settlement>,
}

impl Settler {
    pub(crate) fn new(attempts: &Arc<Attempts>, inbox: mpsc::Receiver<Settlement>) -> Settler {
        Settler { attempts: Arc::clone(attempts), inbox }
    }

    /// Settles until nobody can hand over any more and all is settled.
    pub(crate) async fn run(mut self) {
        let Attempts { driver, held, comeback, parts, .. } = &*self.attempts;
        let (driver, held) = (Arc::clone(driver), Arc::clone(held));
        let recorder = Recorder { driver, held: Arc::clone(&held), comeback: comeback.clone() };
        let (locked, inbox) = mpsc::unbounded_channel();
        let retries = Retries::new(recorder.clone(), inbox);
        let retrying = AbortOnDropHandle::new(parts.spawn("the settler of locked jobs", retries.run()));
        let mut batch = Vec::new();
        while self.inbox.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
            self.take_ready(&mut batch).await;
            while held.count_locked() > MOST_LOCKED {
                tokio::time::sleep(LOCKED).await;
            }
            for job in recorder.record(std::mem::take(&mut batch)).await {
                let _ = locked.send(job);
            }
        }
        drop(locked);
        let _ = retrying.await;
    }

    /// The first of many that end at the same moment wakes the settler before the others have run.
    async fn take_ready(&mut self, batch: &mut Vec<Settlement>) {
        let (began, mut before) = (Instant::now(), 0);
        while before < batch.len() && batch.len() < LARGEST_BATCH && began.elapsed() < MOMENT {
            before = batch.len();
            tokio::task::yield_now().await;
            while batch.len() < LARGEST_BATCH
                && let Ok(settlement) = self.inbox.try_recv()
            {
                batch.push(settlement);
            }
        }
    }
}
