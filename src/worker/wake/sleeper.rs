//! The rest of a claimer between two looks. An asleep claimer waits for its armed bell. An awake claimer looks every
//! few milliseconds, while there are many jobs.
//!
//! Commits that send a notification wait for each other, so the bell rings only for asleep claimers. A claimer arms its
//! bell before it sleeps. It then goes on looking until all earlier transactions have ended, since an earlier
//! transaction may commit jobs without ringing the bell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::driver::{Driver, OpenTransaction};
use crate::error::Result;
use crate::worker::backoff::Backoff;
use crate::worker::bells::{ListenerState, Wake, WakeReason};
use crate::worker::shared::Shared;

/// The rest of an awake claimer between two looks: 3 ms for each worker of the queue, 50 ms at most.
const NAP_PER_WORKER: Duration = Duration::from_millis(3);
const LONGEST_NAP: Duration = Duration::from_millis(50);
/// An awake claimer goes to sleep once at most half of its last 32 looks found a job. If other workers share the queue,
/// the limit is a quarter, since every bell wakes all of these workers.
const COUNTED_LOOKS: u32 = 32;
const CALM_SHARE_ALONE: u32 = 2;
const CALM_SHARE_WITH_OTHERS: u32 = 4;
/// A claimer that has disarmed its bell stays awake for at least 1 s, so that it arms the bell at most about once a
/// second. If the bell holds producers up again soon after the claimer went to sleep, the time awake doubles, to 16 s
/// at most.
const SHORTEST_AWAKE: Duration = Duration::from_secs(1);
const LONGEST_AWAKE: Duration = Duration::from_secs(16);
/// A claimer that was woken 32 times within 100 ms disarms its bell and stays awake.
const BUSY_WAKEUPS: u32 = 32;
const BUSY_WITHIN: Duration = Duration::from_millis(100);
/// A claimer also stays awake after two checks in a row, 100 ms apart, have found notifying commits that wait for each
/// other. The number of wake-ups alone does not show this: if a commit takes several milliseconds, 32 wake-ups never
/// come within 100 ms.
const HELD_UP_TIMES: u32 = 2;
const ASK_WHETHER_HELD_UP_EVERY: Duration = Duration::from_millis(100);
/// A look that returned as many jobs as it asked for counts as 8 looks that found a job. It also counts as 8 wake-ups,
/// because so many jobs would have rung the bell many times.
const FULL_LOOK: u32 = 8;
/// The pause between two checks whether transactions have ended: a twentieth of the time waited so far, at least 1 ms.
/// The pause grows with the wait, so that a long wait costs few checks.
const CHECKS_PER_WAIT: u32 = 20;
const SHORTEST_CHECK_PAUSE: Duration = Duration::from_millis(1);

/// Decides how one claimer rests, and arms and disarms its bell.
pub(crate) struct Sleeper {
    shared: Arc<Shared>,
    queue: Arc<str>,
    pub(crate) wake: Wake,
    state: SleepState,
    awake_for: AwakeFor,
    backoff: Backoff,
}

/// The state of a claimer: awake, about to sleep, or asleep.
enum SleepState {
    /// The bell is not armed, and the claimer looks without a bell. `until`: the claimer has disarmed its bell and
    /// stays awake at least until this time. `looks`: the number of looks counted so far. `finds`: the number of these
    /// looks that found a job.
    Awake { until: Option<Instant>, looks: u32, finds: u32 },
    /// The bell is armed, but the transactions in `silent` may still commit jobs without ringing it.
    Arming { armed: ArmedBell, silent: Vec<OpenTransaction> },
    /// The bell is armed, and rings for every job.
    Asleep { armed: ArmedBell },
}

/// An armed bell, and the costs that it has caused since it was armed.
#[derive(Clone, Copy)]
struct ArmedBell {
    armed_at: Instant,
    /// The worker id for which the bell is armed. Under another id, the armed bell is useless.
    worker: i64,
    /// The state of the listener when the bell was armed. A listener that has connected again since may have missed
    /// rings.
    listener: ListenerState,
    wakeups: u32,
    wakeups_counted_from: Instant,
    /// The number of checks in a row that found notifying commits waiting for each other.
    held_up: u32,
    ask_whether_held_up_at: Instant,
}

impl SleepState {
    fn new() -> SleepState {
        SleepState::Awake { until: None, looks: 0, finds: 0 }
    }
}

impl ArmedBell {
    fn new(worker: i64, listener: ListenerState) -> ArmedBell {
        let now = Instant::now();
        ArmedBell {
            armed_at: now,
            worker,
            listener,
            wakeups: 0,
            wakeups_counted_from: now,
            held_up: 0,
            ask_whether_held_up_at: now + ASK_WHETHER_HELD_UP_EVERY,
        }
    }
}

/// The time for which the claimer stays awake after its bell held producers up. If the last sleep was shorter than this
/// time, the time doubles. Otherwise it starts again at 1 s.
struct AwakeFor(Duration);

impl AwakeFor {
    fn new() -> AwakeFor {
        AwakeFor(SHORTEST_AWAKE)
    }

