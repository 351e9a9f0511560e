//! The claimer of one queue: looks for due jobs whenever there is a reason to, and starts as many as there are free
//! slots.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::driver::Marks;
use crate::error::{Error, Result};
use crate::worker::backoff::Backoff;
use crate::worker::bells::Reason;
use crate::worker::claim::claim_size::ClaimSize;
use crate::worker::claim::look::{Look, LookBack};
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

/// After so long without a free slot the bell need not ring.
const FULL_FOR_LONG: Duration = Duration::from_millis(50);
/// How soon to look again for a job that is due but locked by somebody else: at first, and at most.
const LOCKED: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Claims the jobs of one queue.
pub(crate) struct Claimer {
    shared: Arc<Shared>,
    queue: Arc<str>,
    slots: Slots,
    low_water: LowWater,
    sleeper: Sleeper,
    stop: CancellationToken,
    under_way: UnderWay,
    /// Jobs were found since the last rest.
    found: bool,
    /// Until then the others claim from a full queue.
    others_turn: Option<Instant>,
    claim_size: ClaimSize,
    /// How often jobs had come back below the marks when this claimer last looked from the very start for that.
    came_back: u64,
}

/// What a claimer has begun and will come back to.
#[derive(Default)]
struct UnderWay {
    looks: VecDeque<Look>,
    look_back: Option<LookBack>,
}

impl UnderWay {
    /// How many jobs the looks may bring.
    fn wanted(&self) -> usize {
        self.looks.iter().map(|look| look.wanted).sum()
    }

    /// Below this no look claims.
    fn lowest(&self) -> Option<Marks> {
        self.looks.iter().map(|look| look.start.marks).reduce(low_water::lower)
    }
}

/// What a look has found.
enum Looked {
    /// There may be more, or the next look is to tell when something will be due.
    Again,
    /// All that were due.
    Short { found: bool, due_in: Option<Duration> },
}

