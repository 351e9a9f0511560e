//! The listener's connection: one of its own, since pooled ones drop notifications.
//!
//! Notifications are taken in the task that reads the connection, one by one as they arrive. None is kept: any role can
//! send more of them than a worker has memory for.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_postgres::AsyncMessage;
use tokio_postgres::types::Type;

use super::session::{self, Params, Sessions};
use super::{ANSWER_WITHIN, Postgres};
use crate::database::schema::Schema;
use crate::database::{Database, connect};
use crate::driver::{Hear, Hints, Signal};
use crate::error::{Error, Result};

/// How often the listener rings a bell for itself, to know that it still hears.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// How long it may take to hear it.
const PROBE_HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Whether this session and another are seen to be one: lent for a transaction each, and no place to listen. Asked
/// before anything is left behind there, and more than once, since others come between.
async fn is_shared(client: &ClientWrapper, sessions: &Sessions) -> Result<bool> {
    const ASK: &str = "select pg_catalog.pg_backend_pid()";
    for _ in 0..20 {
        let own: Option<i32> = in_time(client.query_typed(ASK, &[])).await?.first().map(|row| row.get(0));
        let other = sessions.query(PROBE_HEARD_WITHIN, "listen", ASK, &[]).await?;
        if own == other.first().map(|row| row.get(0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Opens the connection, listens, and makes sure that it hears. The future ends when the connection does, or has gone
/// deaf.
pub(super) async fn listen(driver: &Postgres, worker: i64, hear: Hear) -> Result<BoxFuture<'static, Error>> {
    let (database, sessions) = (&driver.database, &driver.sessions);
    let mut ear = Ear::open(database, sessions.clone(), hear).await?;
    if database.is_pooled() && is_shared(&ear.client, sessions).await? {
        return Err(deaf());
    }
    in_time(ear.client.batch_execute(&sessions.of_listener())).await?;
    in_time(ear.client.batch_execute(&ear.listen)).await?;
    ear.make_sure(database.is_pooled()).await?;
    // It is a session of its own, and not one that a pooler lends.
    let params: &Params<'_> = &[(&worker, Type::INT8)];
    in_time(ear.client.query_typed(&driver.statements.vouch, params)).await?;
    Ok(ear.until_deaf().boxed())
}

/// Which of these hints the tables confirm.
pub(super) async fn confirm(driver: &Postgres, worker: i64, hints: &Hints) -> Result<Hints> {
    let cancel: Vec<i64> = hints.cancel.iter().copied().collect();
    let paused: Vec<&str> = hints.paused.iter().map(String::as_str).collect();
    let params: &Params<'_> = &[(&worker, Type::INT8), (&cancel, Type::INT8_ARRAY), (&paused, Type::TEXT_ARRAY)];
    let rows = driver.sessions.query(ANSWER_WITHIN, "confirm a signal", &driver.statements.confirm, params).await?;
    let row = rows.first().ok_or_else(|| Error::unavailable("confirm a signal: the server gave no answer"))?;
    Ok(Hints {
        cancel: row.get::<_, Vec<i64>>("cancel").into_iter().collect(),
        paused: row.get::<_, Vec<String>>("paused").into_iter().collect(),
        stop: hints.stop && row.get("stop"),
    })
}

/// The names of the channels.
struct Channels {
    bell: String,
    cancel: String,
    schedules: String,
    pause: String,
    stop: String,
    /// This listener's own.
    probe: String,
}

/// What was heard.
enum Heard {
    Signal(Signal),
    Probe,
}

impl Channels {
    fn new(schema: &Schema) -> Channels {
        let schema = schema.name();
        let [bell, cancel, schedules, pause, stop] =
            ["bell", "cancel", "schedules", "pause", "stop"].map(|channel| format!("{schema}.{channel}"));
        Channels { bell, cancel, schedules, pause, stop, probe: format!("{schema}.probe.{:016x}", fastrand::u64(..)) }
    }

    /// The statements that listen to all of them.
    fn listen(&self) -> String {
        let all = [&self.bell, &self.cancel, &self.pause, &self.stop, &self.schedules, &self.probe];
        all.map(|channel| format!("listen \"{channel}\"")).join("; ")
    }

    fn understand(&self, channel: &str, payload: &str) -> Option<Heard> {
        let signal = if channel == self.bell {
            Signal::Bell(payload.to_owned())
        } else if channel == self.cancel {
            Signal::Cancel(payload.parse().ok()?)
        } else if channel == self.pause {
            Signal::Pause(payload.to_owned())
        } else if channel == self.stop {
            Signal::Stop(payload.parse().ok()?)
        } else if channel == self.schedules {
            Signal::Schedules
        } else {
            return (channel == self.probe).then_some(Heard::Probe);
        };
        Some(Heard::Signal(signal))
    }
}

struct Ear {
    client: Arc<ClientWrapper>,
    /// Why the connection ended.
    ended: oneshot::Receiver<Error>,
    /// What rings the probe: not this session, which would hear itself even through a transaction pooler.
    sessions: Sessions,
    listen: String,
    probe: String,
    probe_heard: Arc<Notify>,
}

impl Ear {
    /// A connection whose notifications are passed on; it does not listen yet.
    async fn open(database: &Database, sessions: Sessions, hear: Hear) -> Result<Ear> {
        let address = database.for_worker(database.listen_address(), "reveille listener");
        let (client, mut connection) = connect::open(&address).await?;
        let channels = Channels::new(database.schema());
        let (listen, probe, probe_heard) = (channels.listen(), channels.probe.clone(), Arc::new(Notify::new()));
        let (end, ended) = oneshot::channel();
        let probed = Arc::clone(&probe_heard);
        let reading = tokio::spawn(async move {
            let error = loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(heard))) => {
                        match channels.understand(heard.channel(), heard.payload()) {
                            Some(Heard::Signal(signal)) => hear(signal),
                            Some(Heard::Probe) => probed.notify_one(),
                            None => {}
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Error::database("listen", error),
                    None => break closed(),
                }
            };
            let _ = end.send(error);
        });
        let client = Arc::new(ClientWrapper::new(client, reading));
        Ok(Ear { client, ended, sessions, listen, probe, probe_heard })
    }

    /// Rings the probe and waits for it. Signals that come before it need no answer: whoever listens anew looks at
    /// everything.
    async fn make_sure(&mut self, pooled: bool) -> Result<()> {
        self.ring_probe().await?;
        tokio::select! {
            () = self.probe_heard.notified() => Ok(()),
            error = &mut self.ended => Err(error.unwrap_or_else(|_| closed())),
            () = tokio::time::sleep(PROBE_HEARD_WITHIN) => {
                if !pooled {
                    return Err(unheard());
                }
                // The session that was lent for it has others to serve.
                let _ = in_time(self.client.batch_execute("unlisten *")).await;
                Err(deaf())
            }
        }
    }

    /// Waits for the end of the connection, or for a probe that is not heard.
    async fn until_deaf(mut self) -> Error {
        let mut probes = interval_at(Instant::now() + PROBE_EVERY, PROBE_EVERY);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Until when the probe under way has to be heard.
        let mut deadline: Option<Instant> = None;
        loop {
            tokio::select! {
                error = &mut self.ended => return error.unwrap_or_else(|_| closed()),
                () = self.probe_heard.notified() => deadline = None,
                () = until(deadline) => return unheard(),
                _ = probes.tick() => {
                    // Whether a probe can be rung says nothing of whether it would be heard.
                    if self.ring_probe().await.is_ok() {
                        deadline.get_or_insert(Instant::now() + PROBE_HEARD_WITHIN);
                    }
                }
            }
        }
    }

    async fn ring_probe(&self) -> Result<()> {
        let params: &Params<'_> = &[(&self.probe, Type::TEXT)];
        let rung = self.sessions.query(PROBE_HEARD_WITHIN, "listen", "select pg_catalog.pg_notify($1, '')", params);
        rung.await.map(drop)
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
    session::in_time(PROBE_HEARD_WITHIN, "listen", answer).await
}

fn closed() -> Error {
    Error::unavailable("listen: the connection was closed")
}

fn deaf() -> Error {
    Error::listen_unsupported("listen: the pooler does not pass notifications on; give a listen URL that leads past it")
}

fn unheard() -> Error {
    Error::unavailable("listen: the server no longer passes notifications on")
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
