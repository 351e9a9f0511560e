//! The options for the database of a command.

use clap::Args;
use reveille::Database;
use reveille::admin::Admin;
use reveille::database::DatabaseOptions;

use crate::{Failure, operator};

#[derive(Args, Clone)]
#[command(next_help_heading = "Database")]
pub struct Connection {
    /// The database's address: a URL or a key=value string. Default: the PG* variables.
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// The address to listen at, past the transaction pooler that --database-url goes through.
    #[arg(long, global = true, env = "REVEILLE_LISTEN_URL", hide_env_values = true, value_name = "URL")]
    listen_url: Option<String>,
    /// The schema of Reveille's tables.
    #[arg(long, global = true, env = "REVEILLE_SCHEMA", default_value = "reveille")]
    schema: String,
    /// True if the user gave the address as an argument. False if it comes from the environment.
    #[arg(skip)]
    pub url_is_argument: bool,
}

impl Connection {
    /// Returns the address, if the user gave one.
    pub fn url(&self) -> Option<&str> {
        self.database_url.as_deref().filter(|url| !url.is_empty())
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the address, if the user gave it as an argument.
    pub fn url_argument(&self) -> Option<&str> {
        self.url().filter(|_| self.url_is_argument)
    }

    /// Connects, and does not check the schema.
    pub async fn open(&self) -> Result<Database, Failure> {
        Ok(self.options(self.url()).connect().await?)
    }

    /// Connects to a throw-away server, and ignores the given address.
    pub async fn open_throw_away(&self, url: String) -> Result<Database, Failure> {
        Ok(Database::options(Some(url)).schema(&self.schema).connect().await?)
    }

    /// Connects, and checks that this program supports the schema's version.
    pub async fn database(&self) -> Result<Database, Failure> {
        Ok(connect_and_check(self.options(self.url())).await?)
    }

    /// Connects as [`Connection::database`] does, for a command that changes things. The changes are recorded on behalf
    /// of the user of the operating system.
    pub async fn operator(&self) -> Result<Admin, Failure> {
        Ok(self.database().await?.admin().acting_as(operator::name(), "command")?)
    }

    /// Connects as [`Connection::database`] does, but opens at most one session: for commands that only watch.
    pub async fn lookout(&self) -> reveille::Result<Database> {
        connect_and_check(self.options(self.url()).max_connections(1)).await
    }

    /// Connects as [`Connection::database`] does, with at most this number of sessions, and with the name by which the
    /// doctor knows a dashboard.
    pub async fn dashboard(&self, sessions: usize) -> reveille::Result<Database> {
        let options = self.options(self.url()).application_name("reveille dashboard");
        connect_and_check(options.max_connections(sessions)).await
    }

    fn options(&self, url: Option<&str>) -> DatabaseOptions {
        let options = Database::options(url.map(str::to_owned)).schema(&self.schema);
        match self.listen_url.as_deref().filter(|url| !url.is_empty()) {
            Some(listen_url) => options.listen_url(listen_url),
            None => options,
        }
    }
}

async fn connect_and_check(options: DatabaseOptions) -> reveille::Result<Database> {
    let database = options.connect().await?;
    match database.check().await {
        // A user with only the right to enqueue may not read the schema's record of migrations.
        Err(error) if error.is_denied() && error.code().is_some() => {}
        checked => checked?,
    }
    Ok(database)
}

/// Reads a duration: `500ms`, `5m`, `1h 30m`, `7days`.
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
        fn a_text_that_is_no_duration_is_refused_in_one_line(text in prop_oneof![".*", "[0-9]{1,25}[a-zµ ]{0,3}"]) {
            if let Err(error) = duration(&text) {
                prop_assert!(error.contains("30s") && !error.contains('\n'), "{}", error);
            }
        }
    }
}
