//! The listener: receives the signals of the store, and connects again when its session is lost.
//!
//! A signal is only a hint, since any database role can send one. A bell makes the claimer look at its queue, and does
//! nothing else. Before the worker acts on a cancel, a pause or a stop, the store has to confirm the hint. One query
//! asks the store about all hints that arrived within 50 ms.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::driver::{Hints, OnSignal, Signal};
use crate::error::Result;
use crate::worker::backoff::Backoff;
use crate::worker::shared::Shared;

/// If notifications cannot arrive, as behind a transaction pooler, the listener tries again after 5 minutes.
const RETRY_UNSUPPORTED_AFTER: Duration = Duration::from_secs(300);
/// Two queries that ask the store about hints are at least 50 ms apart. After a quiet time, such a query is sent at
/// once.
const CONFIRM_EVERY: Duration = Duration::from_millis(50);

/// Listens for one worker.
pub(crate) struct Listener {
    shared: Arc<Shared>,
}

/// The hints that are not confirmed yet. They concern only the worker's own jobs and queues, so their number is
/// bounded.
#[derive(Default)]
struct Unconfirmed {
    hints: Mutex<Hints>,
    added: Notify,
}

impl Unconfirmed {
    fn add(&self, add: impl FnOnce(&mut Hints)) {
        add(&mut self.hints.lock().unwrap_or_else(PoisonError::into_inner));
        self.added.notify_one();
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
        let unconfirmed = Arc::new(Unconfirmed::default());
        futures::future::join(self.keep_listening(&unconfirmed), self.confirm(&unconfirmed)).await;
    }

    async fn keep_listening(&self, unconfirmed: &Arc<Unconfirmed>) {
        let mut backoff = self.shared.backoff("listen for new jobs");
        loop {
            match self.listen(unconfirmed, &mut backoff).await {
                Ok(()) => {}
                Err(error) if error.is_listen_unsupported() => {
                    self.shared.bells.listener_unsupported();
                    tracing::warn!(
                        name: "worker.deaf", target: "reveille::worker", %error,
                        "this connection cannot receive notifications; finding new jobs by polling only"
                    );
                    tokio::time::sleep(RETRY_UNSUPPORTED_AFTER).await;
                }
                Err(error) => {
                    self.shared.bells.listener_disconnected();
                    backoff.failed(&error).over().await;
                }
            }
        }
    }

    /// Listens until the session fails, or until the worker needs a new session.
    async fn listen(&self, unconfirmed: &Arc<Unconfirmed>, backoff: &mut Backoff) -> Result<()> {
        // The session that opens now satisfies all earlier requests for a new session.
        let _ = self.shared.listen_anew.notified().now_or_never();
        let worker = self.shared.id();
        let failure = self.shared.driver.listen(worker, self.signal_handler(worker, unconfirmed)).await?;
        backoff.worked();
        self.shared.bells.listener_connected();
        self.ask_about_all(unconfirmed);
        tokio::select! {
            error = failure => Err(error),
            () = self.shared.listen_anew.notified() => Ok(()),
        }
    }

    /// Asks about each job that the worker holds, each of its queues and its stop: a cancel, a pause or a stop may have
    /// come before the session listened.
    fn ask_about_all(&self, unconfirmed: &Unconfirmed) {
        let (held, queues) = (self.shared.held_jobs.ids(), self.shared.bells.queues().map(str::to_owned));
        unconfirmed.add(|hints| {
            hints.cancel.extend(held);
            hints.paused.extend(queues);
            hints.stop = true;
        });
    }

