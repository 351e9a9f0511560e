//! What a sleeping claimer waits for, as one awaited answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::worker::pauses::Pauses;

/// How often to look while the listener is away.
const POLL_WHILE_DEAF: Duration = Duration::from_millis(100);

/// A bell for each queue that is worked here, and whether the listener hears.
pub(crate) struct Bells {
    queues: HashMap<String, Bell>,
    /// For who fires the schedules.
    schedules: Arc<Notify>,
    hearing: watch::Sender<Hearing>,
}

/// What is heard of one queue.
#[derive(Clone, Default)]
struct Bell {
    rung: Arc<Notify>,
    pauses: Arc<Pauses>,
    arming: Arc<Arming>,
}

/// Whether a claimer relies on its bell, and whether the store has been seen not to ring it.
#[derive(Default)]
struct Arming {
    armed: AtomicBool,
    silenced: AtomicBool,
}

/// Whether the listener is connected, and how many times it has connected so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Hearing {
    pub(crate) now: bool,
    pub(crate) times: u64,
    /// The listener can never hear, as behind a transaction pooler: claimers poll as they do without a listener.
    pub(crate) never: bool,
}

impl Bells {
    pub(crate) fn new<'a>(queues: impl IntoIterator<Item = &'a str>) -> Bells {
        let queues = queues.into_iter().map(|queue| (queue.to_owned(), Bell::default())).collect();
        Bells { queues, schedules: Arc::default(), hearing: watch::Sender::default() }
    }

    /// There may be work in this queue. Rings before the claimer next sleeps count as one.
    pub(crate) fn ring(&self, queue: &str) {
        if let Some(bell) = self.queues.get(queue) {
            bell.rung.notify_one();
        }
    }

    /// Whether this queue is worked here.
    pub(crate) fn has(&self, queue: &str) -> bool {
        self.queues.contains_key(queue)
    }

    /// A schedule may be due sooner than was known.
    pub(crate) fn ring_for_schedules(&self) {
        self.schedules.notify_one();
    }

    /// This queue is paused: nothing that was claimed before is to be started.
    pub(crate) fn pause(&self, queue: &str) {
        if let Some(bell) = self.queues.get(queue) {
            bell.pauses.add();
        }
    }

    /// The pauses of one queue.
    pub(crate) fn pauses(&self, queue: &str) -> Arc<Pauses> {
        self.queues.get(queue).cloned().unwrap_or_default().pauses
    }

    /// The queues whose claimers rely on their bell.
    pub(crate) fn armed(&self) -> Vec<String> {
        let armed = self.queues.iter().filter(|(_, bell)| bell.arming.armed.load(Ordering::Acquire));
        armed.map(|(queue, _)| queue.clone()).collect()
    }

    /// The store does not ring this bell: if its claimer relies on it, that one is to arm it anew. Whether it does.
    pub(crate) fn silenced(&self, queue: &str) -> bool {
        let Some(bell) = self.queues.get(queue).filter(|bell| bell.arming.armed.load(Ordering::Acquire)) else {
            return false;
        };
        bell.arming.silenced.store(true, Ordering::Release);
        bell.rung.notify_one();
        true
    }

    /// There may be work in any queue, or the worker is a new one.
    pub(crate) fn ring_all(&self) {
        self.queues.values().for_each(|bell| bell.rung.notify_one());
        self.schedules.notify_one();
    }

    /// The listener hears from here on: everybody looks at once, for what was missed.
    pub(crate) fn hear(&self) {
        self.hearing.send_modify(|hearing| *hearing = Hearing { now: true, times: hearing.times + 1, never: false });
        self.ring_all();
    }

    /// Whether the listener has heard and no longer does.
    pub(crate) fn is_deaf(&self) -> bool {
        let hearing = self.hearing.borrow();
        !hearing.now && hearing.times > 0
    }

    /// The listener is away: everybody polls quickly until it hears again.
    pub(crate) fn go_deaf(&self) {
        self.hearing.send_modify(|hearing| (hearing.now, hearing.never) = (false, false));
    }

    /// The listener cannot hear where it is: the polls will have to do.
    pub(crate) fn give_up_hearing(&self) {
        self.hearing.send_modify(|hearing| (hearing.now, hearing.never) = (false, true));
    }

    /// The wake-up of one queue's claimer. With `listen` off nobody listens, and it polls at its own interval.
    pub(crate) fn wake(&self, queue: &str, poll: Duration, listen: bool) -> Wake {
        self.wake_by(self.queues.get(queue).cloned().unwrap_or_default(), poll, listen)
    }

    /// The wake-up of who fires the schedules.
    #[cfg(feature = "schedules")]
    pub(crate) fn wake_for_schedules(&self, poll: Duration, listen: bool) -> Wake {
        self.wake_by(Bell { rung: Arc::clone(&self.schedules), ..Bell::default() }, poll, listen)
    }

    fn wake_by(&self, bell: Bell, poll: Duration, listen: bool) -> Wake {
        let Bell { rung, arming, .. } = bell;
        Wake { bell: rung, arming, nudge: Arc::default(), hearing: listen.then(|| self.hearing.subscribe()), poll }
    }
}

