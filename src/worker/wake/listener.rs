//! The listener: hears the signals of the store, and comes back whenever it is cut off.
//!
//! A signal is a hint, which any role can send. A bell leads to a look at the queue and to nothing else. What would end
//! a job, give jobs back or stop the worker is first confirmed by the store: by one question for all such hints, at
//! most every 50 ms.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::driver::{Hear, Hints, Signal};
use crate::error::Result;
use crate::worker::backoff::Backoff;
use crate::worker::shared::Shared;

/// How long it leaves it at that where it cannot hear.
const TRY_AGAIN: Duration = Duration::from_secs(300);
/// The time from one question to the next whether what was heard is so. The first after a quiet time is asked at once.
const CONFIRM_EVERY: Duration = Duration::from_millis(50);

/// What listens for one worker.
pub(crate) struct Listener {
    shared: Arc<Shared>,
}

/// What was heard and is still to be confirmed. It holds no more than the worker's own jobs and queues.
#[derive(Default)]
struct Doubts {
    hints: Mutex<Hints>,
    some: Notify,
}

impl Doubts {
    fn add(&self, add: impl FnOnce(&mut Hints)) {
        add(&mut self.hints.lock().unwrap_or_else(PoisonError::into_inner));
        self.some.notify_one();
    }

    fn take(&self) -> Hints {
        std::mem::take(&mut self.hints.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Listener {
    pub(crate) fn new(shared: &Arc<Shared>) -> Listener {
        Listener { shared: Arc::clone(shared) }
    }

    /// Listens until the task is dropped.
    pub(crate) async fn run(self) {
        let doubts = Arc::new(Doubts::default());
        futures::future::join(self.hear(&doubts), self.confirm(&doubts)).await;
    }

    async fn hear(&self, doubts: &Arc<Doubts>) {
        let mut backoff = self.shared.backoff("listen for new jobs");
        loop {
            match self.listen(doubts, &mut backoff).await {
                Ok(()) => {}
                Err(error) if error.is_listen_unsupported() => {
                    self.shared.bells.give_up_hearing();
                    tracing::warn!(
                        name: "worker.deaf", target: "reveille::worker", %error,
                        "new jobs are found by polling only"
                    );
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Err(error) => {
                    self.shared.bells.go_deaf();
                    backoff.failed(&error).over().await;
                }
            }
        }
    }

    /// Listens until it fails or is to begin anew.
    async fn listen(&self, doubts: &Arc<Doubts>, backoff: &mut Backoff) -> Result<()> {
        // What has asked for it so far is answered by this.
        let _ = self.shared.listen_anew.notified().now_or_never();
        let worker = self.shared.id();
        let deaf = self.shared.driver.listen(worker, self.ears(worker, doubts)).await?;
        backoff.worked();
        self.shared.bells.hear();
        tokio::select! {
            error = deaf => Err(error),
            () = self.shared.listen_anew.notified() => Ok(()),
        }
    }

    /// Takes what concerns this worker's queues, its jobs or itself, and drops the rest.
    fn ears(&self, worker: i64, doubts: &Arc<Doubts>) -> Hear {
        let (bells, held, doubts) = (Arc::clone(&self.shared.bells), Arc::clone(&self.shared.held), Arc::clone(doubts));
        Arc::new(move |signal| match signal {
            Signal::Bell(queue) => bells.ring(&queue),
            Signal::Schedules => bells.ring_for_schedules(),
            Signal::Cancel(id) if held.may_be_cancelled(id) => doubts.add(|hints| _ = hints.cancel.insert(id)),
            Signal::Pause(queue) if bells.has(&queue) => doubts.add(|hints| _ = hints.paused.insert(queue)),
            Signal::Stop(id) if id == worker => doubts.add(|hints| hints.stop = true),
            Signal::Cancel(_) | Signal::Pause(_) | Signal::Stop(_) => {}
        })
    }

    /// Asks the store about what was heard, and does what it confirms.
    async fn confirm(&self, doubts: &Doubts) {
        loop {
            doubts.some.notified().await;
            let hints = doubts.take();
            if hints.is_empty() {
                continue;
            }
            let asked = Instant::now();
            match self.shared.driver.confirm(self.shared.id(), &hints).await {
                Ok(confirmed) => self.act(confirmed),
                Err(error) => tracing::debug!(
                    name: "worker.signal_unconfirmed", target: "reveille::worker", %error,
                    "cannot confirm what was heard; the next heartbeat will tell"
                ),
            }
            tokio::time::sleep_until(asked + CONFIRM_EVERY).await;
        }
    }

    fn act(&self, confirmed: Hints) {
        confirmed.cancel.into_iter().for_each(|id| self.shared.held.cancel(id));
        confirmed.paused.iter().for_each(|queue| self.shared.bells.pause(queue));
        if confirmed.stop {
            self.shared.stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::driver::Memory;
    use crate::job::Reservation;

    fn listener(memory: &Memory) -> Listener {
        Listener::new(&crate::worker::shared::tests::shared(memory, &["mail"]))
    }

    #[tokio::test]
    async fn of_what_does_not_concern_this_worker_nothing_is_kept() {
        let (listener, doubts) = (listener(&Memory::new()), Arc::new(Doubts::default()));
        let reservation = Reservation { id: 7, worker: 1, attempt: 1, reserved_at: SystemTime::now(), hint: 0 };
        listener.shared.held.take(reservation, false);
        listener.shared.held.take(Reservation { id: 8, ..reservation }, true);
        let hear = listener.ears(1, &doubts);
        for id in 0..1000 {
            hear(Signal::Cancel(id));
            hear(Signal::Pause(format!("queue {id}")));
            hear(Signal::Stop(id + 2));
        }
        let hints = doubts.take();
        assert_eq!(hints, Hints { cancel: [7].into(), ..Hints::default() }, "8 is to be cancelled in any case");
        for _ in 0..1000 {
            hear(Signal::Pause("mail".into()));
            hear(Signal::Stop(1));
        }
        assert_eq!(doubts.take(), Hints { paused: ["mail".to_owned()].into(), stop: true, ..Hints::default() });
        assert!(
            !listener.shared.stop.is_cancelled() && listener.shared.bells.pauses("mail").count() == 0,
            "not before it is confirmed"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn all_hints_of_50_ms_are_one_question_and_the_first_is_asked_at_once() {
        let memory = Memory::new();
        let (listener, doubts) = (Arc::new(listener(&memory)), Arc::new(Doubts::default()));
        let hear = listener.ears(1, &doubts);
        let asking = (Arc::clone(&listener), Arc::clone(&doubts));
        let confirming = tokio::spawn(async move { asking.0.confirm(&asking.1).await });
        memory.pause("mail");
        // Each question finds the queue paused.
        let (began, pauses) = (Instant::now(), listener.shared.bells.pauses("mail"));
        hear(Signal::Pause("mail".into()));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!((pauses.count(), began.elapsed()), (1, Duration::ZERO));
        while began.elapsed() < CONFIRM_EVERY * 10 {
            hear(Signal::Pause("mail".into()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        confirming.abort();
        assert!((9..=11).contains(&pauses.count()), "{}", pauses.count());
    }
}
