//! `cargo run --manifest-path examples/sea-orm/Cargo.toml`, at `DATABASE_URL` or on a throw-away server. It prints
//! `welcome, ada@example.org`.

use reveille::Database;
use reveille::dev::Server;
use reveille_sea_orm_example::{Failure, create_tables, sign_up, user, worker};
use sea_orm::EntityTrait;

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
    let (database, db) = (Database::connect(&url).await?, sea_orm::Database::connect(&url).await?);
    database.migrate().await?;
    create_tables(&db).await?;
    user::Entity::delete_many().exec(&db).await?;

    sign_up(&db, "ada@example.org").await?;
    worker(database, db)?.run_until_drained().await?;
    Ok(())
}
