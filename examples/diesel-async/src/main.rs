//! `cargo run --manifest-path examples/diesel-async/Cargo.toml`, at `DATABASE_URL` or on a throw-away server. It prints
//! `welcome, user …`, with the user's id.

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use reveille::Database;
use reveille::dev::Server;
use reveille_diesel_async_example::{Failure, create_tables, example_users, sign_up, worker};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // The throw-away server stops when `_server` is dropped, at the end of this function.
    let (url, _server) = match std::env::var("DATABASE_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let server = Server::start()?;
            (server.url("postgres"), Some(server))
        }
    };
    let database = Database::connect(&url).await?;
    database.migrate().await?;
    let mut conn = AsyncPgConnection::establish(&url).await?;
    create_tables(&mut conn).await?;
    diesel::delete(example_users::table).execute(&mut conn).await?;

    sign_up(&mut conn, "ada@example.org").await?;
    worker(database)?.run_until_drained().await?;
    Ok(())
}
