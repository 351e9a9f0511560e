//! stub
use super::address::Address;
pub(crate) type Tls = tokio_postgres::NoTls;
pub(crate) fn tls(_: &Address) -> crate::Result<Tls> {
    Ok(tokio_postgres::NoTls)
}
