//! How a queue's claimer rests: asleep with the bell armed, or, while there is much to do, awake and looking by itself.
//!
//! A commit that notifies holds up all others, so the bell rings only for those who sleep. Before it sleeps, a claimer
//! arms the bell, and then looks until no transaction is left that began before and so may commit in silence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::driver::{Driver, OpenTransaction};
use crate::error::Result;
use crate::worker::backoff::Backoff;
use crate::worker::bells::{Hearing, Reason, Wake};
use crate::worker::shared::Shared;

/// How long an awake claimer rests between two looks: 3 ms for each worker of the queue, 50 ms at most.
const NAP: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(50));
/// An awake claimer goes to sleep once at most half of its last 32 looks found a job. Where other workers share the
/// queue it is a quarter, since every bell wakes them all.
const CALM: (u32, u32, u32) = (32, 2, 4);
/// How long an awake claimer stays awake: 1 s at least, so that it arms the bell about once a second at most. This
/// grows to 16 s where its sleep has held producers up each time.
const AWAKE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(16));
/// A claimer that was woken 32 times within 100 ms stays awake.
const BUSY: (u32, Duration) = (32, Duration::from_millis(100));
/// A claimer stays awake once it has seen twice in a row, 100 ms apart, that commits which notify wait for each other.
/// Where a commit takes several milliseconds, 32 wake-ups never come within 100 ms.
const HELD_UP: (u32, Duration) = (2, Duration::from_millis(100));
/// A look that brought as many jobs as it asked for counts as 8 looks that found something, and as 8 wake-ups.
const FULL_LOOK: u32 = 8;
/// The rest between two looks for silent transactions: a twentieth of the time waited so far, 1 ms at least.
const LOOK_AGAIN: (u32, Duration) = (20, Duration::from_millis(1));

/// The rest of one queue's claimer.
pub(crate) struct Sleeper {
    shared: Arc<Shared>,
    queue: Arc<str>,
    pub(crate) wake: Wake,
    state: State,
    awake_for: AwakeFor,
    backoff: Backoff,
}

/// Whether the claimer is awake, about to sleep, or asleep.
enum State {
    /// The claimer looks by itself, and the bell is not armed. `until`: it stays awake until then, if the bell had rung
    /// too often. `looks` and `finds`: its looks of late, and how many of them found a job.
    Awake { until: Option<Instant>, looks: u32, finds: u32 },
    /// The bell is armed, but the transactions in `silent` may still commit jobs without ringing it.
    Arming { armed: Armed, silent: Vec<OpenTransaction> },
    /// The bell is armed, and rings for every job.
    Asleep { armed: Armed },
}

/// An armed bell: for which worker id and connection of the listener, how often it has rung of late, and whether the
/// notifications have held producers up.
#[derive(Clone, Copy)]
struct Armed {
    at: Instant,
    worker: i64,
    hearing: Hearing,
    rings: u32,
    counted_from: Instant,
    held_up: u32,
    ask_from: Instant,
}

impl State {
    fn new() -> State {
        State::Awake { until: None, looks: 0, finds: 0 }
    }
}

impl Armed {
    fn new(worker: i64, hearing: Hearing) -> Armed {
        let now = Instant::now();
        Armed { at: now, worker, hearing, rings: 0, counted_from: now, held_up: 0, ask_from: now + HELD_UP.1 }
    }
}

/// How long the claimer stays awake at least. The time doubles when its last sleep was shorter than this time.
struct AwakeFor(Duration);

impl AwakeFor {
    fn new() -> AwakeFor {
        AwakeFor(AWAKE.0)
    }

    fn after(&mut self, slept: Duration) -> Duration {
        let (least, most) = AWAKE;
        self.0 = if slept < self.0 { (self.0 * 2).min(most) } else { least };
        self.0
    }
}

impl Sleeper {
    pub(crate) fn new(shared: &Arc<Shared>, queue: &Arc<str>) -> Sleeper {
        Sleeper {
            shared: Arc::clone(shared),
            queue: Arc::clone(queue),
            wake: shared.bells.wake(queue, shared.options.poll_interval, shared.options.listen),
            state: State::new(),
            awake_for: AwakeFor::new(),
            backoff: shared.backoff("arm the bell"),
        }
    }

