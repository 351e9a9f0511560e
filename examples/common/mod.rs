//! The database of the examples.

use std::sync::OnceLock;

use reveille::Database;
use reveille::dev::Server;

/// The throw-away server. Rust never drops a static; the server stops when this process ends.
static SERVER: OnceLock<Server> = OnceLock::new();

/// Connects to the database at `DATABASE_URL`, or to a throw-away server if that variable is not set, and migrates.
pub async fn database() -> reveille::Result<Database> {
    let url = match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => throw_away()?,
    };
    let database = Database::connect(url).await?;
    database.migrate().await?;
    Ok(database)
}

fn throw_away() -> reveille::Result<String> {
    let server = match SERVER.get() {
        Some(server) => server,
        None => {
            // The example `prepared` needs this setting.
            let server = Server::options().setting("max_prepared_transactions", "5").start()?;
            SERVER.get_or_init(|| server)
        }
    };
    Ok(server.url("postgres"))
}
