//! A web application that enqueues jobs in its requests' transactions, and works them in the same process.
//!
//! `cargo run --manifest-path examples/axum/Cargo.toml` uses the database of `DATABASE_URL`, or else a throw-away
//! server. Then `curl -i http://127.0.0.1:3000/signup --json '{"email": "ada@example.org"}'`.
//!
//! The guide's page on axum, `docs/start/axum.md`, explains this code and quotes it.

pub mod jobs;
pub mod web;

use std::future::Future;

use reveille::Database;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Any error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connects to the database, and creates or updates all tables.
pub async fn open(url: String) -> Result<Database, Failure> {
    let database = Database::connect(url).await?;
    database.migrate().await?;
    let users = "create table if not exists example_users \
        (id bigint generated always as identity primary key, email text not null unique)";
    database.client().await?.batch_execute(users).await?;
    Ok(database)
}

/// Serves requests and works jobs until `shutdown` completes. Then both end gracefully.
///
/// If the server or the worker ends by itself, by an error, the other one ends gracefully as well.
pub async fn run(listener: TcpListener, database: Database, shutdown: impl Future<Output = ()>) -> Result<(), Failure> {
    let worker = jobs::worker(&database)?;
    let router = web::router(database);
    let stop = CancellationToken::new();

    let serve = async {
        let _stops_the_worker = stop.clone().drop_guard();
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned()).await
    };
    let work = async {
        let _stops_the_server = stop.clone().drop_guard();
        worker.run_until(stop.cancelled()).await
    };
    let stop_both = async {
        tokio::select! {
            () = shutdown => stop.cancel(),
            () = stop.cancelled() => {}
        }
    };
    let (served, worked, ()) = tokio::join!(serve, work, stop_both);
    served?;
    worked?;
    Ok(())
}

/// Returns a future that completes at Ctrl-C, or at the signal TERM that supervisors send.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
