//! Opening a connection to the first host of an address that accepts the connection.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use deadpool_postgres::Connect;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};

use super::address::Address;
use super::tls::Tls;
use crate::error::{Error, Result};

type Stream = <Tls as MakeTlsConnect<Socket>>::Stream;
/// A client, and the connection that has to be polled for it.
pub(crate) type Opened = (Client, Connection<Socket, Stream>);

/// The wait for a host before the next host is tried as well. After a fail-over, the first host may be dead and silent.
const HEAD_START: Duration = Duration::from_secs(1);

/// Opens a connection that can write. The client works only while the caller polls the connection.
pub(crate) async fn open(address: &Address) -> Result<Opened> {
    let tls = address.security().connector()?;
    let failed = |error| Error::database(&format!("connect to {}", address.describe()), error);
    first(&writing(address.hosts()), &tls).await.map_err(failed)
}

/// Opens the connections of a pool.
pub(super) struct Opener {
    hosts: Vec<Config>,
    tls: Tls,
    /// True if a session must be able to write.
    writes: bool,
}

impl Opener {
    pub(super) fn new(address: &Address, writes: bool) -> Result<Opener> {
        let hosts = if writes { writing(address.hosts()) } else { address.hosts().to_vec() };
        Ok(Opener { hosts, tls: address.security().connector()?, writes })
    }
}

impl Connect for Opener {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        async {
            let (client, connection) = first(&self.hosts, &self.tls).await?;
            Ok((client, tokio::spawn(drive(connection, self.writes))))
        }
        .boxed()
    }
}