    /// Takes the signals that concern this worker, its jobs or its queues, and drops all others.
    fn signal_handler(&self, worker: i64, unconfirmed: &Arc<Unconfirmed>) -> OnSignal {
        let (bells, held_jobs) = (Arc::clone(&self.shared.bells), Arc::clone(&self.shared.held_jobs));
        let (driver, unconfirmed) = (Arc::clone(&self.shared.driver), Arc::clone(unconfirmed));
        Arc::new(move |signal| match signal {
            Signal::Bell(queue) => bells.ring(&queue),
            Signal::Schedules => bells.ring_for_schedules(),
            Signal::LinkedEnd => driver.linked_ends_wait(),
            Signal::Cancel(id) if held_jobs.may_be_cancelled(id) => {
                unconfirmed.add(|hints| _ = hints.cancel.insert(id));
            }
            Signal::Pause(queue) if bells.has(&queue) => unconfirmed.add(|hints| _ = hints.paused.insert(queue)),
            Signal::Stop(id) if id == worker => unconfirmed.add(|hints| hints.stop = true),
            Signal::Cancel(_) | Signal::Pause(_) | Signal::Stop(_) => {}
        })
    }

    /// Asks the store which hints are true, and acts on the confirmed hints.
    async fn confirm(&self, unconfirmed: &Unconfirmed) {
        loop {
            unconfirmed.added.notified().await;
            let hints = unconfirmed.take();
            if hints.is_empty() {
                continue;
            }
            let asked = Instant::now();
            match self.shared.driver.confirm(self.shared.id(), &hints).await {
                Ok(confirmed) => self.act(confirmed),
                Err(error) => tracing::debug!(
                    name: "worker.signal_unconfirmed", target: "reveille::worker", %error,
                    "cannot check whether a signal to cancel, pause or stop is genuine; \
                     the next heartbeat will check again"
                ),
            }
            tokio::time::sleep_until(asked + CONFIRM_EVERY).await;
        }
    }

    fn act(&self, confirmed: Hints) {
        confirmed.cancel.into_iter().for_each(|id| self.shared.held_jobs.cancel(id));
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
    async fn signals_that_do_not_concern_the_worker_are_dropped() {
        let (listener, unconfirmed) = (listener(&Memory::new()), Arc::new(Unconfirmed::default()));
        let reservation = Reservation::new(7, 1, 1, SystemTime::now());
        listener.shared.held_jobs.take(reservation, false);
        listener.shared.held_jobs.take(Reservation { id: 8, ..reservation }, true);
        let receive = listener.signal_handler(1, &unconfirmed);
        for id in 0..1000 {
            receive(Signal::Cancel(id));
            receive(Signal::Pause(format!("queue {id}")));
            receive(Signal::Stop(id + 2));
        }
        let hints = unconfirmed.take();
        assert_eq!(hints, Hints { cancel: [7].into(), ..Hints::default() }, "job 8 is being cancelled already");
        for _ in 0..1000 {
            receive(Signal::Pause("mail".into()));
            receive(Signal::Stop(1));
        }
        assert_eq!(unconfirmed.take(), Hints { paused: ["mail".to_owned()].into(), stop: true, ..Hints::default() });
        assert!(
            !listener.shared.stop.is_cancelled() && listener.shared.bells.pauses("mail").count() == 0,
            "nothing happens before the store confirms it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_hints_of_50_ms_are_confirmed_by_one_question() {
        let memory = Memory::new();
        let (listener, unconfirmed) = (Arc::new(listener(&memory)), Arc::new(Unconfirmed::default()));
        let receive = listener.signal_handler(1, &unconfirmed);
        let (asking, asked) = (Arc::clone(&listener), Arc::clone(&unconfirmed));
        let confirming = tokio::spawn(async move { asking.confirm(&asked).await });
        memory.pause("mail");
        // Each query about the hint confirms it and adds a pause, so the number of pauses is the number of queries. The
        // first query is sent at once.
        let (began, pauses) = (Instant::now(), listener.shared.bells.pauses("mail"));
        receive(Signal::Pause("mail".into()));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!((pauses.count(), began.elapsed()), (1, Duration::ZERO));
        while began.elapsed() < CONFIRM_EVERY * 10 {
            receive(Signal::Pause("mail".into()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        confirming.abort();
        assert!((9..=11).contains(&pauses.count()), "{}", pauses.count());
    }
}
