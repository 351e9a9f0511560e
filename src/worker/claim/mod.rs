//! The claimer of one queue: it looks for due jobs whenever there is a reason to look, and starts one job per free
//! slot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::driver::Marks;
use crate::error::{Error, Result};
use crate::worker::backoff::Backoff;
use crate::worker::bells::WakeReason;
use crate::worker::claim::claim_size::ClaimSize;
use crate::worker::claim::look::{Look, LookBack, LookBackAnswer};
use crate::worker::claim::low_water::LowWater;
use crate::worker::claim::slots::Slots;
use crate::worker::shared::Shared;
use crate::worker::wake::sleeper::Sleeper;

mod ahead;
pub(crate) mod claim_size;
pub(crate) mod look;
pub(crate) mod look_budget;
pub(crate) mod low_water;
mod pace;
pub(crate) mod slots;

/// A claimer without a free slot for 50 ms disarms its bell.
const DISARM_WHEN_FULL_FOR: Duration = Duration::from_millis(50);
/// The delay before the next look after another session has locked a due job. The delay doubles with each further look,
/// up to 50 ms.
const FIRST_LOCKED_DELAY: Duration = Duration::from_millis(1);
const LONGEST_LOCKED_DELAY: Duration = Duration::from_millis(50);

/// Claims the jobs of one queue.
pub(crate) struct Claimer {
    shared: Arc<Shared>,
    queue: Arc<str>,
    slots: Slots,
    low_water: LowWater,
    sleeper: Sleeper,
    stop: CancellationToken,
    under_way: UnderWay,
    /// True if a look has found jobs since the last call of `rest`.
    found: bool,
    /// Until this time, the claimer leaves a full queue to the other workers.
    rests_until: Option<Instant>,
    claim_size: ClaimSize,
    /// The last known value of `Shared::stray_releases`. When the value changes, this claimer forgets its marks.
    stray_releases: u64,
}

/// The looks that run in the background.
#[derive(Default)]
struct UnderWay {
    looks: VecDeque<Look>,
    look_back: Option<LookBack>,
}

impl UnderWay {
    /// Returns the number of jobs that these looks may return.
    fn wanted(&self) -> usize {
        self.looks.iter().map(|look| look.wanted).sum()
    }

    /// Returns, for each level, the lowest place from which these looks may take jobs.
    fn lowest_start(&self) -> Option<Marks> {
        self.looks.iter().map(|look| look.start.marks).reduce(low_water::lower)
    }
}

/// The next step of the claimer after a look.
enum LookResult {
    /// Look again: more jobs may be due, or the due time of the next job is unknown.
    LookAgain,
    /// Rest: the only due jobs that are left, if any, are jobs that other sessions have locked. `found`: looks have
    /// found jobs since the last rest. `due_in`: the time until the next job is due.
    Rest { found: bool, due_in: Option<Duration> },
}

impl Claimer {
    /// Returns a claimer of this queue. Once `stop` is cancelled, the claimer ends after the claims under way.
    pub(crate) fn new(shared: &Arc<Shared>, queue: Arc<str>, slots: Slots, stop: CancellationToken) -> Claimer {
        Claimer {
            shared: Arc::clone(shared),
            sleeper: Sleeper::new(shared, &queue),
            queue,
            slots,
            stop,
            low_water: LowWater::default(),
            under_way: UnderWay::default(),
            found: false,
            rests_until: None,
            claim_size: ClaimSize::default(),
            stray_releases: 0,
        }
    }

