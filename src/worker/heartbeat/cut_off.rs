//! What a worker does that cannot reach the store: it tells its handlers to stop, before others may run their jobs.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{MISSED_BEATS, SOONEST};
use crate::worker::shared::Shared;

/// How long before others may declare it dead a worker that cannot beat tells its handlers to stop, if its session is
/// not gone.
const MARGIN: Duration = Duration::from_secs(5);

/// What a worker does that is cut off from the store: it tells its handlers to stop, before others may run their jobs.
pub(super) struct CutOff {
    shared: Arc<Shared>,
}

impl CutOff {
    pub(super) fn new(shared: &Arc<Shared>) -> CutOff {
        CutOff { shared: Arc::clone(shared) }
    }

    pub(super) async fn watch(&self, good: &Cell<Instant>) {
        let (mut told_after, mut standstill) = (None, Standstill::new(Instant::now()));
        loop {
            tokio::time::sleep(self.shared.options.heartbeat / 8).await;
            if standstill.is_excuse(Instant::now(), good.get(), self.shared.options.heartbeat) {
                continue;
            }
            let silent = good.get().elapsed();
            if silent >= self.patience() && told_after != Some(good.get()) {
                told_after = Some(good.get());
                tracing::warn!(
                    name: "worker.cut_off", target: "reveille::worker", ?silent,
                    "cut off from the store; telling handlers to stop, as others may run their jobs soon"
                );
                self.shared.held.stop_all();
            }
        }
    }

    /// How long it may be silent: not long once the session is gone that vouched for it.
    fn patience(&self) -> Duration {
        let late = self.shared.options.dead_after().saturating_sub(MARGIN.min(self.shared.options.dead_after() / 4));
        if self.shared.bells.is_deaf() {
            (self.shared.options.heartbeat * MISSED_BEATS - self.shared.options.heartbeat / 2).max(SOONEST).min(late)
        } else {
            late
        }
    }
}

/// Notices that this very process stood still, as when it was stopped: then the silence says nothing, and whether the
/// worker is cut off the next beat will tell.
struct Standstill {
    looked: Instant,
    /// The last one: after which good beat, and when it was over.
    last: Option<(Instant, Instant)>,
}

impl Standstill {
    fn new(now: Instant) -> Standstill {
        Standstill { looked: now, last: None }
    }

    /// To be asked several times an interval; excuses for one interval after a standstill, and once after each good
    /// beat.
    fn is_excuse(&mut self, now: Instant, good: Instant, interval: Duration) -> bool {
        self.last = self.last.filter(|(after, _)| *after == good);
        if now - self.looked > interval {
            self.last.get_or_insert((good, now));
        }
        self.looked = now;
        self.last.is_some_and(|(_, over)| now - over < interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_process_that_stood_still_waits_for_one_beat_before_it_holds_itself_for_cut_off() {
        let start = Instant::now();
        let at = |tenths| start + SECOND * tenths / 10;
        let mut standstill = Standstill::new(start);
        assert!(!standstill.is_excuse(at(10), start, SECOND), "it has looked in time");
        assert!(standstill.is_excuse(at(60), start, SECOND), "it has been stopped for five seconds");
        assert!(standstill.is_excuse(at(69), start, SECOND));
        assert!(!standstill.is_excuse(at(70), start, SECOND), "no beat has come");
        assert!(!standstill.is_excuse(at(90), start, SECOND), "and it is not excused for ever");
        assert!(standstill.is_excuse(at(120), at(95), SECOND), "after a beat it is again");
    }
}
