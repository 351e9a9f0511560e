use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};

/// A network between programs and a server that can be made to fail; gone when dropped, with all its connections.
///
/// It has to be used within a tokio runtime.
#[derive(Debug)]
pub struct Proxy {
    own: SocketAddr,
    network: watch::Sender<State>,
    accepting: AbortHandle,
}

/// When all will have passed that was sent through a slow network.
type Passed = Arc<Mutex<Instant>>;

/// What a [`Proxy`] does with what is sent through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Everything passes.
    Pass,
    /// Everything passes, each piece so much later.
    Delay(Duration),
    /// So many bytes of the server's answers pass in a second, on all connections together.
    Rate(u32),
    /// Connections are cut, and new ones are not let through.
    Refuse,
    /// Nothing passes any more, in either direction, on connections old and new, without a sign of it.
    BlackHole,
    /// What the server says on the connections that there are disappears; new ones pass.
    SwallowAnswers,
    /// On the connections that there are, the server's half is closed, and what the client says still passes; new ones
    /// pass.
    HalfClose,
}

impl Proxy {
    /// In front of the server at a host and port.
    ///
    /// # Errors
    /// Unavailable if no port can be had.
    pub async fn start(host: impl Into<String>, port: u16) -> Result<Proxy> {
        let unavailable = |error| Error::unavailable(format!("proxy: cannot listen: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(unavailable)?;
        let own = listener.local_addr().map_err(unavailable)?;
        let network = watch::Sender::new((0, Network::Pass));
        let (server, watched) = ((host.into(), port), network.clone());
        let passed = Passed::new(Mutex::new(Instant::now()));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if watched.borrow().1 != Network::Refuse {
                    tokio::spawn(carry(client, server.clone(), watched.subscribe(), Arc::clone(&passed)));
                }
            }
        });
        Ok(Proxy { own, network, accepting: accepting.abort_handle() })
    }

    /// The port on 127.0.0.1 that leads through it.
    pub fn port(&self) -> u16 {
        self.own.port()
    }

    /// From now on the network is like this.
    pub fn set(&self, network: Network) {
        self.network.send_modify(|(epoch, state)| (*epoch, *state) = (*epoch + 1, network));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Network::Refuse);
        self.accepting.abort();
    }
}

/// The how manieth state of the network it is, and which.
type State = (u64, Network);

async fn carry(client: TcpStream, server: (String, u16), network: watch::Receiver<State>, passed: Passed) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let born = network.borrow().0;
    let asking = Half { network: network.clone(), is_answers: false, born, passed: Arc::clone(&passed) };
    let answering = Half { network: network.clone(), is_answers: true, born, passed };
    let mut network = network;
    tokio::select! {
        () = asking.copy(from_client, to_server) => {}
        () = answering.copy(from_server, to_client) => {}
        _ = network.wait_for(|(_, network)| *network == Network::Refuse) => {}
    }
}

/// One direction of a connection.
struct Half {
    network: watch::Receiver<State>,
    is_answers: bool,
    /// The state in which the connection was made: what happens to older ones does not happen to it.
    born: u64,
    passed: Passed,
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
                // A silent network does not tell that somebody has hung up.
                let mut network = self.network.clone();
                let _ = network.wait_for(|(_, network)| *network != Network::BlackHole).await;
                return;
            }
            let (epoch, network) = *self.network.borrow();
            match network {
                Network::BlackHole => gap = true,
                Network::SwallowAnswers if self.is_answers && epoch > self.born => gap = true,
                Network::Delay(delay) => tokio::time::sleep(delay).await,
                Network::Rate(rate) if self.is_answers => self.pass(read, rate).await,
                _ => {}
            }
            // After a gap nothing makes sense any more.
            if !gap && to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }

    /// Waits until so many bytes have passed at this rate.
    async fn pass(&self, bytes: usize, rate: u32) {
        let passed = {
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            *passed = (*passed).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / f64::from(rate));
            *passed
        };
        tokio::time::sleep_until(passed.into()).await;
    }

    async fn is_half_closed(&self) {
        if !self.is_answers {
            return std::future::pending().await;
        }
        let mut network = self.network.clone();
        let closed = |(epoch, network): &State| *network == Network::HalfClose && *epoch > self.born;
        if network.wait_for(closed).await.is_err() {
            std::future::pending().await
        }
    }
}