/// What ended a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The bell rang, or the listener is back.
    Bell,
    /// The next delayed job is due, or it is time to look for another reason of the claimer's own.
    Due,
    /// It is time for the fallback poll.
    Poll,
    /// The bell is armed, and what was not going to ring it is there.
    Armed,
}

/// Wakes one queue's claimer.
pub(crate) struct Wake {
    bell: Arc<Notify>,
    arming: Arc<Arming>,
    nudge: Arc<Notify>,
    hearing: Option<watch::Receiver<Hearing>>,
    poll: Duration,
}

impl Wake {
    /// For the claimer's own tasks: wakes it as if something were due.
    pub(crate) fn nudge(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
    }

    /// Whether bells are heard; `None` if nobody is to listen.
    pub(crate) fn hearing(&self) -> Option<Hearing> {
        self.hearing.as_ref().map(|hearing| *hearing.borrow())
    }

    /// Says whether the claimer relies on its bell.
    pub(crate) fn set_armed(&self, armed: bool) {
        self.arming.armed.store(armed, Ordering::Release);
    }

    /// Whether the store was seen not to ring the bell since this was last asked.
    pub(crate) fn take_silenced(&self) -> bool {
        self.arming.silenced.swap(false, Ordering::AcqRel)
    }

    /// Rests for this long, or until the claimer's own tasks wake it, whatever rings: the bell cannot be made to cost
    /// more looks.
    pub(crate) async fn nap(&self, nap: Duration) -> Reason {
        tokio::select! {
            () = self.nudge.notified() => {}
            () = tokio::time::sleep(nap) => {}
        }
        Reason::Due
    }

    /// Sleeps until there is a reason to look again. `due_in`: when the next job that is known of is due.
    pub(crate) async fn next(&mut self, due_in: Option<Duration>) -> Reason {
        tokio::select! {
            () = self.bell.notified() => Reason::Bell,
            () = self.nudge.notified() => Reason::Due,
            () = sleep(due_in) => Reason::Due,
            () = poll(self.poll, self.hearing.as_mut()) => Reason::Poll,
        }
    }
}

/// Waits for the next poll, which comes sooner while the listener is away.
async fn poll(interval: Duration, hearing: Option<&mut watch::Receiver<Hearing>>) {
    let Some(hearing) = hearing else { return tokio::time::sleep(interval).await };
    let deaf = async {
        loop {
            // Being deaf has to last: a listener that comes back within the short interval rings anyway.
            if hearing.wait_for(|hearing| !hearing.now && !hearing.never).await.is_err() {
                return std::future::pending().await;
            }
            if tokio::time::timeout(POLL_WHILE_DEAF, hearing.wait_for(|hearing| hearing.now || hearing.never))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = tokio::time::sleep(interval) => {}
        () = deaf => {}
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
    async fn rings_before_a_sleep_are_one_and_are_not_lost() {
        let bells = Bells::new(["mail"]);
        bells.hear();
        let mut wake = bells.wake("mail", HOUR, true);
        bells.ring("mail");
        bells.ring("mail");
        assert_eq!(wake.next(None).await, Reason::Bell);
        assert_eq!(wake.next(Some(Duration::from_millis(1))).await, Reason::Due);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_reason_wins() {
        let bells = Bells::new(["mail"]);
        let mut wake = bells.wake("mail", Duration::from_secs(5), false);
        assert_eq!(wake.next(Some(Duration::from_secs(4))).await, Reason::Due);
        assert_eq!(wake.next(Some(Duration::from_secs(6))).await, Reason::Poll);
    }

    #[tokio::test(start_paused = true)]
    async fn polls_come_quickly_only_while_the_listener_is_away() {
        let bells = Bells::new(["mail"]);
        let mut wake = bells.wake("mail", HOUR, true);
        let start = Instant::now();
        assert_eq!(wake.next(None).await, Reason::Poll);
        assert_eq!(start.elapsed(), POLL_WHILE_DEAF);

        bells.hear();
        assert_eq!(wake.next(None).await, Reason::Bell, "what was missed is looked for at once");
        let start = Instant::now();
        assert_eq!(wake.next(None).await, Reason::Poll);
        assert_eq!(start.elapsed(), HOUR);

        bells.go_deaf();
        let start = Instant::now();
        assert_eq!(wake.next(None).await, Reason::Poll);
        assert_eq!(start.elapsed(), POLL_WHILE_DEAF);
    }

    #[tokio::test(start_paused = true)]
    async fn who_can_never_hear_polls_at_the_workers_own_interval() {
        let bells = Bells::new(["mail"]);
        let mut wake = bells.wake("mail", HOUR, true);
        bells.give_up_hearing();
        let start = Instant::now();
        assert_eq!(wake.next(None).await, Reason::Poll);
        assert_eq!(start.elapsed(), HOUR);
        assert!(!bells.is_deaf(), "no session has vouched for it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_ring_for_another_queue_wakes_nobody() {
        let bells = Bells::new(["mail"]);
        let mut wake = bells.wake("mail", Duration::from_secs(5), false);
        bells.ring("other");
        assert_eq!(wake.next(None).await, Reason::Poll);
    }
}
