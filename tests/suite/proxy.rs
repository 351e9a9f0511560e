//! A network that can be made to fail, between a worker and its server.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_postgres::config::Host;

/// What becomes of connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Those that there are are cut, new ones are not let through.
    Refuse,
    /// What the server says on those that there are disappears; new ones are let through.
    SwallowAnswers,
}

/// Stands between.
pub struct Proxy {
    own: SocketAddr,
    config: tokio_postgres::Config,
    mode: Arc<watch::Sender<Mode>>,
}

impl Proxy {
    /// In front of the server of an address, which is reached by TCP.
    pub async fn start(address: &str) -> Proxy {
        let config: tokio_postgres::Config = address.parse().unwrap();
        let Host::Tcp(host) = &config.get_hosts()[0] else { panic!("the server is reached by TCP") };
        let server = format!("{host}:{}", config.get_ports()[0]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let modes = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *modes.borrow() != Mode::Refuse {
                    tokio::spawn(carry(client, server.clone(), modes.subscribe()));
                }
            }
        });
        Proxy { own, config, mode }
    }

    /// The way through it.
    pub fn address(&self) -> String {
        let user = self.config.get_user().unwrap();
        let password = String::from_utf8_lossy(self.config.get_password().unwrap_or_default()).into_owned();
        let database = self.config.get_dbname().unwrap();
        format!("host=127.0.0.1 port={} user='{user}' password='{password}' dbname='{database}'", self.own.port())
    }

    pub fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    pub fn refuse(&self) {
        self.mode.send_replace(Mode::Refuse);
    }

    pub fn swallow_answers(&self) {
        self.mode.send_replace(Mode::SwallowAnswers);
    }
}

async fn carry(client: TcpStream, server: String, mut mode: watch::Receiver<Mode>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // A connection that comes while answers are swallowed is a new one, and passes.
    mode.mark_unchanged();
    let swallows = mode.clone();
    tokio::select! {
        () = copy(from_client, to_server, None) => {}
        () = copy(from_server, to_client, Some(swallows)) => {}
        () = refused(&mut mode) => {}
    }
}

async fn refused(mode: &mut watch::Receiver<Mode>) {
    let _ = mode.wait_for(|mode| *mode == Mode::Refuse).await;
}

/// `swallows`: once it has changed to that mode, what is read goes nowhere.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut swallows: Option<watch::Receiver<Mode>>,
) {
    let (mut buffer, mut swallowing) = (vec![0; 65536], false);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if let Some(mode) = &mut swallows
            && mode.has_changed().unwrap_or_default()
        {
            swallowing |= *mode.borrow_and_update() == Mode::SwallowAnswers;
        }
        if !swallowing && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
