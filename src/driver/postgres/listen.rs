//! The listener's connection: one of its own, since pooled ones drop notifications.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Row};

use crate::database::schema::Schema;
use crate::database::{Database, connect};
use crate::driver::Signal;
use crate::error::{Error, Result};

/// How often the listener rings a bell for itself, to know that it still hears.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// How long it may take to hear it.
const PROBE_HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Opens the connection and listens; the stream ends with an error when the connection does, or has gone deaf.
pub(super) async fn listen(
    database: Database,
    vouch: String,
    worker: i64,
) -> Result<BoxStream<'static, Result<Signal>>> {
    let (client, mut connection) = connect::open(database.listen_address()).await?;
    let (heard, inbox) = mpsc::unbounded_channel();
    tokio::spawn(async move {
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
    let ear = Ear::new(client, inbox, database.schema(), Vouch { sql: vouch, worker }).await?;
    Ok(stream::unfold(ear, |mut ear| async move { Some((ear.next().await?, ear)) }).boxed())
}

struct Ear {
    client: Client,
    inbox: mpsc::UnboundedReceiver<Result<AsyncMessage>>,
    bell: String,
    cancel: String,
    probe: String,
    probes: tokio::time::Interval,
    /// Until when the probe under way has to be heard.
    deadline: Option<Instant>,
    over: bool,
    /// To be said once it is known that this is a session of its own, and not one that a pooler lends.
    vouch: Option<Vouch>,
}

/// What vouches for a worker.
struct Vouch {
    sql: String,
    worker: i64,
}

impl Ear {
    async fn new(
        client: Client,
        inbox: mpsc::UnboundedReceiver<Result<AsyncMessage>>,
        schema: &Schema,
        vouch: Vouch,
    ) -> Result<Ear> {
        let schema = schema.name();
        let probe = format!("{schema}.probe.{:016x}", fastrand::u64(..));
        let (bell, cancel) = (format!("{schema}.bell"), format!("{schema}.cancel"));
        let listen = format!(
            "set application_name = 'reveille listener'; listen \"{bell}\"; listen \"{cancel}\"; listen \"{probe}\""
        );
        client.batch_execute(&listen).await.map_err(|error| Error::database("listen", error))?;
        let mut probes = interval_at(Instant::now(), PROBE_EVERY);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Ear { client, inbox, bell, cancel, probe, probes, deadline: None, over: false, vouch: Some(vouch) })
    }

    async fn next(&mut self) -> Option<Result<Signal>> {
        while !self.over {
            let heard = tokio::select! {
                message = self.inbox.recv() => {
                    message.unwrap_or_else(|| Err(Error::unavailable("listen: the connection was closed")))
                }
                () = until(self.deadline) => Err(Error::unavailable(
                    "listen: the server no longer passes notifications on; is a transaction pooler in the way?",
                )),
                _ = self.probes.tick() => {
                    self.deadline.get_or_insert(Instant::now() + PROBE_HEARD_WITHIN);
                    match self.ring_probe().await {
                        Ok(()) => continue,
                        Err(error) => Err(error),
                    }
                }
            };
            match heard {
                Ok(AsyncMessage::Notification(notification)) => {
                    if let Some(signal) = self.signal(notification.channel(), notification.payload()) {
                        return Some(Ok(signal));
                    }
                    if let Err(error) = self.vouch().await {
                        self.over = true;
                        return Some(Err(error));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    fn signal(&mut self, channel: &str, payload: &str) -> Option<Signal> {
        if channel == self.bell {
            Some(Signal::Bell(payload.to_owned()))
        } else if channel == self.cancel {
            payload.parse().ok().map(Signal::Cancel)
        } else {
            self.deadline = None;
            None
        }
    }

    /// The probe was heard.
    async fn vouch(&mut self) -> Result<()> {
        let Some(Vouch { sql, worker }) = self.vouch.take() else { return Ok(()) };
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&worker, Type::INT8)];
        self.in_time(self.client.query_typed(&sql, &params)).await
    }

    async fn ring_probe(&self) -> Result<()> {
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&self.probe, Type::TEXT)];
        self.in_time(self.client.query_typed("select pg_notify($1, '')", &params)).await
    }

    async fn in_time(&self, answer: impl Future<Output = Result<Vec<Row>, tokio_postgres::Error>>) -> Result<()> {
        match tokio::time::timeout(PROBE_HEARD_WITHIN, answer).await {
            Ok(answer) => answer.map(drop).map_err(|error| Error::database("listen", error)),
            Err(_) => Err(Error::unavailable("listen: the server does not answer")),
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