    fn after(&mut self, slept: Duration) -> Duration {
        self.0 = if slept < self.0 { (self.0 * 2).min(LONGEST_AWAKE) } else { SHORTEST_AWAKE };
        self.0
    }
}

impl Sleeper {
    pub(crate) fn new(shared: &Arc<Shared>, queue: &Arc<str>) -> Sleeper {
        Sleeper {
            shared: Arc::clone(shared),
            queue: Arc::clone(queue),
            wake: shared.bells.wake(queue, shared.options.poll_interval, shared.options.listen),
            state: SleepState::new(),
            awake_for: AwakeFor::new(),
            backoff: shared.backoff("arm the bell"),
        }
    }

    /// Rests until there is a reason to look again. Call this once no look finds more due jobs. `found`: looks have
    /// returned jobs since the last rest. `due_in`: the time until the next known job is due.
    pub(crate) async fn rest(&mut self, found: bool, due_in: Option<Duration>) -> WakeReason {
        match self.try_rest(found, due_in).await {
            Ok(reason) => {
                self.backoff.worked();
                reason
            }
            Err(error) => {
                self.state = SleepState::new();
                let rest = self.backoff.failed(&error);
                tokio::select! {
                    () = rest.over() => WakeReason::Poll,
                    reason = self.wake.next(due_in) => reason,
                }
            }
        }
    }

    async fn try_rest(&mut self, found: bool, due_in: Option<Duration>) -> Result<WakeReason> {
        let silenced = self.wake.take_silenced();
        let Some(listener) = self.wake.listener().filter(|listener| listener.connected) else {
            // Without a connected listener no bell can arrive, so the claimer polls.
            self.state = SleepState::new();
            self.wake.set_armed(false);
            return Ok(self.wake.next(due_in).await);
        };
        let worker = self.shared.id();
        if self.armed().is_some_and(|armed| silenced || (armed.worker, armed.listener) != (worker, listener)) {
            self.state = SleepState::new();
        }
        let is_armed = self.armed().is_some();
        self.wake.set_armed(is_armed);
        if found {
            self.disarm_if_commits_wait().await?;
        }
        let (nap, shared) = (self.nap(), self.is_shared());
        match &mut self.state {
            SleepState::Awake { until, looks, finds } => {
                (*looks, *finds) = (*looks + 1, *finds + u32::from(found));
                let calm = match until {
                    None => !found,
                    Some(until) => is_calm(*looks, *finds, shared) && Instant::now() >= *until,
                };
                if *looks >= COUNTED_LOOKS {
                    (*looks, *finds) = (0, 0);
                }
                if !calm {
                    return Ok(self.wake.nap(sooner_of(due_in, nap)).await);
                }
                let silent = self.shared.driver.arm(worker, &self.queue).await?;
                tokio::spawn(warm_up(Arc::clone(&self.shared.driver)));
                self.state = SleepState::Arming { armed: ArmedBell::new(worker, listener), silent };
                Ok(WakeReason::Armed)
            }
            // All transactions that could commit jobs without ringing the bell have ended, and the claimer has looked
            // since then. The bell rings for every further job.
            SleepState::Arming { armed, silent } if silent.is_empty() => {
                self.state = SleepState::Asleep { armed: *armed };
                self.sleep(due_in).await
            }
            SleepState::Arming { armed, silent } => {
                *silent = self.shared.driver.still_open(silent).await?;
                if silent.is_empty() {
                    return Ok(WakeReason::Armed);
                }
                let pause = (armed.armed_at.elapsed() / CHECKS_PER_WAIT).max(SHORTEST_CHECK_PAUSE);
                self.sleep(Some(sooner_of(due_in, pause))).await
            }
            SleepState::Asleep { .. } => self.sleep(due_in).await,
        }
    }

    async fn sleep(&mut self, due_in: Option<Duration>) -> Result<WakeReason> {
        let reason = self.wake.next(due_in).await;
        if reason == WakeReason::Bell {
            self.count_wakeups(1).await?;
        }
        Ok(reason)
    }

    /// Returns true if other workers work the same queues.
    fn is_shared(&self) -> bool {
        self.shared.sharing() > 0
    }

    fn nap(&self) -> Duration {
        let workers = u32::try_from(self.shared.sharing() + 1).unwrap_or(u32::MAX);
        NAP_PER_WORKER.saturating_mul(workers).min(LONGEST_NAP)
    }

    /// Counts wake-ups that led to work. After 32 wake-ups within 100 ms, disarms the bell, since the claimer hardly
    /// sleeps.
    async fn count_wakeups(&mut self, wakeups: u32) -> Result<()> {
        let Some(armed) = self.armed() else { return Ok(()) };
        if armed.wakeups_counted_from.elapsed() > BUSY_WITHIN {
            (armed.wakeups, armed.wakeups_counted_from) = (0, Instant::now());
        }
        armed.wakeups += wakeups;
        if armed.wakeups >= BUSY_WAKEUPS { self.disarm().await } else { Ok(()) }
    }

