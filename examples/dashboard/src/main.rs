//! Serves the application at http://127.0.0.1:3000. Log in as ada with the password lovelace.

use reveille::Database;
use reveille::dev::Server;
use reveille_dashboard_example::application;
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The throw-away server stops when `_server` is dropped, at the end of this function.
    let (url, _server) = match std::env::var("DATABASE_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let server = Server::start()?;
            (server.url("postgres"), Some(server))
        }
    };
    let database = Database::connect(url).await?;
    database.migrate().await?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);

    let (stop, mut stopped) = watch::channel(());
    let mut stopped_too = stop.subscribe();
    let app = application(database, async move { drop(stopped.changed().await) });
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move { drop(stopped_too.changed().await) });
    let (served, ()) = tokio::join!(serving.into_future(), async {
        let _ = tokio::signal::ctrl_c().await;
        stop.send_replace(());
    });
    Ok(served?)
}
