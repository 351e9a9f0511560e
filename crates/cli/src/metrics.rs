//! `metrics`: Prometheus' text over HTTP.

use clap::Args;
use reveille::admin::{http::Pages, metrics};
use tokio::net::TcpListener;

use crate::connection::Connection;
use crate::work::stop_signal;
use crate::{Failure, Outcome, output};

/// GET /metrics answers with the metrics, or with status 503 and `reveille_up 0` while the database cannot be reached.
/// GET /healthz answers ok while this process runs. The role reveille_monitor suffices (see `reveille migrate
/// --print-grants`).
#[derive(Args)]
pub struct MetricsCommand {
    /// The address to serve at.
    #[arg(long, default_value = "127.0.0.1:9187", value_name = "ADDRESS:PORT", conflicts_with = "once")]
    listen: String,
    /// Print the metrics once, without serving them.
    #[arg(long)]
    once: bool,
}

impl MetricsCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        if self.once {
            let page = metrics::text(&connection.lookout().await?).await?;
            return Ok(output::page(page.trim_end())?);
        }
        match connection.lookout().await {
            Ok(_) => {}
            Err(error) if error.is_invalid() => return Err(error.into()),
            Err(error) => say!("{error}; until that is fixed, scrapes get status 503"),
        }
        let listener = listen(&self.listen).await?;
        say!("serving http://{}/metrics; Ctrl-C ends it", listener.local_addr()?);
        tokio::select! {
            () = pages(connection).serve(listener) => Ok(()),
            () = stop_signal() => Ok(()),
        }
    }
}

/// Returns the page of the metrics. Each query runs in a read-only session of its own, and the server gives it up after
/// 20 s.
pub fn pages(connection: &Connection) -> Pages {
    let connection = connection.clone();
    Pages::new().metrics_from(move || {
        let connection = connection.clone();
        async move { connection.lookout().await }
    })
}

pub async fn listen(address: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| format!("cannot listen at {address}: {error}; give a free address and port").into())
}
