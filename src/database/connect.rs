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
