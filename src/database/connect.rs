//! Opening one connection, for who drives it himself.

use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, Socket};

use super::address::Address;
use super::tls::Tls;
use crate::error::{Error, Result};

type Stream = <Tls as MakeTlsConnect<Socket>>::Stream;

/// Opens a connection; the second part has to be polled for the first to be of use.
pub(crate) async fn open(address: &Address) -> Result<(Client, Connection<Socket, Stream>)> {
    let tls = address.security().connector()?;
    let failed = |error| Error::database(&format!("connect to {}", address.describe()), error);
    address.config().connect(tls).await.map_err(failed)
}

/// A setting that no server has by itself, and no pooler passes on.
const MARK: (&str, &str) = ("reveille.session", "own");

/// What poolers refuse such a setting with: protocol violation (PgBouncer), feature not supported, invalid or unknown parameter.
const REFUSALS: [&str; 4] = ["08P01", "0A000", "22023", "42704"];

/// Whether a pooler stands between, by whether a session starts with the settings that were asked for: poolers refuse or ignore
/// those that they do not know, since they lend sessions that have started before.
///
/// # Errors
/// If nobody answers there, or the login is refused.
pub(crate) async fn is_pooled(address: &Address) -> Result<bool> {
    let (name, value) = MARK;
    let (client, connection) = match open(&address.with_setting(name, value)).await {
        Err(error) if error.code().is_some_and(|code| REFUSALS.contains(&code.code())) => {
            drop(open(address).await?);
            return Ok(true);
        }
        opened => opened?,
    };
    tokio::spawn(connection);
    let ask = client.query_typed_one("select current_setting('reveille.session', true)", &[]);
    let marked: Option<String> = ask.await.map_err(|error| Error::database("connect", error))?.get(0);
    Ok(marked.as_deref() != Some(value))
}
