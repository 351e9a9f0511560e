//! `dashboard`: serves pages for a browser.

use std::net::SocketAddr;

use axum::Router;
use axum::http::Uri;
use axum::http::uri::Authority;
use axum::middleware::from_fn_with_state;
use clap::{Args, ValueEnum};
use reveille::Database;
use reveille_dashboard::{Access, Dashboard, Viewer};
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::work::stop_signal;
use crate::{Failure, Outcome, metrics, output};

mod login;
mod open;
mod patience;
mod serve;

use login::Login;

/// Sessions with the database: three for pages, and the rest for changes.
const SESSIONS: usize = 6;

#[derive(Args)]
pub struct DashboardCommand {
    /// The address to serve at. Port 0 is any free port.
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDRESS:PORT")]
    pub listen: String,
    /// Show everything, and change nothing.
    #[arg(long)]
    pub read_only: bool,
    /// How visitors log in. Default at an address of this machine alone: by the printed link.
    #[arg(long, value_enum)]
    pub auth: Option<Auth>,
    /// The name of a host at which the pages are served, such as ops.example.com. Can be given several times.
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// The address at which visitors reach the pages through a proxy, such as `https://ops.example.com/jobs/`.
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// A text that stands on every page, such as production.
    #[arg(long)]
    pub label: Option<String>,
    /// Leave a check of the doctor out of the overview. Can be given several times.
    #[arg(long = "ignore", value_name = "CHECK", value_parser = reveille::admin::doctor::CHECKS)]
    pub ignored: Vec<String>,
    /// Open the pages in a browser.
    #[arg(long)]
    pub open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Any name with the password REVEILLE_DASHBOARD_PASSWORD, or with the one whose bcrypt hash
    /// REVEILLE_DASHBOARD_PASSWORD_HASH is.
    Basic,
    /// A proxy sends the token REVEILLE_DASHBOARD_TOKEN, and the visitor's name in X-Forwarded-User.
    Bearer,
    /// Everybody who reaches the address may do everything.
    None,
}

impl DashboardCommand {
    /// Returns the command of the demo. If the usual port is taken, it serves at any free port.
    pub async fn of_demo(open: bool) -> DashboardCommand {
        let is_free = tokio::net::TcpListener::bind("127.0.0.1:7070").await.is_ok();
        let listen = if is_free { "127.0.0.1:7070" } else { "127.0.0.1:0" }.to_owned();
        // A throw-away server has unsafe settings, so that it starts quickly.
        let (label, ignored) = (Some("demo".to_owned()), vec!["settings".to_owned()]);
        let (auth, hosts, public_url, read_only) = (None, Vec::new(), None, false);
        DashboardCommand { listen, read_only, auth, hosts, public_url, label, ignored, open }
    }

    pub async fn run(self, connection: &Connection) -> Outcome {
        let database = connection.dashboard(SESSIONS).await?;
        let stop = CancellationToken::new();
        let served = self.start(database, stop.clone()).await?;
        stop_signal().await;
        stop.cancel();
        Ok(served.await.map_err(|error| error.to_string())?)
    }

    /// Serves the pages until `stop`. Prints their address first.
    pub async fn start(
        self,
        database: Database,
        stop: CancellationToken,
    ) -> Result<tokio::task::JoinHandle<()>, Failure> {
        let public = self.public_url.as_deref().map(public_url).transpose()?;
        let hosts = self.hosts.iter().map(|name| host(name)).collect::<Result<Vec<_>, _>>()?;
        let secret = variable("REVEILLE_DASHBOARD_SECRET").map(secret).transpose()?;
        let listener = metrics::listen(&self.listen).await?;
        let address = listener.local_addr()?;
        let is_https = public.as_ref().and_then(Uri::scheme_str) == Some("https");
        let login = Login::new(self.auth, address, is_https)?;
        if !address.ip().is_loopback() {
            say!(
                "the pages are served without TLS: put a proxy with TLS before them, or let only a private network in"
            );
        }
        let link = format!("{}{}", public.as_ref().map_or_else(|| local(address), Uri::to_string), login.query());
        let shutdown = stop.clone();
        let mut dashboard = Dashboard::new(database)
            .read_only(self.read_only)
            .ignore_checks(self.ignored)
            .hosts(hosts)
            .hosts(own_host(address))
            .hosts(public.as_ref().and_then(Uri::authority).map(Authority::to_string))
            .authorize(|request| request.extensions.get::<Viewer>().cloned().map(|viewer| viewer.access(Access::all())))
            .shutdown(async move { shutdown.cancelled().await });
        if let Some(label) = self.label {
            dashboard = dashboard.label(label);
        }
        if let Some(secret) = secret {
            dashboard = dashboard.secret(secret);
        }
        let pages: Router = dashboard.router();
        output::line(&link)?;
        if self.open {
            open::open(&link, stop.clone());
        }
        let pages = pages.layer(from_fn_with_state(std::sync::Arc::new(login), login::check));
        Ok(tokio::spawn(serve::serve(listener, pages, stop)))
    }
}

/// Returns the address of the listener, if a browser can use it as the name of a host.
fn own_host(address: SocketAddr) -> Option<String> {
    let is_any = address.ip().is_unspecified();
    (!is_any).then(|| address.to_string())
}

/// Reads the name of a host, which may have a port.
fn host(name: &str) -> Result<String, Failure> {
    let is_host = name.parse::<Authority>().is_ok_and(|host| !host.host().is_empty() && !name.contains('@'));
    match is_host {
        true => Ok(name.to_owned()),
        false => Err(format!("--host {name:?} is no name of a host; write it like ops.example.com").into()),
    }
}

/// The secret signs forms, so it must not be guessed.
fn secret(secret: String) -> Result<String, Failure> {
    match secret.len() {
        0..16 => Err("REVEILLE_DASHBOARD_SECRET is too short: set at least 16 random characters".to_owned().into()),
        _ => Ok(secret),
    }
}

fn local(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://localhost:{}/", address.port()),
        false => format!("http://{address}/"),
    }
}

fn public_url(text: &str) -> Result<Uri, Failure> {
    let with_slash = format!("{}/", text.trim_end_matches('/'));
    let url: Option<Uri> = with_slash.parse().ok();
    let is_plain =
        |url: &Uri| url.query().is_none() && url.authority().is_some_and(|host| !host.as_str().contains('@'));
    let is_http = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && is_plain(url);
    url.filter(is_http).ok_or_else(|| {
        format!("--public-url {text:?} is no address; write it like https://ops.example.com/jobs/").into()
    })
}

/// Returns a variable of the environment, if it is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
