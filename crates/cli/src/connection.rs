//! Which database a command works on.

use clap::Args;
use reveille::Database;
use reveille::database::DatabaseOptions;

use crate::Failure;

#[derive(Args, Clone)]
pub struct Connection {
    /// Where the database is: a URL or key=value string; without it, the PG* variables say.
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// Where to listen, if the database is reached through a transaction pooler.
    #[arg(long, global = true, env = "REVEILLE_LISTEN_URL", hide_env_values = true, value_name = "URL")]
    listen_url: Option<String>,
    /// The schema of Reveille's tables.
    #[arg(long, global = true, env = "REVEILLE_SCHEMA", default_value = "reveille")]
    schema: String,
    /// Whether the address was given with the command, and not by the environment.
    #[arg(skip)]
    pub url_is_on_line: bool,
}

impl Connection {
    /// The address that was given, if any.
    pub fn url(&self) -> Option<&str> {
        self.database_url.as_deref().filter(|url| !url.is_empty())
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The address, if it was given with the command.
    pub fn url_on_line(&self) -> Option<&str> {
        self.url().filter(|_| self.url_is_on_line)
    }

    /// Connects, whatever the state of the schema.
    pub async fn open(&self) -> Result<Database, Failure> {
        Ok(self.options(self.url()).connect().await?)
    }

    /// Connects to a server of our own: what was given says where others are.
    pub async fn open_own(&self, url: String) -> Result<Database, Failure> {
        Ok(Database::options(Some(url)).schema(&self.schema).connect().await?)
    }

    /// Connects to a database whose schema this program knows.
    pub async fn database(&self) -> Result<Database, Failure> {
        Ok(known(self.options(self.url())).await?)
    }

    /// The same, on one connection at a time: for who looks on.
    pub async fn lookout(&self) -> reveille::Result<Database> {
        known(self.options(self.url()).max_connections(1)).await
    }

    fn options(&self, url: Option<&str>) -> DatabaseOptions {
        let options = Database::options(url.map(str::to_owned)).schema(&self.schema);
        match self.listen_url.as_deref().filter(|url| !url.is_empty()) {
            Some(listen_url) => options.listen_url(listen_url),
            None => options,
        }
    }
}

async fn known(options: DatabaseOptions) -> reveille::Result<Database> {
    let database = options.connect().await?;
    match database.check().await {
        // Who may only enqueue may not read the schema's history.
        Err(error) if error.is_denied() && error.code().is_some() => {}
        checked => checked?,
    }
    Ok(database)
}

/// A duration as people write it: `500ms`, `5m`, `1h 30m`, `7days`.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    if text.trim() == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    humantime::parse_duration(text.trim()).map_err(|error| format!("{error}; write it like 500ms, 30s, 5m or 2h30m"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_is_read_as_it_is_printed(seconds in 0u64..1_000_000_000_000, nanos in 0u32..1_000_000_000) {
            let printed = std::time::Duration::new(seconds, nanos);
            prop_assert_eq!(duration(&format!(" {} ", humantime::format_duration(printed))), Ok(printed));
        }

        #[test]
        fn what_is_no_duration_is_refused_in_one_line(text in prop_oneof![".*", "[0-9]{1,25}[a-zµ ]{0,3}"]) {
            if let Err(error) = duration(&text) {
                prop_assert!(error.contains("30s") && !error.contains('\n'), "{}", error);
            }
        }
    }
}
