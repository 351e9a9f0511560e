//! A throw-away Postgres server, for demos, tests and benches.
//!
//! ```no_run
//! # async fn example() -> reveille::Result<()> {
//! let server = reveille::dev::Server::start()?;
//! let database = reveille::Database::connect(server.url("postgres")).await?;
//! database.migrate().await?;
//! # Ok(())
//! # }
//! ```

mod fetch;
mod programs;
mod server;

pub use server::{Kept, Server, ServerOptions, Stop};
