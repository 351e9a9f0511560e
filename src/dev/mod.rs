//! A throw-away Postgres server for demos, tests and benches, and a proxy that makes the network to a server fail.
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
mod proxy;
mod server;
mod standby;

pub use proxy::{Network, Proxy};
pub use server::{Kept, Server, ServerOptions, Stop};
