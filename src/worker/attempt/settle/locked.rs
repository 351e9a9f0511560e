//! Endings of jobs that another session has locked: tried again apart from all others, whom they do not delay.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::LARGEST_BATCH;
use super::record::{Locked, Recorder};
use crate::driver::Settlement;
use crate::job::Reservation;

/// How soon to try again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// An ending that waits for the lock to go.
struct Waiting {
    settlement: Settlement,
    since: Instant,
    next: Instant,
    delay: Duration,
}

/// Tries again what is locked.
pub(super) struct Retries {
    recorder: Recorder,
    inbox: mpsc::UnboundedReceiver<Locked>,
    waiting: Vec<Waiting>,
}

impl Retries {
    pub(super) fn new(recorder: Recorder, inbox: mpsc::UnboundedReceiver<Locked>) -> Retries {
        Retries { recorder, inbox, waiting: Vec::new() }
    }

    /// Until nobody hands over any more and nothing waits.
    pub(super) async fn run(mut self) {
        let mut is_open = true;
        while is_open || !self.waiting.is_empty() {
            let next = self.waiting.iter().map(|waiting| waiting.next).min();
            tokio::select! {
                locked = self.inbox.recv(), if is_open => match locked {
                    Some(locked) => self.wait_for(locked),
                    None => is_open = false,
                },
                () = sleep_until(next) => self.try_again().await,
            }
            self.recorder.held.locked(self.waiting.len());
        }
    }

    fn wait_for(&mut self, Locked { settlement, by }: Locked) {
        let id = settlement.reservation.id;
        tracing::warn!(
            name: "job.locked", target: "reveille::job", id, by,
            "another session has locked the job's row; its ending is recorded once that lets go"
        );
        let now = Instant::now();
        self.waiting.push(Waiting { settlement, since: now, next: now + AGAIN.0, delay: AGAIN.0 });
    }

    /// Tries those whose time has come.
    async fn try_again(&mut self) {
        let now = Instant::now();
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.next <= now);
        self.waiting = later;
        if due.len() > LARGEST_BATCH {
            self.waiting.extend(due.split_off(LARGEST_BATCH));
        }
        let batch = due.iter().map(|waiting| waiting.settlement.clone()).collect();
        let locked = self.recorder.record(batch).await;
        let still =
            |reservation: &Reservation| locked.iter().find(|locked| locked.settlement.reservation == *reservation);
        for mut waiting in due {
            let id = waiting.settlement.reservation.id;
            let Some(locked) = still(&waiting.settlement.reservation) else {
                let after = waiting.since.elapsed();
                tracing::info!(name: "job.unlocked", target: "reveille::job", id, ?after, "the job is no longer locked");
                continue;
            };
            // What was refused is recorded as another ending.
            waiting.settlement = locked.settlement.clone();
            waiting.delay = (waiting.delay * 2).min(AGAIN.1);
            waiting.next = Instant::now() + waiting.delay;
            self.waiting.push(waiting);
        }
    }
}

async fn sleep_until(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}
