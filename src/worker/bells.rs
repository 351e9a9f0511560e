//! The bells of a worker's queues, and the other events that wake a claimer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::worker::pauses::Pauses;

/// The time between two looks while the listener is disconnected.
const POLL_WHILE_DISCONNECTED: Duration = Duration::from_millis(100);

/// One bell for each queue of the worker, one for its schedules, and the state of its listener.
pub(crate) struct Bells {
    queues: HashMap<String, Bell>,
    schedules: Arc<Notify>,
    listener: watch::Sender<ListenerState>,
}

#[derive(Clone, Default)]
struct Bell {
    rung: Arc<Notify>,
    pauses: Arc<Pauses>,
    arming: Arc<ArmState>,
}

/// `armed`: the claimer relies on its bell. `silenced`: a heartbeat has found that the store does not ring that bell.
#[derive(Default)]
struct ArmState {
    armed: AtomicBool,
    silenced: AtomicBool,
}

/// The state of the listener: whether it is connected, and the number of times that it has connected so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ListenerState {
    pub(crate) connected: bool,
    pub(crate) connections: u64,
    /// True if notifications cannot arrive, as behind a transaction pooler. Claimers then poll as they do without a
    /// listener.
    pub(crate) unsupported: bool,
}

impl Bells {
    pub(crate) fn new<'a>(queues: impl IntoIterator<Item = &'a str>) -> Bells {
        let queues = queues.into_iter().map(|queue| (queue.to_owned(), Bell::default())).collect();
        Bells { queues, schedules: Arc::default(), listener: watch::Sender::default() }
    }

    /// Wakes the claimer of this queue. Several rings before the claimer's next sleep count as one.
    pub(crate) fn ring(&self, queue: &str) {
        if let Some(bell) = self.queues.get(queue) {
            bell.rung.notify_one();
        }
    }

    /// Returns the worker's queues.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str)
    }

    /// Returns true if this worker works the queue.
    pub(crate) fn has(&self, queue: &str) -> bool {
        self.queues.contains_key(queue)
    }

    /// Wakes the task that fires schedules: the next tick may come sooner than the task expects.
    pub(crate) fn ring_for_schedules(&self) {
        self.schedules.notify_one();
    }

    /// Notes that this queue was paused. A job that was claimed before the pause must not start.
    pub(crate) fn pause(&self, queue: &str) {
        if let Some(bell) = self.queues.get(queue) {
            bell.pauses.add();
        }
    }

    pub(crate) fn pauses(&self, queue: &str) -> Arc<Pauses> {
        self.queues.get(queue).cloned().unwrap_or_default().pauses
    }

    /// Returns the queues whose claimers rely on their bells.
    pub(crate) fn armed(&self) -> Vec<String> {
        let armed = self.queues.iter().filter(|(_, bell)| bell.arming.armed.load(Ordering::Acquire));
        armed.map(|(queue, _)| queue.clone()).collect()
    }

    /// Makes the claimer of this queue arm its bell anew, since the store does not ring the bell. Does nothing and
    /// returns false if the claimer does not rely on its bell.
    pub(crate) fn arm_anew(&self, queue: &str) -> bool {
        let Some(bell) = self.queues.get(queue).filter(|bell| bell.arming.armed.load(Ordering::Acquire)) else {
            return false;
        };
        bell.arming.silenced.store(true, Ordering::Release);
        bell.rung.notify_one();
        true
    }

    /// Wakes all claimers and the task that fires schedules.
    pub(crate) fn ring_all(&self) {
        self.queues.values().for_each(|bell| bell.rung.notify_one());
        self.schedules.notify_one();
    }

    /// Notes that the listener is connected. All claimers look at once, since they may have missed notifications.
    pub(crate) fn listener_connected(&self) {
        self.listener.send_modify(|listener| {
            *listener = ListenerState { connected: true, connections: listener.connections + 1, unsupported: false };
        });
        self.ring_all();
    }

    /// Notes that the listener is disconnected. All claimers poll every 100 ms until it is connected again.
    pub(crate) fn listener_disconnected(&self) {
        self.listener.send_modify(|listener| (listener.connected, listener.unsupported) = (false, false));
    }

    /// Notes that notifications cannot arrive on this connection. All claimers poll at the worker's poll interval.
    pub(crate) fn listener_unsupported(&self) {
        self.listener.send_modify(|listener| (listener.connected, listener.unsupported) = (false, true));
    }

    /// Returns true if the listener was connected once, and is not connected now.
    pub(crate) fn has_lost_listener(&self) -> bool {
        let listener = self.listener.borrow();
        !listener.connected && listener.connections > 0
    }

    /// Returns the events that wake the claimer of a queue. Without `listen`, the claimer only polls, at the interval
    /// `poll`.
    pub(crate) fn wake(&self, queue: &str, poll: Duration, listen: bool) -> Wake {
        self.wake_by(self.queues.get(queue).cloned().unwrap_or_default(), poll, listen)
    }

    /// Returns the events that wake the task that fires schedules.
    #[cfg(feature = "schedules")]
    pub(crate) fn wake_for_schedules(&self, poll: Duration, listen: bool) -> Wake {
        self.wake_by(Bell { rung: Arc::clone(&self.schedules), ..Bell::default() }, poll, listen)
    }

    fn wake_by(&self, bell: Bell, poll: Duration, listen: bool) -> Wake {
        let Bell { rung, arming, .. } = bell;
        Wake { bell: rung, arming, nudge: Arc::default(), listener: listen.then(|| self.listener.subscribe()), poll }
    }
}

