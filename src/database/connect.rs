//! stub
use super::address::Address;
use crate::error::{Error, Result};
pub(crate) async fn open(
    address: &Address,
) -> Result<(
    tokio_postgres::Client,
    tokio_postgres::Connection<tokio_postgres::Socket, tokio_postgres::tls::NoTlsStream>,
)> {
    address
        .config()
        .connect(tokio_postgres::NoTls)
        .await
        .map_err(|e| Error::database(&format!("connect to {}", address.describe()), e))
}