    /// Claims jobs until `stop` is cancelled. Then awaits the claims under way, since their jobs would otherwise stay
    /// reserved without being held.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut backoff = self.shared.backoff("claim jobs");
        let mut locked_delay = FIRST_LOCKED_DELAY;
        while let Some(look) = stop.run_until_cancelled(self.next_look()).await {
            let result = match look {
                Ok(look) => self.finish(look).await,
                Err(error) => Err(error),
            };
            let (found, due_in) = match result {
                Ok(LookResult::LookAgain) => continue,
                Ok(LookResult::Rest { found, due_in }) => (found, due_in),
                Err(error) => {
                    self.recover(&error, &mut backoff).await;
                    continue;
                }
            };
            backoff.worked();
            if found || due_in != Some(Duration::ZERO) {
                locked_delay = FIRST_LOCKED_DELAY;
            }
            // If a due job was not claimed, another session has locked the job. No bell rings when that session unlocks
            // the job, so the claimer looks again after a short delay.
            let due_in = if due_in == Some(Duration::ZERO) {
                let delay = locked_delay;
                locked_delay = (locked_delay * 2).min(LONGEST_LOCKED_DELAY);
                Some(delay)
            } else {
                due_in
            };
            let reason = match stop.run_until_cancelled(self.rest(found, due_in)).await.transpose() {
                Ok(reason) => reason,
                Err(error) => {
                    self.recover(&error, &mut backoff).await;
                    continue;
                }
            };
            tracing::trace!(name: "worker.woken", target: "reveille::worker", queue = &*self.queue, ?reason, "woken");
            // While the claimer is asleep, the bell rings for every new job and ends the sleep. So if an asleep claimer
            // slept until the next known job was due, no new job has appeared.
            if !(self.sleeper.is_asleep() && reason == Some(WakeReason::Due)) {
                self.low_water.jobs_may_have_appeared();
            }
        }
        self.end().await;
    }

    /// Forgets the marks after an error. Rests if no look is under way; otherwise the next step awaits that look.
    async fn recover(&mut self, error: &Error, backoff: &mut Backoff) {
        self.low_water.forget();
        let rest = backoff.failed(error);
        if self.under_way.looks.is_empty() {
            self.stop.run_until_cancelled(rest.over()).await;
        }
    }

    /// Returns the oldest look under way. If no look is under way, begins a look as soon as the slots can take jobs.
    async fn next_look(&mut self) -> Result<Look> {
        let stray_releases = self.shared.stray_releases.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.stray_releases, stray_releases) != stray_releases {
            self.low_water.forget();
        }
        self.look_back().await?;
        if let Some(look) = self.under_way.looks.pop_front() {
            return Ok(look);
        }
        if let Some(until) = self.rests_until.take() {
            tokio::time::sleep_until(until).await;
        }
        let room = match tokio::time::timeout(DISARM_WHEN_FULL_FOR, self.slots.room()).await {
            Ok(room) => room,
            Err(_) => {
                self.sleeper.disarm().await?;
                self.slots.room().await
            }
        };
        Ok(self.look(room))
    }

    fn look(&self, room: usize) -> Look {
        let start = self.low_water.start(self.other_claims());
        Look::new(
            &self.shared,
            &self.queue,
            self.claim_size.of(room, start.shared && self.sharing() > 0),
            start,
            self.slots.pauses(),
        )
    }

    /// Awaits a look and takes its jobs. If the look has found a full queue and the slots can take still more jobs,
    /// first begins another look in the background.
    async fn finish(&mut self, look: Look) -> Result<LookResult> {
        let Look { wanted, start, pauses, began, .. } = look;
        let answer = look.answer().await.inspect_err(|_| self.claim_size.learn_failure(wanted, began.elapsed()))?;
        let claimed = answer.claimed;
        self.low_water.learn(start.marks, &claimed, wanted, answer.took);
        let count = claimed.jobs.len();
        let full = count >= wanted || claimed.more;
        self.claim_size.learn(&claimed.jobs);
        (self.slots.limited, self.slots.affordable) = (claimed.limited, self.claim_size.affordable());
        tracing::trace!(
            name: "worker.claimed", target: "reveille::worker", queue = &*self.queue, jobs = count,
            "claimed"
        );
        if full {
            let rest = if start.shared { self.slots.rest_between_claims(answer.took) } else { Duration::ZERO };
            if rest.is_zero() {
                self.begin_looks(count);
            } else {
                self.rests_until = Some(Instant::now() + rest);
            }
        }
        self.slots.take(claimed.jobs, pauses);
        drop(answer.claiming);
        if full {
            self.low_water.jobs_may_have_appeared();
            self.sleeper.look_was_full().await?;
            return Ok(LookResult::LookAgain);
        }
        if !self.under_way.looks.is_empty() {
            self.found |= count > 0;
            return Ok(LookResult::LookAgain);
        }
        let knows_next_due = count == 0 || claimed.due_in.is_some() || self.slots.limited;
        if !knows_next_due && !self.sleeper.is_awake() {
            // Only a claim that returns no job tells when the next job is due. The claimer has to know that time before
            // it sleeps.
            if std::mem::replace(&mut self.found, true) {
                self.sleeper.found_again().await?;
            }
            // Let the jobs that this look returned start before the next look.
            tokio::task::yield_now().await;
            return Ok(LookResult::LookAgain);
        }
        Ok(LookResult::Rest { found: std::mem::take(&mut self.found) || count > 0, due_in: claimed.due_in })
    }

    /// Rests until there is a reason to claim.
    ///
    /// From time to time, an asleep claimer looks back. The rest ends if a look back finds due jobs that the claims
    /// have passed. The rest also releases jobs that were claimed ahead and do not start, so that another worker can
    /// run them.
    async fn rest(&mut self, found: bool, due_in: Option<Duration>) -> Result<WakeReason> {
        let due = due_in.and_then(|due_in| Instant::now().checked_add(due_in));
        loop {
            // A look back under way wakes the claimer by a nudge when its answer is there.
            let until_look_back = match self.under_way.look_back {
                Some(_) => None,
                None => self.low_water.until_look_back(self.sharing()),
            };
            let until_due = due.map(|due| due.saturating_duration_since(Instant::now()));
            let until_stalled = self.slots.until_stalled();
            let times = until_due.into_iter().chain(until_look_back).chain(until_stalled);
            let reason = self.sleeper.rest(found, times.min()).await;
            if self.slots.release_if_stalled().await {
                return Ok(reason);
            }
            let is_due = due.is_some_and(|due| due <= Instant::now());
            let may_look_back = reason == WakeReason::Due && !is_due && self.sleeper.is_asleep();
            if !may_look_back || self.look_back().await? {
                return Ok(reason);
            }
        }
    }

    /// Begins a look in the background if the slots have room for further jobs. `taken`: the number of jobs that the
    /// last look claimed, for which the slots need room too. They also need room for the jobs that the looks under way
    /// may claim. If one look at a time leaves slots empty, begins a second look.
    fn begin_looks(&mut self, taken: usize) {
        while self.under_way.looks.len() <= self.parallel_looks() {
            let look = match self.slots.room_beside(taken, self.under_way.wanted()) {
                0 => return,
                room => self.look(room),
            };
            // A second look begins only if both looks start at the place that the claims have reached. Otherwise each
            // look would pass over the jobs of the other look.
            let is_last = !look.start.shared;
            self.under_way.looks.push_back(look.in_background());
            if is_last {
                return;
            }
        }
    }

    /// If the look back under way is over, learns from its answer. Begins another look back when it is time. Returns
    /// true if the answer is a reason to claim.
    async fn look_back(&mut self) -> Result<bool> {
        let mut is_reason = false;
        if let Some(over) = self.under_way.look_back.take_if(|look_back| look_back.is_over()) {
            let from = over.from;
            let LookBackAnswer { heads, took } = over.answer().await?;
            is_reason = self.low_water.learn_heads(from, heads, took, self.sharing());
        }
        if self.under_way.look_back.is_none()
            && let Some(from) = self.low_water.next_look_back(self.sharing(), self.under_way.lowest_start())
        {
            let look_back = LookBack::begin(&self.shared, &self.queue, from, self.sleeper.wake.nudge());
            self.under_way.look_back = Some(look_back);
        }
        Ok(is_reason)
    }

    fn sharing(&self) -> usize {
        self.shared.sharing()
    }

    /// Returns the number of looks that this claimer makes in parallel to its next look. It is 1 if no other worker
    /// works the queue and one look at a time leaves slots empty, and else 0.
    fn parallel_looks(&self) -> usize {
        usize::from(self.sharing() == 0 && self.slots.are_starved())
    }

    /// Returns the number of claims on this queue beside the next claim of this claimer.
    fn other_claims(&self) -> usize {
        self.sharing() + self.parallel_looks().max(self.under_way.looks.len())
    }

    /// Awaits the looks under way, disarms the bell, and releases all jobs that have not started.
    async fn end(mut self) {
        for look in std::mem::take(&mut self.under_way.looks) {
            let pauses = look.pauses;
            if let Ok(answer) = look.answer().await {
                self.slots.hold(answer.claimed.jobs, pauses);
            }
        }
        if let Err(error) = self.sleeper.disarm().await {
            tracing::debug!(
                name: "worker.disarm_failed", target: "reveille::worker", %error,
                "cannot disarm the bell; it stays armed until this worker's row is deleted"
            );
        }
        self.slots.release().await;
    }
}
