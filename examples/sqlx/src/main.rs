//! `cargo run --manifest-path examples/sqlx/Cargo.toml`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! welcome, ada@example.org
//! charges 500
//! ```

use reveille::dev::Server;
use reveille::{Database, enqueue};
use reveille_sqlx_example::{Charge, Failure, create_tables, sign_up, worker};
use sqlx::PgPool;

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
    let (database, pool) = (Database::connect(&url).await?, PgPool::connect(&url).await?);
    database.migrate().await?;
    create_tables(&pool).await?;
    sqlx::raw_sql("truncate example_users, example_charges").execute(&pool).await?;

    let user_id = sign_up(&pool, "ada@example.org").await?;
    enqueue(&pool, &Charge { user_id, cents: 500 }).await?;
    worker(database, pool.clone())?.run_until_drained().await?;
    let cents: i64 = sqlx::query_scalar("select sum(cents)::bigint from example_charges").fetch_one(&pool).await?;
    println!("charges {cents}");
    Ok(())
}