    /// Disarms the bell once two checks in a row have found notifying commits that wait: the bell then slows producers
    /// down.
    async fn disarm_if_commits_wait(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.armed().is_none_or(|armed| now < armed.ask_whether_held_up_at) {
            return Ok(());
        }
        let wait = self.shared.driver.signals_wait().await?;
        let Some(armed) = self.armed() else { return Ok(()) };
        // After a slow answer the pause is longer, so that these checks take little of the database's time.
        let pause = ASK_WHETHER_HELD_UP_EVERY.max(now.elapsed() * CHECKS_PER_WAIT);
        armed.ask_whether_held_up_at = Instant::now() + pause;
        armed.held_up = if wait { armed.held_up + 1 } else { 0 };
        if armed.held_up < HELD_UP_TIMES {
            return Ok(());
        }
        let slept = armed.armed_at.elapsed();
        let awake_for = self.awake_for.after(slept);
        self.disarm_for(awake_for).await
    }

    /// Notes that two looks in a row returned jobs without a rest between them. This counts as one wake-up.
    pub(crate) async fn found_again(&mut self) -> Result<()> {
        self.count_wakeups(1).await
    }

    /// Notes that a look returned as many jobs as it asked for. This counts as `FULL_LOOK` wake-ups, because so many
    /// jobs would have rung the bell many times.
    pub(crate) async fn look_was_full(&mut self) -> Result<()> {
        if let SleepState::Awake { looks, finds, .. } = &mut self.state {
            (*looks, *finds) = (*looks + FULL_LOOK, *finds + FULL_LOOK);
        }
        self.count_wakeups(FULL_LOOK).await
    }

    /// Disarms the bell and keeps it disarmed for at least 1 s.
    pub(crate) async fn disarm(&mut self) -> Result<()> {
        self.disarm_for(SHORTEST_AWAKE).await
    }

    async fn disarm_for(&mut self, at_least: Duration) -> Result<()> {
        if let Some(&mut ArmedBell { worker, .. }) = self.armed() {
            // First stop relying on the bell. Otherwise a heartbeat could report that another session has silenced the
            // bell.
            self.wake.set_armed(false);
            self.shared.driver.disarm(worker, &self.queue).await?;
            self.state = SleepState::Awake { until: Some(Instant::now() + at_least), looks: 0, finds: 0 };
        }
        Ok(())
    }

    /// Returns true if the claimer is awake, so that its next look comes within 50 ms.
    pub(crate) fn is_awake(&self) -> bool {
        matches!(self.state, SleepState::Awake { .. })
            && self.wake.listener().is_some_and(|listener| listener.connected)
    }

    /// Returns true if the claimer is asleep, so that the bell rings for every job.
    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self.state, SleepState::Asleep { .. })
    }

    fn armed(&mut self) -> Option<&mut ArmedBell> {
        match &mut self.state {
            SleepState::Awake { .. } => None,
            SleepState::Arming { armed, .. } | SleepState::Asleep { armed } => Some(armed),
        }
    }
}

/// Prepares connections for the next burst of jobs, while this worker has nothing to do.
async fn warm_up(driver: Arc<dyn Driver>) {
    if let Err(error) = driver.warm_up().await {
        tracing::debug!(
            name: "worker.warm_up_failed", target: "reveille::worker", %error,
            "cannot open connections in advance; the next burst of jobs will wait for them"
        );
    }
}

/// Returns true if few enough of the last looks found jobs, so that the claimer may go to sleep. `finds`: the number of
/// looks that found jobs. `shared`: other workers claim from the same queue.
fn is_calm(looks: u32, finds: u32, shared: bool) -> bool {
    looks >= COUNTED_LOOKS && finds <= looks / if shared { CALM_SHARE_WITH_OTHERS } else { CALM_SHARE_ALONE }
}

fn sooner_of(due_in: Option<Duration>, nap: Duration) -> Duration {
    due_in.map_or(nap, |due_in| due_in.min(nap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Memory;

    #[tokio::test(start_paused = true)]
    async fn bells_lead_to_one_look_in_3_ms_at_most() {
        let shared = crate::worker::shared::tests::shared(&Memory::new(), &["mail"]);
        let (mut sleeper, bells) = (Sleeper::new(&shared, &"mail".into()), &shared.bells);
        bells.listener_connected();
        let began = tokio::time::Instant::now();
        for look in 0..1000 {
            bells.ring("mail");
            sleeper.rest(look % 10 == 0, None).await;
        }
        // The claimer is asleep during the first rings, so these looks are not delayed.
        assert!(began.elapsed() >= NAP_PER_WORKER * 900, "{:?}", began.elapsed());
    }

    #[test]
    fn a_claimer_is_calm_when_few_of_32_looks_find_a_job() {
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
    fn a_claimer_stays_awake_twice_as_long_after_each_short_sleep() {
        let (mut awake_for, short) = (AwakeFor::new(), Duration::from_millis(300));
        let times: Vec<u64> = (0..6).map(|_| awake_for.after(short).as_secs()).collect();
        assert_eq!(times, [2, 4, 8, 16, 16, 16]);
        assert_eq!(awake_for.after(Duration::from_secs(15)).as_secs(), 16);
        assert_eq!(awake_for.after(Duration::from_secs(17)).as_secs(), 1, "it slept long enough");
    }
}
