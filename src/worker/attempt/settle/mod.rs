//! The settler: records the endings of attempts in batches. A batch holds the endings of all attempts that ended while
//! the previous batch was being recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::driver::Settlement;
use crate::worker::attempt::Attempts;

mod locked;
mod record;

use locked::LockedSettler;
use record::Recorder;

/// A batch holds at most 1000 endings.
const LARGEST_BATCH: usize = 1000;
/// The settler collects a batch for at most 1 ms, even if further attempts keep ending. Without this limit, handlers
/// that keep their threads busy could delay the batch.
const LONGEST_COLLECTING: Duration = Duration::from_millis(1);
/// While more than 1000 endings wait for locks of other sessions, the settler takes no further ending. The slots then
/// fill up, and the worker claims no more jobs.
const MOST_LOCKED: usize = 1000;
/// The time between two counts of the locked endings.
const COUNT_LOCKED_EVERY: Duration = Duration::from_millis(50);

/// Settles the endings that attempts send.
pub(crate) struct Settler {
    attempts: Arc<Attempts>,
    inbox: mpsc::Receiver<Settlement>,
}

impl Settler {
    pub(crate) fn new(attempts: &Arc<Attempts>, inbox: mpsc::Receiver<Settlement>) -> Settler {
        Settler { attempts: Arc::clone(attempts), inbox }
    }

    /// Runs until the inbox is closed and every ending is settled.
    pub(crate) async fn run(mut self) {
        let Attempts { driver, held_jobs, reconnected, parts, .. } = &*self.attempts;
        let (driver, held_jobs) = (Arc::clone(driver), Arc::clone(held_jobs));
        let recorder = Recorder { driver, held_jobs: Arc::clone(&held_jobs), reconnected: reconnected.clone() };
        let (locked, locked_inbox) = mpsc::unbounded_channel();
        let locked_settler = LockedSettler::new(recorder.clone(), locked_inbox);
        let locked_settler = AbortOnDropHandle::new(parts.spawn("the settler of locked jobs", locked_settler.run()));
        let mut batch = Vec::new();
        while self.inbox.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
            self.take_ready(&mut batch).await;
            while held_jobs.count_locked() > MOST_LOCKED {
                tokio::time::sleep(COUNT_LOCKED_EVERY).await;
            }
            for ending in recorder.record(std::mem::take(&mut batch)).await {
                let _ = locked.send(ending);
            }
        }
        drop(locked);
        let _ = locked_settler.await;
    }

    /// Collects the endings of attempts that end at the same time. The first of these endings wakes the settler before
    /// the other attempts have sent theirs. Without this wait, the settler would settle that ending alone.
    async fn take_ready(&mut self, batch: &mut Vec<Settlement>) {
        let (began, mut before) = (Instant::now(), 0);
        while before < batch.len() && batch.len() < LARGEST_BATCH && began.elapsed() < LONGEST_COLLECTING {
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