    /// After a look that left nothing to do: rests until there is a reason to look again. `found`: that look brought
    /// jobs.
    pub(crate) async fn rest(&mut self, found: bool, due_in: Option<Duration>) -> Reason {
        match self.try_rest(found, due_in).await {
            Ok(reason) => {
                self.backoff.worked();
                reason
            }
            Err(error) => {
                self.state = State::new();
                let rest = self.backoff.failed(&error);
                tokio::select! {
                    () = rest.over() => Reason::Poll,
                    reason = self.wake.next(due_in) => reason,
                }
            }
        }
    }

    async fn try_rest(&mut self, found: bool, due_in: Option<Duration>) -> Result<Reason> {
        let silenced = self.wake.take_silenced();
        let Some(hearing) = self.wake.hearing().filter(|hearing| hearing.now) else {
            // Nobody listens: the polls will have to do.
            self.state = State::new();
            self.wake.set_armed(false);
            return Ok(self.wake.next(due_in).await);
        };
        let worker = self.shared.id();
        if self.armed().is_some_and(|armed| silenced || (armed.worker, armed.hearing) != (worker, hearing)) {
            self.state = State::new();
        }
        let is_armed = self.armed().is_some();
        self.wake.set_armed(is_armed);
        if found {
            self.hold_nobody_up().await?;
        }
        let (nap, shared) = (self.nap(), self.is_shared());
        match &mut self.state {
            State::Awake { until, looks, finds } => {
                (*looks, *finds) = (*looks + 1, *finds + u32::from(found));
                let calm = match until {
                    None => !found,
                    Some(until) => is_calm(*looks, *finds, shared) && Instant::now() >= *until,
                };
                if *looks >= CALM.0 {
                    (*looks, *finds) = (0, 0);
                }
                if !calm {
                    return Ok(self.wake.nap(sooner(due_in, nap)).await);
                }
                let silent = self.shared.driver.arm(worker, &self.queue).await?;
                tokio::spawn(warm_up(Arc::clone(&self.shared.driver)));
                self.state = State::Arming { armed: Armed::new(worker, hearing), silent };
                Ok(Reason::Armed)
            }
            // Looked since the last of them was gone: nothing can come in silence any more.
            State::Arming { armed, silent } if silent.is_empty() => {
                self.state = State::Asleep { armed: *armed };
                self.sleep(due_in).await
            }
            State::Arming { armed, silent } => {
                *silent = self.shared.driver.still_open(silent).await?;
                if silent.is_empty() {
                    return Ok(Reason::Armed);
                }
                let (share, least) = LOOK_AGAIN;
                let again = (armed.at.elapsed() / share).max(least);
                self.sleep(Some(sooner(due_in, again))).await
            }
            State::Asleep { .. } => self.sleep(due_in).await,
        }
    }

    async fn sleep(&mut self, due_in: Option<Duration>) -> Result<Reason> {
        let reason = self.wake.next(due_in).await;
        if reason == Reason::Bell {
            self.stir(1).await?;
        }
        Ok(reason)
    }

    /// Whether others work the same queues.
    fn is_shared(&self) -> bool {
        self.shared.sharing() > 0
    }

    fn nap(&self) -> Duration {
        let (nap, longest) = NAP;
        let workers = u32::try_from(self.shared.sharing() + 1).unwrap_or(u32::MAX);
        nap.saturating_mul(workers).min(longest)
    }

    /// There was something to do: if that keeps happening, the bell is not needed.
    async fn stir(&mut self, wakeups: u32) -> Result<()> {
        let (many, within) = BUSY;
        let Some(armed) = self.armed() else { return Ok(()) };
        if armed.counted_from.elapsed() > within {
            (armed.rings, armed.counted_from) = (0, Instant::now());
        }
        armed.rings += wakeups;
        if armed.rings >= many { self.disarm().await } else { Ok(()) }
    }

    /// There was something to do: if commits that signal it wait for each other, and go on to, the bell does harm.
    async fn hold_nobody_up(&mut self) -> Result<()> {
        let (now, (enough, apart)) = (Instant::now(), HELD_UP);
        if self.armed().is_none_or(|armed| now < armed.ask_from) {
            return Ok(());
        }
        let wait = self.shared.driver.signals_wait().await?;
        let Some(armed) = self.armed() else { return Ok(()) };
        armed.ask_from = Instant::now() + apart.max(now.elapsed() * LOOK_AGAIN.0);
        armed.held_up = if wait { armed.held_up + 1 } else { 0 };
        if armed.held_up < enough {
            return Ok(());
        }
        let slept = armed.at.elapsed();
        let awake_for = self.awake_for.after(slept);
        self.disarm_for(awake_for).await
    }

