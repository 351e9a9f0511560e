//! stub
use crate::error::{Error, Result};
#[derive(Clone)]
pub struct Address {
    config: tokio_postgres::Config,
}
impl Address {
    pub fn parse(text: Option<&str>) -> Result<Address> {
        Ok(Address {
            config: text.unwrap_or("").parse().map_err(|e: tokio_postgres::Error| Error::invalid(e.to_string()))?,
        })
    }
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }
    pub fn describe(&self) -> String {
        format!("postgres on {:?}", self.config.get_hosts())
    }
}