fn writing(hosts: &[Config]) -> Vec<Config> {
    let mut hosts = hosts.to_vec();
    for host in &mut hosts {
        host.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    hosts
}

/// Polls a connection until the connection ends. If the connection `writes`, the polling also ends once the server
/// refuses writes, as after a fail-over.
async fn drive(mut connection: Connection<Socket, Stream>, writes: bool) {
    let ended = poll_fn(|cx| match connection.poll_unpin(cx) {
        Poll::Pending if writes && connection.parameter("default_transaction_read_only") == Some("on") => {
            Poll::Ready(Ok(()))
        }
        polled => polled,
    });
    if let Err(error) = ended.await {
        tracing::debug!(name: "connection.ended", target: "reveille::database", %error, "a connection ended");
    }
}

/// Connects to the first host that accepts a connection. The hosts are tried in the given order, and each has a head
/// start of 1 s before the next.
///
/// The future is boxed, so that its code is compiled once, and not in each crate that connects.
fn first<'a>(hosts: &'a [Config], tls: &'a Tls) -> BoxFuture<'a, Result<Opened, tokio_postgres::Error>> {
    async move {
        let mut order: Vec<&Config> = hosts.iter().collect();
        if order.first().is_some_and(|host| host.get_load_balance_hosts() == LoadBalanceHosts::Random) {
            fastrand::shuffle(&mut order);
        }
        let mut order = order.into_iter().peekable();
        let mut trying = FuturesUnordered::new();
        let mut failed: Option<tokio_postgres::Error> = None;
        loop {
            trying.extend(order.next().map(|host| one(host, tls)));
            tokio::select! {
                tried = trying.next() => match tried {
                    Some(Ok(opened)) => return Ok(opened),
                    Some(Err(error)) => {
                        // The error of a server that has answered says more than one about an unreachable server.
                        let has_answered = failed.as_ref().is_some_and(|failed| failed.as_db_error().is_some());
                        failed = if has_answered { failed } else { Some(error) };
                    }
                    None => return Err(failed.unwrap_or_else(tokio_postgres::Error::__private_api_timeout)),
                },
                () = tokio::time::sleep(HEAD_START), if order.peek().is_some() => {}
            }
        }
    }
    .boxed()
}

/// Tries each numeric address of a host's name.
async fn one(host: &Config, tls: &Tls) -> Result<Opened, tokio_postgres::Error> {
    let Some(Host::Tcp(name)) = host.get_hosts().first().filter(|_| host.get_hostaddrs().is_empty()) else {
        return encrypted_or_not(host, tls).await;
    };
    let port = host.get_ports().first().copied().unwrap_or(5432);
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let mut failed = None;
    for place in found.into_iter().flatten() {
        let mut at = host.clone();
        match encrypted_or_not(at.hostaddr(place.ip()), tls).await {
            Ok(opened) => return Ok(opened),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        // tokio-postgres resolves the name again, and its error says why the name cannot be resolved.
        None => encrypted_or_not(host, tls).await,
    }
}

/// Connects by libpq's rule for `sslmode=prefer`: if the server refuses a connection with TLS, this connects without
/// TLS.
async fn encrypted_or_not(place: &Config, tls: &Tls) -> Result<Opened, tokio_postgres::Error> {
    match in_time(place, tls).await {
        Err(error) if place.get_ssl_mode() == SslMode::Prefer && is_refusal(&error) => {
            let mut plain = place.clone();
            in_time(plain.ssl_mode(SslMode::Disable), tls).await.map_err(|_| error)
        }
        opened => opened,
    }
}

/// True if TLS failed, or if the server refuses this user with TLS.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.to_string().contains("TLS handshake") || error.code().is_some_and(|code| code.code() == "28000")
}

/// Applies `connect_timeout` to all steps of connecting. tokio-postgres applies the timeout to the TCP handshake only,
/// which even a frozen server answers.
async fn in_time(place: &Config, tls: &Tls) -> Result<Opened, tokio_postgres::Error> {
    let opening = place.connect(Tls::clone(tls));
    match place.get_connect_timeout() {
        Some(&patience) => match tokio::time::timeout(patience, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(tokio_postgres::Error::__private_api_timeout()),
        },
        None => opening.await,
    }
}

/// A setting that no server has by default and no pooler passes on.
const MARK: (&str, &str) = ("reveille.session", "own");

/// The codes with which poolers refuse an unknown setting: protocol violation (PgBouncer), feature not supported,
/// invalid or unknown parameter.
const REFUSALS: [&str; 4] = ["08P01", "0A000", "22023", "42704"];

/// True once an address in this process has led to a pooler.
static MET_POOLER: AtomicBool = AtomicBool::new(false);

/// Returns true if a prepared statement may be gone at its next use. A client does not say whether it leads to a
/// pooler. So if one address in this process has led to a pooler, all clients count as pooled.
pub(crate) fn has_met_pooler() -> bool {
    MET_POOLER.load(Ordering::Relaxed)
}

/// Returns true if the address leads to a pooler. This asks for a session that starts with a setting. A pooler lends
/// sessions that have started earlier, so it refuses or ignores this setting.
///
/// # Errors
/// Unavailable if no server answers; denied if the login is refused.
pub(crate) async fn is_pooled(address: &Address) -> Result<bool> {
    let pooled = !starts_with_settings(address).await?;
    MET_POOLER.fetch_or(pooled, Ordering::Relaxed);
    Ok(pooled)
}

async fn starts_with_settings(address: &Address) -> Result<bool> {
    let (name, value) = MARK;
    let tls = address.security().connector()?;
    let failed = |error| Error::database(&format!("connect to {}", address.describe()), error);
    let (client, connection) = match first(address.with_setting(name, value).hosts(), &tls).await {
        Err(error) if error.code().is_some_and(|code| REFUSALS.contains(&code.code())) => {
            drop(first(address.hosts(), &tls).await.map_err(failed)?);
            return Ok(false);
        }
        opened => opened.map_err(failed)?,
    };
    tokio::spawn(connection);
    let ask = client.query_typed_one("select pg_catalog.current_setting('reveille.session', true)", &[]);
    let marked: Option<String> = ask.await.map_err(|error| Error::database("connect", error))?.get(0);
    Ok(marked.as_deref() == Some(value))
}
