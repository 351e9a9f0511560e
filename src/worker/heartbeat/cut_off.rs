//! A worker that cannot reach the store asks its handlers to stop, before other workers may run the same jobs.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{MISSED_BEATS, SHORTEST_SILENCE};
use crate::handler::cancellation::StopReason;
use crate::worker::shared::Shared;

/// While its listener has a session, a worker asks its handlers to stop 5 s before other workers may declare the worker
/// dead.
const MARGIN: Duration = Duration::from_secs(5);
/// After a standstill, a process has two heartbeat intervals for its next heartbeat. One interval is too short on a
/// busy host, because the heartbeat's session may have timed out and must be opened anew.
const EXCUSED_BEATS: u32 = 2;

/// Asks all handlers to stop when the last successful heartbeat of this worker is too long ago.
pub(super) struct CutOff {
    shared: Arc<Shared>,
}

impl CutOff {
    pub(super) fn new(shared: &Arc<Shared>) -> CutOff {
        CutOff { shared: Arc::clone(shared) }
    }

    /// Watches until the task is dropped. `good`: the time at which the last successful heartbeat began.
    pub(super) async fn watch(&self, good: &Cell<Instant>) {
        let (mut stopped_after, mut standstill) = (None, StandstillDetector::new(Instant::now()));
        loop {
            tokio::time::sleep(self.shared.options.heartbeat / 8).await;
            if standstill.excuses(Instant::now(), good.get(), self.shared.options.heartbeat) {
                continue;
            }
            let silent = good.get().elapsed();
            if silent >= self.longest_silence() && stopped_after != Some(good.get()) {
                stopped_after = Some(good.get());
                tracing::warn!(
                    name: "worker.cut_off", target: "reveille::worker", ?silent,
                    "cut off from the store; asking handlers to stop, since other workers may soon run the same jobs"
                );
                self.shared.held_jobs.stop_all(StopReason::Lost);
            }
        }
    }

    /// Returns the time without a heartbeat after which this worker asks its handlers to stop. The time is shorter once
    /// the listener's session is lost, because other workers then declare this worker dead sooner.
    fn longest_silence(&self) -> Duration {
        let late = self.shared.options.dead_after().saturating_sub(MARGIN.min(self.shared.options.dead_after() / 4));
        if self.shared.bells.has_lost_listener() {
            let heartbeat = self.shared.options.heartbeat;
            (heartbeat * MISSED_BEATS - heartbeat / 2).max(SHORTEST_SILENCE).min(late)
        } else {
            late
        }
    }
}

/// Notices that this process itself stood still, as after a `SIGSTOP`. After a standstill, missing heartbeats do not
/// show that the store is out of reach. The next heartbeat decides whether the worker is cut off.
struct StandstillDetector {
    checked_at: Instant,
    last: Option<Standstill>,
}

#[derive(Clone, Copy)]
struct Standstill {
    /// The time of the last successful heartbeat before the standstill.
    after_beat: Instant,
    over_at: Instant,
}

impl StandstillDetector {
    fn new(now: Instant) -> StandstillDetector {
        StandstillDetector { checked_at: now, last: None }
    }

    /// Returns true if a standstill excuses the silence since the heartbeat `good`. Call this several times within each
    /// heartbeat interval.
    ///
    /// A standstill excuses the silence for two heartbeat intervals after the standstill is over. Only the first
    /// standstill after a successful heartbeat counts.
    fn excuses(&mut self, now: Instant, good: Instant, interval: Duration) -> bool {
        self.last = self.last.filter(|standstill| standstill.after_beat == good);
        if now - self.checked_at > interval {
            self.last.get_or_insert(Standstill { after_beat: good, over_at: now });
        }
        self.checked_at = now;
        self.last.is_some_and(|standstill| now - standstill.over_at < interval * EXCUSED_BEATS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_process_that_stood_still_waits_for_two_heartbeats() {
        let start = Instant::now();
        let at = |tenths| start + SECOND * tenths / 10;
        let mut standstill = StandstillDetector::new(start);
        assert!(!standstill.excuses(at(10), start, SECOND), "it has checked in time");
        assert!(standstill.excuses(at(60), start, SECOND), "it stood still for five seconds");
        assert!(standstill.excuses(at(79), start, SECOND));
        assert!(!standstill.excuses(at(80), start, SECOND), "no heartbeat has come within two intervals");
        assert!(!standstill.excuses(at(90), start, SECOND), "a second standstill is no excuse");
        assert!(standstill.excuses(at(120), at(95), SECOND), "after a good heartbeat it is one again");
    }
}
