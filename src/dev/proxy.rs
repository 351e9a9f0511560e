use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};

/// A proxy between programs and a server. A test can make its network fail. Dropping the proxy closes all its
/// connections.
///
/// Use it within a tokio runtime.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<NetworkState>,
    accepting: AbortHandle,
}

/// The time at which the last byte sent so far will have passed a network with a limited rate.
type LastByteAt = Arc<Mutex<Instant>>;

/// The behaviour of the network of a [`Proxy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Everything passes.
    Pass,
    /// Everything passes, but each piece is delayed by this time.
    Delay(Duration),
    /// The server's answers pass at this many bytes per second, on all connections together.
    Rate(u32),
    /// All connections are cut, and new ones are refused.
    Refuse,
    /// Nothing passes in either direction, on open and new connections. Neither side learns that the network has
    /// failed.
    BlackHole,
    /// The server's answers on open connections disappear. New connections pass.
    SwallowAnswers,
    /// The server's half of each open connection is closed; the client's half still passes. New connections pass.
    HalfClose,
}

impl Proxy {
    /// Starts a proxy in front of the server at a host and port.
    ///
    /// # Errors
    /// Unavailable if no port is free.
    pub async fn start(host: impl Into<String>, port: u16) -> Result<Proxy> {
        let unavailable = |error| Error::unavailable(format!("proxy: cannot listen: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(unavailable)?;
        let address = listener.local_addr().map_err(unavailable)?;
        let network = watch::Sender::new((0, Network::Pass));
        let (server, watched) = ((host.into(), port), network.clone());
        let last_byte_at = LastByteAt::new(Mutex::new(Instant::now()));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if watched.borrow().1 != Network::Refuse {
                    tokio::spawn(carry(client, server.clone(), watched.subscribe(), Arc::clone(&last_byte_at)));
                }
            }
        });
        Ok(Proxy { address, network, accepting: accepting.abort_handle() })
    }

    /// The proxy's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Makes the network behave like this from now on.
    pub fn set(&self, network: Network) {
        self.network.send_modify(|(count, current)| (*count, *current) = (*count + 1, network));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Network::Refuse);
        self.accepting.abort();
    }
}

/// The number of times that the network was set, and its present behaviour.
type NetworkState = (u64, Network);

async fn carry(
    client: TcpStream,
    server: (String, u16),
    network: watch::Receiver<NetworkState>,
    last_byte_at: LastByteAt,
) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let opened_at = network.borrow().0;
    let asking =
        Half { network: network.clone(), is_answers: false, opened_at, last_byte_at: Arc::clone(&last_byte_at) };
    let answering = Half { network: network.clone(), is_answers: true, opened_at, last_byte_at };
    let mut network = network;
    tokio::select! {
        () = asking.copy(from_client, to_server) => {}
        () = answering.copy(from_server, to_client) => {}
        _ = network.wait_for(|(_, network)| *network == Network::Refuse) => {}
    }
}

/// One direction of a connection.
struct Half {
    network: watch::Receiver<NetworkState>,
    is_answers: bool,
    /// The number of times that the network had been set when the connection was opened. Some behaviours affect only
    /// the connections that were opened before the behaviour was set.
    opened_at: u64,
    last_byte_at: LastByteAt,
}

impl Half {
    async fn copy(self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let (mut buffer, mut gap, mut closed) = (vec![0; 65536], false, false);
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read.unwrap_or_default(),
                () = self.is_half_closed(), if !closed => {
                    let _ = to.shutdown().await;
                    (gap, closed) = (true, true);
                    continue;
                }
            };
            if read == 0 {
                // In a black hole, neither side learns that the other side has closed the connection.
                let mut network = self.network.clone();
                let _ = network.wait_for(|(_, network)| *network != Network::BlackHole).await;
                return;
            }
            let (count, network) = *self.network.borrow();
            match network {
                Network::BlackHole => gap = true,
                Network::SwallowAnswers if self.is_answers && count > self.opened_at => gap = true,
                Network::Delay(delay) => tokio::time::sleep(delay).await,
                Network::Rate(rate) if self.is_answers => self.slow_down(read, rate).await,
                _ => {}
            }
            // After a gap, further bytes would make no sense to the receiver.
            if !gap && to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }

    /// Waits until these bytes have passed at this rate.
    async fn slow_down(&self, bytes: usize, rate: u32) {
        let passed_at = {
            let mut last = self.last_byte_at.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / f64::from(rate));
            *last
        };
        tokio::time::sleep_until(passed_at.into()).await;
    }

    async fn is_half_closed(&self) {
        if !self.is_answers {
            return std::future::pending().await;
        }
        let mut network = self.network.clone();
        let closed = |(count, network): &NetworkState| *network == Network::HalfClose && *count > self.opened_at;
        if network.wait_for(closed).await.is_err() {
            std::future::pending().await
        }
    }
}
