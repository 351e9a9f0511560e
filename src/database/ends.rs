//! Hearing how jobs end: one listening connection for all who wait for that, opened when the first one does.

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

/// How often to look at a job of which nothing is heard.
const POLL: Duration = Duration::from_secs(5);
/// The same while nothing can be heard.
const POLL_DEAF: Duration = Duration::from_millis(500);
/// How long to leave it before trying to listen again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// From one look that a notification has led to until the next: at first, and at most. It doubles with each such look,
/// since anybody can notify of an end that is none.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(50), POLL_DEAF);

/// Who waits for the ends of jobs of one database.
#[derive(Default)]
pub(crate) struct Ends {
    waiting: Arc<Waiting>,
    /// Listens, for as long as the database is in use.
    listening: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Waiting {
    jobs: Mutex<HashMap<i64, watch::Sender<()>>>,
    ear: watch::Sender<Ear>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ear {
    Opening,
    Hears,
    Deaf,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting { jobs: Mutex::default(), ear: watch::Sender::new(Ear::Opening) }
    }
}

impl Ends {
    /// Waits for the end of a job from here on.
    pub(crate) fn of(&self, database: &Database, id: i64) -> Wait {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        // It ends with the runtime that it was begun in.
        if listening.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            self.waiting.ear.send_replace(Ear::Opening);
            let listen = Listen {
                waiting: Arc::clone(&self.waiting),
                address: database.listen_address().clone(),
                pooled: (!database.listens_elsewhere()).then_some(database.is_pooled()),
                channel: format!("{}.finished", database.schema_name()),
            };
            *listening = Some(AbortOnDropHandle::new(tokio::spawn(listen.forever())));
        }
        let heard = self.waiting.jobs().entry(id).or_default().subscribe();
        let (ear, waiting) = (self.waiting.ear.subscribe(), Arc::clone(&self.waiting));
        Wait { id, heard, ear, waiting, next_look: Instant::now(), apart: LOOK_EVERY.0 }
    }
}

impl Waiting {
    fn jobs(&self) -> MutexGuard<'_, HashMap<i64, watch::Sender<()>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job may have ended: who waits for it looks. Of other jobs nothing is kept.
    fn hear(&self, payload: &str) {
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
    /// Whether a pooler is in the way there, if that is known.
    pooled: Option<bool>,
    channel: String,
}

impl Listen {
    async fn forever(self) {
        loop {
            let error = self.hear().await.err().unwrap_or_else(|| Error::unavailable("the connection was closed"));
            tracing::debug!(name: "ends.deaf", target: "reveille::database", %error, "cannot hear how jobs end; looking instead");
            self.waiting.ear.send_replace(Ear::Deaf);
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// Until the connection ends. Through a pooler nothing is ever heard.
    async fn hear(&self) -> Result<()> {
        let pooled = match self.pooled {
            Some(pooled) => pooled,
            None => connect::is_pooled(&self.address).await?,
        };
        if pooled {
            self.waiting.ear.send_replace(Ear::Deaf);
            return std::future::pending().await;
        }
        let (client, mut connection) = connect::open(&self.address.named("reveille awaiting")).await?;
        let waiting = Arc::clone(&self.waiting);
        let reading = async move {
            while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(heard) = message? {
                    waiting.hear(heard.payload());
                }
            }
            Ok(())
        };
        let listening = async {
            let listen = format!("set idle_session_timeout = 0; listen \"{}\"", self.channel);
            client.batch_execute(&listen).await?;
            self.waiting.ear.send_replace(Ear::Hears);
            std::future::pending().await
        };
        let ended = tokio::select! {
            ended = reading => ended,
            ended = listening => ended,
        };
        ended.map_err(|error| Error::database("listen", error))
    }
}

/// Somebody's wait for the end of one job.
pub(crate) struct Wait {
    id: i64,
    heard: watch::Receiver<()>,
    ear: watch::Receiver<Ear>,
    waiting: Arc<Waiting>,
    /// A notification leads to a look no sooner than this.
    next_look: Instant,
    /// The time from that look to the next.
    apart: Duration,
}

impl Wait {
    /// Until it is known whether anything can be heard: a look before that could miss what is notified after it.
    pub(crate) async fn begin(&mut self) {
        let _ = self.ear.wait_for(|ear| *ear != Ear::Opening).await;
    }

    /// Until there is a reason to look: its end was heard, nothing was for a while, or it may have been missed.
    pub(crate) async fn next(&mut self) {
        let poll = if *self.ear.borrow_and_update() == Ear::Hears { POLL } else { POLL_DEAF };
        tokio::select! {
            _ = self.heard.changed() => {
                tokio::time::sleep_until(self.next_look).await;
                self.next_look = Instant::now() + self.apart;
                self.apart = (self.apart * 2).min(LOOK_EVERY.1);
            }
            _ = self.ear.changed() => {}
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
    async fn false_ends_lead_to_looks_that_are_further_and_further_apart() {
        let waiting = Arc::new(Waiting::default());
        waiting.ear.send_replace(Ear::Hears);
        let heard = waiting.jobs().entry(7).or_default().subscribe();
        let (ear, next_look, apart) = (waiting.ear.subscribe(), Instant::now(), LOOK_EVERY.0);
        let mut wait = Wait { id: 7, heard, ear, waiting: Arc::clone(&waiting), next_look, apart };
        let mut waits = Vec::new();
        for _ in 0..6 {
            let began = Instant::now();
            for payload in ["7 completed", "7 dead", "8 completed", "7", "x 7"] {
                waiting.hear(payload);
            }
            wait.next().await;
            waits.push(began.elapsed().as_millis());
        }
        assert_eq!(waits, [0, 50, 100, 200, 400, 500], "the first is looked into at once");
        assert_eq!(waiting.jobs().len(), 1, "nothing is kept of other jobs");
        drop(wait);
        assert!(waiting.jobs().is_empty());
    }
}
