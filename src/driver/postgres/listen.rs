//! The listener's connection: one of its own, since pooled ones drop notifications.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_postgres::AsyncMessage;
use tokio_postgres::types::Type;

use super::session::{self, Params, Sessions};
use super::{Postgres, warm};
use crate::database::schema::Schema;
use crate::database::{Database, connect};
use crate::driver::Signal;
use crate::error::{Error, Result};

/// How often the listener rings a bell for itself, to know that it still hears.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// How long it may take to hear it.
const PROBE_HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Whether this session and another are seen to be one: lent for a transaction each, and no place to listen. Asked before
/// anything is left behind there, and more than once, since others come between.
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

/// Opens the connection, listens, and makes sure that it hears; the stream ends with an error when the connection does, or has
/// gone deaf.
pub(super) async fn listen(driver: &Postgres, worker: i64) -> Result<BoxStream<'static, Result<Signal>>> {
    let (database, sessions) = (&driver.database, &driver.sessions);
    let (client, inbox) = open(database).await?;
    if database.is_pooled() && is_shared(&client, sessions).await? {
        return Err(deaf());
    }
    in_time(client.batch_execute(&sessions.of_listener())).await?;
    let mut ear = Ear::new(client, inbox, sessions.clone(), database.schema()).await?;
    ear.make_sure(database.is_pooled()).await?;
    // It is a session of its own, and not one that a pooler lends.
    let params: &Params<'_> = &[(&worker, Type::INT8)];
    in_time(ear.client.query_typed(&driver.statements.vouch, params)).await?;
    if !database.is_pooled() && !database.listens_elsewhere() {
        driver.line.open(&ear.client).await;
        warm::warm_up_line(driver).await;
    }
    Ok(stream::unfold(ear, |mut ear| async move { Some((ear.next().await?, ear)) }).boxed())
}

/// A connection, and what the server says there.
async fn open(database: &Database) -> Result<(ClientWrapper, Inbox)> {
    let address = database.for_worker(database.listen_address(), "reveille listener");
    let (client, mut connection) = connect::open(&address).await?;
    let (heard, inbox) = mpsc::unbounded_channel();
    let listening = tokio::spawn(async move {
        loop {
            match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(message)) => {
                    if heard.send(Ok(message)).is_err() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    let _ = heard.send(Err(Error::database("listen", error)));
                    return;
                }
                None => return,
            }
        }
    });
    Ok((ClientWrapper::new(client, listening), inbox))
}

type Inbox = mpsc::UnboundedReceiver<Result<AsyncMessage>>;

struct Ear {
    client: Arc<ClientWrapper>,
    inbox: Inbox,
    /// What rings the probe: not this session, which would hear itself even through a transaction pooler.
    sessions: Sessions,
    bell: String,
    cancel: String,
    schedules: String,
    pause: String,
    stop: String,
    probe: String,
    probes: tokio::time::Interval,
    /// Until when the probe under way has to be heard.
    deadline: Option<Instant>,
    over: bool,
}

/// What was heard.
enum Heard {
    Signal(Signal),
    Probe,
}

impl Ear {
    async fn new(client: ClientWrapper, inbox: Inbox, sessions: Sessions, schema: &Schema) -> Result<Ear> {
        let schema = schema.name();
        let probe = format!("{schema}.probe.{:016x}", fastrand::u64(..));
        let [bell, cancel, pause, stop, schedules] =
            ["bell", "cancel", "pause", "stop", "schedules"].map(|channel| format!("{schema}.{channel}"));
        let channels = [&bell, &cancel, &pause, &stop, &schedules, &probe];
        let listen = channels.map(|channel| format!("listen \"{channel}\"")).join("; ");
        in_time(client.batch_execute(&listen)).await?;
        let mut probes = interval_at(Instant::now() + PROBE_EVERY, PROBE_EVERY);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Ear {
            client: Arc::new(client),
            inbox,
            sessions,
            bell,
            cancel,
            pause,
            stop,
            schedules,
            probe,
            probes,
            deadline: None,
            over: false,
        })
    }

    /// Rings the probe and waits for it.
    async fn make_sure(&mut self, pooled: bool) -> Result<()> {
        self.ring_probe().await?;
        match tokio::time::timeout(PROBE_HEARD_WITHIN, self.probe_heard()).await {
            Ok(heard) => heard,
            Err(_) if pooled => {
                // The session that was lent for it has others to serve.
                let _ = in_time(self.client.batch_execute("unlisten *")).await;
                Err(deaf())
            }
            Err(_) => Err(unheard()),
        }
    }

    async fn probe_heard(&mut self) -> Result<()> {
        loop {
            let message = self.inbox.recv().await.unwrap_or_else(|| Err(closed()))?;
            // A signal before the first probe is heard needs no answer: whoever listens anew looks at everything at once.
            if let AsyncMessage::Notification(heard) = message
                && heard.channel() == self.probe
            {
                return Ok(());
            }
        }
    }

    async fn next(&mut self) -> Option<Result<Signal>> {
        while !self.over {
            let heard = tokio::select! {
                message = self.inbox.recv() => message.unwrap_or_else(|| Err(closed())),
                () = until(self.deadline) => Err(unheard()),
                _ = self.probes.tick() => {
                    // Whether a probe can be rung says nothing of whether it would be heard.
                    if self.ring_probe().await.is_ok() {
                        self.deadline.get_or_insert(Instant::now() + PROBE_HEARD_WITHIN);
                    }
                    continue;
                }
            };
            match heard {
                Ok(AsyncMessage::Notification(heard)) => match self.understand(heard.channel(), heard.payload()) {
                    Some(Heard::Signal(signal)) => return Some(Ok(signal)),
                    Some(Heard::Probe) => self.deadline = None,
                    None => {}
                },
                Ok(_) => {}
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
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
    Error::deaf("listen: the pooler does not pass notifications on; give a listen URL that leads past it")
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
