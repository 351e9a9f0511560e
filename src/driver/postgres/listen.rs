//! The listener's connection. It is not pooled, since a pooled connection drops notifications.
//!
//! The task that reads the connection passes on each notification as it arrives. The task keeps no notification,
//! because any role can send more notifications than fit into a worker's memory.

use std::borrow::Cow;
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
use crate::database::Database;
use crate::database::schema::Schema;
use crate::driver::{Hints, OnSignal, Signal};
use crate::error::{Error, Result};

/// The interval of the probes that this listener sends to itself. A probe is a notification: its arrival proves that
/// notifications still arrive.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// The delay before the listener tries again to vouch for its worker, if the worker's row was locked. Heartbeats lock
/// this row, too, so the delay differs from their usual interval.
const VOUCH_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// The time within which a probe has to arrive, and each step of listening has to end.
const PROBE_WITHIN: Duration = Duration::from_secs(5);

impl Postgres {
    /// Returns whether notifying commits wait for each other.
    pub(crate) async fn signals_wait(&self) -> Result<bool> {
        let rows = self.query("read whether signals wait", &self.statements.signals_wait, &[]).await?;
        Ok(rows.iter().any(|row| row.get("wait")))
    }
}

/// Returns true if the listener's session and a pooled session turn out to be the same session of the server. In this
/// case, a pooler lends the session for one transaction at a time, so the session cannot listen.
///
/// The check runs before the listener changes any setting of the session. It compares the sessions 20 times, since
/// other clients may get the session in between.
async fn is_shared(client: &ClientWrapper, sessions: &Sessions) -> Result<bool> {
    const ASK: &str = "select pg_catalog.pg_backend_pid()";
    for _ in 0..20 {
        let own: Option<i32> = in_time(client.query_typed(ASK, &[])).await?.first().map(|row| row.get(0));
        let other = sessions.query(PROBE_WITHIN, "listen", ASK, &[]).await?;
        if own == other.first().map(|row| row.get(0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Opens the connection, listens, and checks that notifications arrive. The returned future ends when the connection
/// ends or notifications no longer arrive.
pub(super) async fn listen(driver: &Postgres, worker: i64, on_signal: OnSignal) -> Result<BoxFuture<'static, Error>> {
    let (database, sessions) = (&driver.database, &driver.sessions);
    let vouching = Vouching { sql: driver.statements.vouch.clone(), worker, again: None };
    let mut session = ListenerSession::open(database, sessions.clone(), vouching, on_signal).await?;
    if database.is_pooled() && is_shared(&session.client, sessions).await? {
        return Err(not_passed_on());
    }
    in_time(session.client.batch_execute(&sessions.of_listener())).await?;
    in_time(session.client.batch_execute(&session.listen)).await?;
    session.check_arrival(database.is_pooled()).await?;
    // From now on, other workers take this session as proof that the worker lives. Before the probe had arrived, the
    // session proved nothing: it could belong to a pooler, which keeps its sessions open after a worker has died.
    session.vouch().await?;
    Ok(session.until_it_fails().boxed())
}

/// Returns the hints that the tables confirm.
pub(super) async fn confirm(driver: &Postgres, worker: i64, hints: &Hints) -> Result<Hints> {
    let cancel: Vec<i64> = hints.cancel.iter().copied().collect();
    let paused: Vec<&str> = hints.paused.iter().map(String::as_str).collect();
    let params: &Params<'_> = &[(&worker, Type::INT8), (&cancel, Type::INT8_ARRAY), (&paused, Type::TEXT_ARRAY)];
    let rows = driver.sessions.query(ANSWER_WITHIN, "confirm a signal", &driver.statements.confirm, params).await?;
    let row = rows.first().ok_or_else(|| Error::unavailable("cannot confirm a signal: the server returned no row"))?;
    Ok(Hints {
        cancel: row.get::<_, Vec<i64>>("cancel").into_iter().collect(),
        paused: row.get::<_, Vec<String>>("paused").into_iter().collect(),
        stop: hints.stop && row.get("stop"),
    })
}

/// The names of the notification channels.
struct Channels {
    bell: String,
    cancel: String,
    schedules: String,
    pause: String,
    stop: String,
    linked: String,
    /// The channel of the probes that this listener sends to itself.
    probe: String,
}

/// A notification that concerns a listener.
enum Received {
    Signal(Signal),
    Probe,
}

impl Channels {
    fn new(schema: &Schema) -> Channels {
        let schema = schema.name();
        let [bell, cancel, schedules, pause, stop, linked] =
            ["bell", "cancel", "schedules", "pause", "stop", "linked"].map(|channel| format!("{schema}.{channel}"));
        Channels {
            bell,
            cancel,
            schedules,
            pause,
            stop,
            linked,
            probe: format!("{schema}.probe.{:016x}", fastrand::u64(..)),
        }
    }

    /// Returns the statements that listen to all channels.
    fn listen(&self) -> String {
        let all = [&self.bell, &self.cancel, &self.pause, &self.stop, &self.schedules, &self.linked, &self.probe];
        all.map(|channel| format!("listen \"{channel}\"")).join("; ")
    }

    fn parse(&self, channel: &str, payload: &str) -> Option<Received> {
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
        } else if channel == self.linked {
            Signal::LinkedEnd
        } else {
            return (channel == self.probe).then_some(Received::Probe);
        };
        Some(Received::Signal(signal))
    }
}

/// The session that listens.
struct ListenerSession {
    client: Arc<ClientWrapper>,
    /// Receives the error that ended the connection.
    ended: oneshot::Receiver<Error>,
    /// The pooled sessions, which send the probe. The listening session must not send the probe itself. Behind a
    /// transaction pooler, a session may receive its own notifications and no others, so the probe would wrongly
    /// succeed.
    sessions: Sessions,
    listen: String,
    probe: String,
    probe_arrived: Arc<Notify>,
    vouching: Vouching,
}

/// The lock by which the session vouches for its worker, in place of the session that has registered the worker.
struct Vouching {
    sql: Cow<'static, str>,
    worker: i64,
    /// The time of the next try; `None` once the session holds the lock, or if no worker is registered.
    again: Option<Instant>,
}

impl ListenerSession {
    /// Opens a connection that passes on its notifications. The session does not listen yet.
    async fn open(
        database: &Database,
        sessions: Sessions,
        vouching: Vouching,
        on_signal: OnSignal,
    ) -> Result<ListenerSession> {
        let (client, mut connection) = sessions.open_beside(database.listen_address(), "reveille listener").await?;
        let channels = Channels::new(database.schema());
        let (listen, probe, probe_arrived) = (channels.listen(), channels.probe.clone(), Arc::new(Notify::new()));
        let (end, ended) = oneshot::channel();
        let probed = Arc::clone(&probe_arrived);
        let reading = tokio::spawn(async move {
            let error = loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(notification))) => {
                        match channels.parse(notification.channel(), notification.payload()) {
                            Some(Received::Signal(signal)) => on_signal(signal),
                            Some(Received::Probe) => probed.notify_one(),
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
        Ok(ListenerSession { client, ended, sessions, listen, probe, probe_arrived, vouching })
    }

    /// Takes the lock that shows that the worker lives, and notes this session in the worker's row. If another session
    /// has locked the row, such as the worker's own heartbeat, sets the time of the next try.
    async fn vouch(&mut self) -> Result<()> {
        let Vouching { sql, worker, again } = &mut self.vouching;
        let params: &Params<'_> = &[(worker, Type::INT8)];
        let rows = in_time(self.client.query_typed(sql, params)).await?;
        let is_locked = rows.first().is_some_and(|row| row.get("again"));
        *again = is_locked.then(|| Instant::now() + VOUCH_AGAIN_AFTER);
        Ok(())
    }

    /// Sends a probe and waits until the probe arrives. Signals that were sent before the probe do not matter: a worker
    /// that has begun to listen reads its whole state from the tables.
    async fn check_arrival(&mut self, pooled: bool) -> Result<()> {
        self.send_probe().await?;
        tokio::select! {
            () = self.probe_arrived.notified() => Ok(()),
            error = &mut self.ended => Err(error.unwrap_or_else(|_| closed())),
            () = tokio::time::sleep(PROBE_WITHIN) => {
                if !pooled {
                    return Err(no_longer_passed_on());
                }
                // The session must not keep listening, because a pooler may have lent it and may lend it to other
                // clients next.
                let _ = in_time(self.client.batch_execute("unlisten *")).await;
                Err(not_passed_on())
            }
        }
    }

    /// Waits until the connection ends or a probe does not arrive.
    async fn until_it_fails(mut self) -> Error {
        let mut probes = interval_at(Instant::now() + PROBE_EVERY, PROBE_EVERY);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The time by which the pending probe has to arrive.
        let mut deadline: Option<Instant> = None;
        loop {
            tokio::select! {
                error = &mut self.ended => return error.unwrap_or_else(|_| closed()),
                () = self.probe_arrived.notified() => deadline = None,
                () = until(deadline) => return no_longer_passed_on(),
                () = until(self.vouching.again) => {
                    if let Err(error) = self.vouch().await {
                        return error;
                    }
                }
                _ = probes.tick() => {
                    // A failure to send a probe proves nothing about the listening session.
                    if self.send_probe().await.is_ok() {
                        deadline.get_or_insert(Instant::now() + PROBE_WITHIN);
                    }
                }
            }
        }
    }

    async fn send_probe(&self) -> Result<()> {
        let params: &Params<'_> = &[(&self.probe, Type::TEXT)];
        let sent = self.sessions.query(PROBE_WITHIN, "listen", "select pg_catalog.pg_notify($1, '')", params);
        sent.await.map(drop)
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
    session::in_time(PROBE_WITHIN, "listen", answer).await
}

fn closed() -> Error {
    Error::unavailable("cannot listen: the connection was closed")
}

fn not_passed_on() -> Error {
    Error::listen_unsupported(
        "cannot listen: the pooler does not pass notifications on; give a listen URL that connects without the pooler",
    )
}

fn no_longer_passed_on() -> Error {
    Error::unavailable("cannot listen: the server no longer passes notifications on")
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
