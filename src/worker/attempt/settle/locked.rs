//! Settles the endings of jobs that other sessions have locked. A separate task retries these endings, so that they do
//! not delay other endings.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::LARGEST_BATCH;
use super::record::{LockedEnding, Recorder};
use crate::driver::Settlement;
use crate::job::Reservation;

/// The delay before the next try to settle a locked ending. The delay doubles with each try, from 50 ms up to 1 s.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// An ending that is settled once no other session locks its job.
struct Postponed {
    settlement: Settlement,
    since: Instant,
    next_try: Instant,
    delay: Duration,
}

/// Settles the endings of locked jobs.
pub(super) struct LockedSettler {
    recorder: Recorder,
    inbox: mpsc::UnboundedReceiver<LockedEnding>,
    postponed: Vec<Postponed>,
}

impl LockedSettler {
    pub(super) fn new(recorder: Recorder, inbox: mpsc::UnboundedReceiver<LockedEnding>) -> LockedSettler {
        LockedSettler { recorder, inbox, postponed: Vec::new() }
    }

    /// Runs until the inbox is closed and every ending is settled.
    pub(super) async fn run(mut self) {
        let mut is_open = true;
        while is_open || !self.postponed.is_empty() {
            let next_try = self.postponed.iter().map(|ending| ending.next_try).min();
            tokio::select! {
                received = self.inbox.recv(), if is_open => match received {
                    Some(ending) => self.postpone(ending),
                    None => is_open = false,
                },
                () = sleep_until(next_try) => self.try_again().await,
            }
            self.recorder.held_jobs.set_locked(self.postponed.len());
        }
    }

    fn postpone(&mut self, LockedEnding { settlement, locked_by }: LockedEnding) {
        let id = settlement.reservation.id;
        tracing::warn!(
            name: "job.locked", target: "reveille::job", id, by = locked_by,
            "another session has locked the job's row; the ending is recorded once that session ends its transaction"
        );
        let now = Instant::now();
        self.postponed.push(Postponed { settlement, since: now, next_try: now + FIRST_DELAY, delay: FIRST_DELAY });
    }

    async fn try_again(&mut self) {
        let now = Instant::now();
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.postponed).into_iter().partition(|ending| ending.next_try <= now);
        self.postponed = later;
        if due.len() > LARGEST_BATCH {
            self.postponed.extend(due.split_off(LARGEST_BATCH));
        }
        let batch = due.iter().map(|ending| ending.settlement.clone()).collect();
        let locked = self.recorder.record(batch).await;
        let still_locked =
            |reservation: &Reservation| locked.iter().find(|ending| ending.settlement.reservation == *reservation);
        for mut postponed in due {
            let id = postponed.settlement.reservation.id;
            let Some(ending) = still_locked(&postponed.settlement.reservation) else {
                let after = postponed.since.elapsed();
                tracing::info!(
                    name: "job.unlocked", target: "reveille::job", id, ?after,
                    "the job is no longer locked; its ending is recorded"
                );
                continue;
            };
            // Keep the returned ending: the recorder may have replaced an ending that the store refused.
            postponed.settlement = ending.settlement.clone();
            postponed.delay = (postponed.delay * 2).min(LONGEST_DELAY);
            postponed.next_try = Instant::now() + postponed.delay;
            self.postponed.push(postponed);
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
