//! Notifications of the ends of jobs. The first wait for a job's end opens one listening connection, which serves all
//! waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::AsyncMessage;
use tokio_util::task::AbortOnDropHandle;

use super::Database;
use super::address::Address;
use super::connect;
use crate::error::{Error, Result};

/// The interval of checking a job while notifications of its end are received.
const POLL: Duration = Duration::from_secs(5);
/// The interval of checking a job while notifications cannot be received.
const POLL_WITHOUT_LISTENING: Duration = Duration::from_millis(500);
/// The pause before the listening connection is opened again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The pause after the first check that a notification causes. Each further check that a notification causes doubles
/// the pause, since any role can notify of an end that did not happen.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// All waits for the ends of one database's jobs.
#[derive(Default)]
pub(crate) struct Ends {
    waiting: Arc<Waiting>,
    /// The task that listens, as long as the database is in use.
    listening: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Waiting {
    jobs: Mutex<HashMap<i64, watch::Sender<()>>>,
    listening: watch::Sender<Listening>,
}

/// The state of the listening connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listening {
    Opening,
    Yes,
    No,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting { jobs: Mutex::default(), listening: watch::Sender::new(Listening::Opening) }
    }
}

impl Ends {
    /// Begins to wait for the end of a job.
    pub(crate) fn of(&self, database: &Database, id: i64) -> Wait {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        // The task ends with the runtime in which it was spawned. If the task has ended, this starts another task.
        if listening.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            self.waiting.listening.send_replace(Listening::Opening);
            let listen = Listen {
                waiting: Arc::clone(&self.waiting),
                address: database.listen_address().clone(),
                pooled: (!database.listens_elsewhere()).then_some(database.is_pooled()),
                channel: format!("{}.finished", database.schema_name()),
            };
            *listening = Some(AbortOnDropHandle::new(tokio::spawn(listen.forever())));
        }
        let notified = self.waiting.jobs().entry(id).or_default().subscribe();
        let (listening, waiting) = (self.waiting.listening.subscribe(), Arc::clone(&self.waiting));
        Wait { id, notified, listening, waiting, next_look: Instant::now(), pause: FIRST_PAUSE }
    }
}

impl Waiting {
    fn jobs(&self) -> MutexGuard<'_, HashMap<i64, watch::Sender<()>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the waits for the job that a notification names. Notifications of other jobs are ignored.
    fn receive(&self, payload: &str) {
        let id = payload.split_once(' ').and_then(|(id, _)| id.parse().ok());
        if let Some(id) = id
            && let Some(job) = self.jobs().get(&id)
        {
            job.send_replace(());
        }
    }
}

/// The task that listens.
struct Listen {
    waiting: Arc<Waiting>,
    address: Address,
    /// True if the address leads to a pooler; `None` until that is known.
    pooled: Option<bool>,
    channel: String,
}

impl Listen {
    async fn forever(self) {
        loop {
            let error = self.listen().await.err().unwrap_or_else(|| Error::unavailable("the connection was closed"));
            tracing::debug!(
                name: "ends.deaf", target: "reveille::database", %error,
                "cannot receive notifications of the ends of jobs; polling instead"
            );
            self.waiting.listening.send_replace(Listening::No);
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// Listens until the connection ends. Behind a pooler, this neither listens nor returns, since notifications do not
    /// arrive there.
    async fn listen(&self) -> Result<()> {
        let pooled = match self.pooled {
            Some(pooled) => pooled,
            None => connect::is_pooled(&self.address).await?,
        };
        if pooled {
            self.waiting.listening.send_replace(Listening::No);
            return std::future::pending().await;
        }
        let (client, mut connection) = connect::open(&self.address.named("reveille awaiting")).await?;
        let waiting = Arc::clone(&self.waiting);
        let reading = async move {
            while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message? {
                    waiting.receive(notification.payload());
                }
            }
            Ok(())
        };
        let listening = async {
            let listen = format!("set idle_session_timeout = 0; listen \"{}\"", self.channel);
            client.batch_execute(&listen).await?;
            self.waiting.listening.send_replace(Listening::Yes);
            std::future::pending().await
        };
        let ended = tokio::select! {
            ended = reading => ended,
            ended = listening => ended,
        };
        ended.map_err(|error| Error::database("listen", error))
    }
}

/// One wait for the end of one job.
pub(crate) struct Wait {
    id: i64,
    notified: watch::Receiver<()>,
    listening: watch::Receiver<Listening>,
    waiting: Arc<Waiting>,
    /// The time from which a notification may cause the next check of the job.
    next_look: Instant,
    /// The pause after the next check.
    pause: Duration,
}

impl Wait {
    /// Waits until the connection listens, or cannot listen. If the job were checked earlier, the wait could miss the
    /// notification of an end right after the check.
    pub(crate) async fn begin(&mut self) {
        let _ = self.listening.wait_for(|listening| *listening != Listening::Opening).await;
    }

    /// Waits for a reason to check the job: a notification, the begin or end of listening, or the time to poll.
    pub(crate) async fn next(&mut self) {
        let is_listening = *self.listening.borrow_and_update() == Listening::Yes;
        let poll = if is_listening { POLL } else { POLL_WITHOUT_LISTENING };
        tokio::select! {
            _ = self.notified.changed() => {
                tokio::time::sleep_until(self.next_look).await;
                self.next_look = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
            _ = self.listening.changed() => {}
            () = tokio::time::sleep(poll) => {}
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut jobs = self.waiting.jobs();
        if jobs.get(&self.id).is_some_and(|job| job.receiver_count() == 1) {
            jobs.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn false_notifications_cause_ever_fewer_looks() {
        let waiting = Arc::new(Waiting::default());
        waiting.listening.send_replace(Listening::Yes);
        let notified = waiting.jobs().entry(7).or_default().subscribe();
        let (listening, next_look, pause) = (waiting.listening.subscribe(), Instant::now(), FIRST_PAUSE);
        let mut wait = Wait { id: 7, notified, listening, waiting: Arc::clone(&waiting), next_look, pause };
        let mut waits = Vec::new();
        for _ in 0..6 {
            let began = Instant::now();
            for payload in ["7 completed", "7 dead", "8 completed", "7", "x 7"] {
                waiting.receive(payload);
            }
            wait.next().await;
            waits.push(began.elapsed().as_millis());
        }
        assert_eq!(waits, [0, 50, 100, 200, 400, 500], "the first notification causes a check at once");
        assert_eq!(waiting.jobs().len(), 1, "nothing is kept of other jobs");
        drop(wait);
        assert!(waiting.jobs().is_empty());
    }
}