/// The event that ended a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeReason {
    /// The bell rang, or the listener is connected again.
    Bell,
    /// The next delayed job is due, a timer of the claimer has expired, or a background task of the claimer is done.
    Due,
    /// The poll interval is over.
    Poll,
    /// The claimer has just armed its bell, or the last transaction that could commit jobs without ringing the bell has
    /// ended. In both cases, the claimer looks for jobs that were committed without ringing the bell.
    Armed,
}

/// The events that wake one claimer.
pub(crate) struct Wake {
    bell: Arc<Notify>,
    arming: Arc<ArmState>,
    nudge: Arc<Notify>,
    listener: Option<watch::Receiver<ListenerState>>,
    poll: Duration,
}

impl Wake {
    /// Returns a handle by which the claimer's background tasks wake the claimer, with [`WakeReason::Due`].
    pub(crate) fn nudge(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
    }

    /// Returns the state of the listener; `None` if the worker does not listen.
    pub(crate) fn listener(&self) -> Option<ListenerState> {
        self.listener.as_ref().map(|listener| *listener.borrow())
    }

    /// Notes whether the claimer relies on its bell.
    pub(crate) fn set_armed(&self, armed: bool) {
        self.arming.armed.store(armed, Ordering::Release);
    }

    /// Returns true if [`Bells::arm_anew`] was called since the last call of this method: the bell then has to be armed
    /// anew.
    pub(crate) fn take_silenced(&self) -> bool {
        self.arming.silenced.swap(false, Ordering::AcqRel)
    }

    /// Rests for the time `nap`, or until a background task of the claimer is done. The bell does not end this rest, so
    /// frequent rings cause no extra looks.
    pub(crate) async fn nap(&self, nap: Duration) -> WakeReason {
        tokio::select! {
            () = self.nudge.notified() => {}
            () = tokio::time::sleep(nap) => {}
        }
        WakeReason::Due
    }

    /// Sleeps until there is a reason to look. `due_in`: the time until the next known job is due.
    pub(crate) async fn next(&mut self, due_in: Option<Duration>) -> WakeReason {
        tokio::select! {
            () = self.bell.notified() => WakeReason::Bell,
            () = self.nudge.notified() => WakeReason::Due,
            () = sleep(due_in) => WakeReason::Due,
            () = poll(self.poll, self.listener.as_mut()) => WakeReason::Poll,
        }
    }
}

/// Waits for the next poll. While the listener is disconnected, the next poll comes after 100 ms.
async fn poll(interval: Duration, listener: Option<&mut watch::Receiver<ListenerState>>) {
    let Some(listener) = listener else { return tokio::time::sleep(interval).await };
    let disconnected = async {
        loop {
            if listener.wait_for(|listener| !listener.connected && !listener.unsupported).await.is_err() {
                return std::future::pending().await;
            }
            // If the listener is connected again within the 100 ms, no poll is needed, because `listener_connected`
            // rings all bells.
            let connected = listener.wait_for(|listener| listener.connected || listener.unsupported);
            if tokio::time::timeout(POLL_WHILE_DISCONNECTED, connected).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = tokio::time::sleep(interval) => {}
        () = disconnected => {}
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn several_rings_before_a_sleep_end_it_once() {
        let bells = Bells::new(["mail"]);
        bells.listener_connected();
        let mut wake = bells.wake("mail", HOUR, true);
        bells.ring("mail");
        bells.ring("mail");
        assert_eq!(wake.next(None).await, WakeReason::Bell);
        assert_eq!(wake.next(Some(Duration::from_millis(1))).await, WakeReason::Due);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_reason_wins() {
        let bells = Bells::new(["mail"]);
        let mut wake = bells.wake("mail", Duration::from_secs(5), false);
        assert_eq!(wake.next(Some(Duration::from_secs(4))).await, WakeReason::Due);
        assert_eq!(wake.next(Some(Duration::from_secs(6))).await, WakeReason::Poll);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claimer_polls_quickly_only_without_its_listener() {
        let bells = Bells::new(["mail"]);
        let mut wake = bells.wake("mail", HOUR, true);
        let start = Instant::now();
        assert_eq!(wake.next(None).await, WakeReason::Poll);
        assert_eq!(start.elapsed(), POLL_WHILE_DISCONNECTED);

        bells.listener_connected();
        assert_eq!(wake.next(None).await, WakeReason::Bell, "the claimer looks at once for what it missed");
        let start = Instant::now();
        assert_eq!(wake.next(None).await, WakeReason::Poll);
        assert_eq!(start.elapsed(), HOUR);

        bells.listener_disconnected();
        let start = Instant::now();
        assert_eq!(wake.next(None).await, WakeReason::Poll);
        assert_eq!(start.elapsed(), POLL_WHILE_DISCONNECTED);
    }

    #[tokio::test(start_paused = true)]
    async fn without_notifications_a_claimer_polls_at_its_own_interval() {
        let bells = Bells::new(["mail"]);
        let mut wake = bells.wake("mail", HOUR, true);
        bells.listener_unsupported();
        let start = Instant::now();
        assert_eq!(wake.next(None).await, WakeReason::Poll);
        assert_eq!(start.elapsed(), HOUR);
        assert!(!bells.has_lost_listener(), "a listener that was never connected is not lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_ring_for_another_queue_wakes_no_claimer() {
        let bells = Bells::new(["mail"]);
        let mut wake = bells.wake("mail", Duration::from_secs(5), false);
        bells.ring("other");
        assert_eq!(wake.next(None).await, WakeReason::Poll);
    }
}