impl Claimer {
    /// `stop` ends it, not in the middle of a claim.
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
            others_turn: None,
            claim_size: ClaimSize::default(),
            came_back: 0,
        }
    }

    /// Claims until told to stop; never stops in the middle of a claim, whose jobs would be reserved for nobody.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut backoff = self.shared.backoff("claim jobs");
        let mut locked = LOCKED.0;
        while let Some(look) = stop.run_until_cancelled(self.next_look()).await {
            let looked = match look {
                Ok(look) => self.finish(look).await,
                Err(error) => Err(error),
            };
            let (found, due_in) = match looked {
                Ok(Looked::Again) => continue,
                Ok(Looked::Short { found, due_in }) => (found, due_in),
                Err(error) => {
                    self.recover(&error, &mut backoff).await;
                    continue;
                }
            };
            backoff.worked();
            if found || due_in != Some(Duration::ZERO) {
                locked = LOCKED.0;
            }
            // Due and not claimed: somebody else has it locked, and may give it back in silence.
            let due_in = if due_in == Some(Duration::ZERO) {
                let delay = locked;
                locked = (locked * 2).min(LOCKED.1);
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
            // With the bell armed, nothing appears that it does not ring for.
            if !(self.sleeper.is_asleep() && reason == Some(Reason::Due)) {
                self.low_water.stir();
            }
        }
        self.end().await;
    }

    /// After an error: mistrusts the marks, and rests unless another look is under way, which does not wait for that.
    async fn recover(&mut self, error: &Error, backoff: &mut Backoff) {
        self.low_water.forget();
        let rest = backoff.failed(error);
        if self.under_way.looks.is_empty() {
            self.stop.run_until_cancelled(rest.over()).await;
        }
    }

    /// The first of the looks under way, or a new one, as soon as there is room.
    async fn next_look(&mut self) -> Result<Look> {
        let came_back = self.shared.came_back.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.came_back, came_back) != came_back {
            self.low_water.forget();
        }
        self.look_back().await?;
        if let Some(look) = self.under_way.looks.pop_front() {
            return Ok(look);
        }
        if let Some(until) = self.others_turn.take() {
            tokio::time::sleep_until(until).await;
        }
        let room = match tokio::time::timeout(FULL_FOR_LONG, self.slots.room()).await {
            Ok(room) => room,
            Err(_) => {
                self.sleeper.disarm().await?;
                self.slots.room().await
            }
        };
        Ok(self.look(room))
    }

    fn look(&self, room: usize) -> Look {
        let start = self.low_water.start(self.beside());
        Look::new(
            &self.shared,
            &self.queue,
            self.claim_size.of(room, start.shared && self.sharing() > 0),
            start,
            self.slots.pauses(),
        )
    }

    /// Takes the jobs of a look; where there may be more, and room for them, with other looks under way.
    async fn finish(&mut self, look: Look) -> Result<Looked> {
        let (wanted, start, pauses, began) = (look.wanted, look.start, look.pauses, look.began);
        let found = look.end().await.inspect_err(|_| self.claim_size.failed(wanted, began.elapsed()))?;
        self.low_water.learn(start.marks, &found.claimed, wanted, found.took);
        let count = found.claimed.jobs.len();
        let full = count >= wanted || found.claimed.more;
        self.claim_size.came(&found.claimed.jobs);
        (self.slots.limited, self.slots.affordable) = (found.claimed.limited, self.claim_size.affordable());
        tracing::trace!(
            name: "worker.claimed", target: "reveille::worker", queue = &*self.queue, jobs = count,
            "claimed"
        );
        if full {
            let turn = if start.shared { self.slots.others_turn(found.took) } else { Duration::ZERO };
            if turn.is_zero() {
                self.go_on(count);
            } else {
                self.others_turn = Some(Instant::now() + turn);
            }
        }
        self.slots.take(found.claimed.jobs, pauses);
        drop(found.under_way);
        if full {
            self.low_water.stir();
            self.sleeper.look_was_full().await?;
            return Ok(Looked::Again);
        }
        if !self.under_way.looks.is_empty() {
            self.found |= count > 0;
            return Ok(Looked::Again);
        }
        let due_in = found.claimed.due_in;
        let is_told = count == 0 || due_in.is_some() || self.slots.limited;
        if !is_told && !self.sleeper.looks_by_itself() {
            // Before it rests for long it has to know when the next job is due, which a claim tells that brings
            // nothing.
            if std::mem::replace(&mut self.found, true) {
                self.sleeper.goes_on().await?;
            }
            // These jobs begin first.
            tokio::task::yield_now().await;
            return Ok(Looked::Again);
        }
        Ok(Looked::Short { found: std::mem::take(&mut self.found) || count > 0, due_in })
    }

    /// Rests until there is a reason to claim; asleep, looks back meanwhile, which is one if it finds what was left
    /// behind. Jobs that were claimed ahead and do not start go back meanwhile, so that another worker can run them.
    async fn rest(&mut self, found: bool, due_in: Option<Duration>) -> Result<Reason> {
        let due = due_in.and_then(|due_in| Instant::now().checked_add(due_in));
        loop {
            // A look back that is under way ends the rest when it is over.
            let until_look_back = match self.under_way.look_back {
                Some(_) => None,
                None => self.low_water.until_look_back(self.sharing()),
            };
            let until_due = due.map(|due| due.saturating_duration_since(Instant::now()));
            let until_stuck = self.slots.until_stuck();
            let times = until_due.into_iter().chain(until_look_back).chain(until_stuck);
            let reason = self.sleeper.rest(found, times.min()).await;
            if self.slots.give_back_stuck().await {
                return Ok(reason);
            }
            let is_due = due.is_some_and(|due| due <= Instant::now());
            let may_look_back = reason == Reason::Due && !is_due && self.sleeper.is_asleep();
            if !may_look_back || self.look_back().await? {
                return Ok(reason);
            }
        }
    }

    /// Has looks under way while so many jobs are taken: one, and another beside it if one at a time does not keep up
    /// with the slots.
    fn go_on(&mut self, taken: usize) {
        while self.under_way.looks.len() <= self.twins() {
            let look = match self.slots.room_beside(taken, self.under_way.wanted()) {
                0 => return,
                room => self.look(room),
            };
            // Two that do not tell each other how far they get would pass over each other's jobs.
            let is_last = !look.start.shared;
            self.under_way.looks.push_back(look.in_background());
            if is_last {
                return;
            }
        }
    }

    /// Learns from a look below the marks that is over, and begins another one when it is time. Whether that is a
    /// reason to claim.
    async fn look_back(&mut self) -> Result<bool> {
        let mut is_reason = false;
        if let Some(over) = self.under_way.look_back.take_if(|look_back| look_back.is_over()) {
            let from = over.from;
            let (heads, took) = over.end().await?;
            is_reason = self.low_water.looked_back(from, heads, took, self.sharing());
        }
        if self.under_way.look_back.is_none()
            && let Some(from) = self.low_water.look_back(self.sharing(), self.under_way.lowest())
        {
            let look_back = LookBack::begin(&self.shared, &self.queue, from, self.sleeper.wake.nudge());
            self.under_way.look_back = Some(look_back);
        }
        Ok(is_reason)
    }

    fn sharing(&self) -> usize {
        self.shared.sharing()
    }

    /// How many looks it makes beside its own next one, of a full queue that nobody else works.
    fn twins(&self) -> usize {
        usize::from(self.sharing() == 0 && self.slots.are_starved())
    }

    /// How many claims are made of the queue beside its own next one.
    fn beside(&self) -> usize {
        self.sharing() + self.twins().max(self.under_way.looks.len())
    }

    /// Gives back what has not started.
    async fn end(mut self) {
        for look in std::mem::take(&mut self.under_way.looks) {
            let pauses = look.pauses;
            if let Ok(found) = look.end().await {
                self.slots.hold(found.claimed.jobs, pauses);
            }
        }
        if let Err(error) = self.sleeper.disarm().await {
            tracing::debug!(
                name: "worker.disarm_failed", target: "reveille::worker", %error,
                "the bell stays armed until this worker has taken its leave"
            );
        }
        self.slots.give_back().await;
    }
}
