//! The application: the server and a worker in one process.

use reveille::dev::Server;
use reveille_axum_example::{Failure, open, run, stop_signal};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    // The throw-away server stops when `_server` is dropped, at the end of this function.
    let (url, _server) = match std::env::var("DATABASE_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let server = Server::start()?;
            println!("a throw-away server: {}", server.url("postgres"));
            (server.url("postgres"), Some(server))
        }
    };
    let database = open(url).await?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    run(listener, database, stop_signal()?).await
}