    /// One look after another brings jobs, without a rest: as if it had been woken for each.
    pub(crate) async fn goes_on(&mut self) -> Result<()> {
        self.stir(1).await
    }

    /// A look brought as many jobs as it asked for.
    pub(crate) async fn look_was_full(&mut self) -> Result<()> {
        if let State::Awake { looks, finds, .. } = &mut self.state {
            (*looks, *finds) = (*looks + FULL_LOOK, *finds + FULL_LOOK);
        }
        self.stir(FULL_LOOK).await
    }

    /// The bell need not ring any more, for the time being.
    pub(crate) async fn disarm(&mut self) -> Result<()> {
        self.disarm_for(AWAKE.0).await
    }

    async fn disarm_for(&mut self, at_least: Duration) -> Result<()> {
        if let Some(&mut Armed { worker, .. }) = self.armed() {
            // Before the bell is silent, which is nobody else's doing then.
            self.wake.set_armed(false);
            self.shared.driver.disarm(worker, &self.queue).await?;
            self.state = State::Awake { until: Some(Instant::now() + at_least), looks: 0, finds: 0 };
        }
        Ok(())
    }

    /// Whether the next look comes soon in any case.
    pub(crate) fn looks_by_itself(&self) -> bool {
        matches!(self.state, State::Awake { .. }) && self.wake.hearing().is_some_and(|hearing| hearing.now)
    }

    /// Whether the bell rings for everything.
    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self.state, State::Asleep { .. })
    }

    fn armed(&mut self) -> Option<&mut Armed> {
        match &mut self.state {
            State::Awake { .. } => None,
            State::Arming { armed, .. } | State::Asleep { armed } => Some(armed),
        }
    }
}

/// While there is nothing else to do.
async fn warm_up(driver: Arc<dyn Driver>) {
    if let Err(error) = driver.warm_up().await {
        tracing::debug!(
            name: "worker.warm_up_failed", target: "reveille::worker", %error,
            "the next burst of jobs will wait for what is not ready"
        );
    }
}

/// Whether so little was found by enough looks that the bell may ring for it.
fn is_calm(looks: u32, finds: u32, shared: bool) -> bool {
    let (enough, alone, with_others) = CALM;
    looks >= enough && finds <= looks / if shared { with_others } else { alone }
}

fn sooner(due_in: Option<Duration>, nap: Duration) -> Duration {
    due_in.map_or(nap, |due_in| due_in.min(nap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Memory;

    #[tokio::test(start_paused = true)]
    async fn bells_that_anybody_rings_lead_to_a_look_each_3_ms_at_most() {
        let shared = crate::worker::shared::tests::shared(&Memory::new(), &["mail"]);
        let (mut sleeper, bells) = (Sleeper::new(&shared, &"mail".into()), &shared.bells);
        bells.hear();
        let began = tokio::time::Instant::now();
        for look in 0..1000 {
            bells.ring("mail");
            sleeper.rest(look % 10 == 0, None).await;
        }
        // The first of them find it asleep.
        assert!(began.elapsed() >= NAP.0 * 900, "{:?}", began.elapsed());
    }

    #[test]
    fn it_is_calm_when_few_of_many_looks_find_something() {
        for (looks, finds, shared, calm) in [
            (31, 0, false, false),
            (32, 16, false, true),
            (32, 17, false, false),
            (40, 20, false, true),
            (32, 8, true, true),
            (32, 9, true, false),
        ] {
            assert_eq!(is_calm(looks, finds, shared), calm, "{looks} {finds} {shared}");
        }
    }

    #[test]
    fn it_stays_awake_for_longer_each_time_it_was_no_good_to_sleep() {
        let (mut awake_for, soon) = (AwakeFor::new(), Duration::from_millis(300));
        let times: Vec<u64> = (0..6).map(|_| awake_for.after(soon).as_secs()).collect();
        assert_eq!(times, [2, 4, 8, 16, 16, 16]);
        assert_eq!(awake_for.after(Duration::from_secs(15)).as_secs(), 16);
        assert_eq!(awake_for.after(Duration::from_secs(17)).as_secs(), 1, "it slept well");
    }
}
