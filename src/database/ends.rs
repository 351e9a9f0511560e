//! Hearing how jobs end: one listening connection for all who wait for that, opened when the first one does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_postgres::{AsyncMessage, Client, Notification};
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
/// By when what is committed has been heard.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// Who waits for the ends of jobs of one database.
#[derive(Default)]
pub(crate) struct Ends {
    waiting: Arc<Waiting>,
    /// Listens, for as long as the database is in use.
    listening: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Waiting {
    jobs: Mutex<HashMap<i64, watch::Sender<Option<String>>>>,
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
        Wait { id, heard, ear: self.waiting.ear.subscribe(), waiting: Arc::clone(&self.waiting) }
    }
}

impl Waiting {
    fn jobs(&self) -> MutexGuard<'_, HashMap<i64, watch::Sender<Option<String>>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (_client, mut heard) = open(&self.address, &self.channel).await?;
        self.waiting.ear.send_replace(Ear::Hears);
        while let Some(heard) = heard.recv().await {
            let Some((id, outcome)) = heard.payload().split_once(' ') else { continue };
            let Ok(id) = id.parse() else { continue };
            if let Some(job) = self.waiting.jobs().get(&id) {
                job.send_replace(Some(outcome.to_owned()));
            }
        }
        Ok(())
    }
}

/// A connection that has begun to listen; it lives as long as the client.
async fn open(address: &Address, channel: &str) -> Result<(Client, mpsc::UnboundedReceiver<Notification>)> {
    let (client, mut connection) = connect::open(&address.named("reveille awaiting")).await?;
    let (teller, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = teller.send(notification);
            }
        }
    });
    let listen = format!("set idle_session_timeout = 0; listen \"{channel}\"");
    client.batch_execute(&listen).await.map_err(|error| Error::database("listen", error))?;
    Ok((client, heard))
}

/// Somebody's wait for the end of one job.
pub(crate) struct Wait {
    id: i64,
    heard: watch::Receiver<Option<String>>,
    ear: watch::Receiver<Ear>,
    waiting: Arc<Waiting>,
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
            _ = self.heard.changed() => {}
            _ = self.ear.changed() => {}
            () = tokio::time::sleep(poll) => {}
        }
    }

    /// How it was heard to end, for a job that has left nothing to look at.
    pub(crate) async fn outcome(&mut self) -> Option<String> {
        let outcome = tokio::time::timeout(HEARD_WITHIN, self.heard.wait_for(Option::is_some)).await;
        outcome.ok()?.ok()?.clone()
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
