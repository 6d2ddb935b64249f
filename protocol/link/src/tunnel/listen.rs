//! The coordinator's end of tunnels: takes datagrams out of each and hands them to its own QUIC port, and back.
//!
//! *In*: TCP connections. *Out*: datagrams, from a loopback address for each tunnel. *Trusts*: that a pinned key was proved. *Refuses*: other keys in the
//! handshake, handshakes that take long, more tunnels than there are places. A tunnel in which nothing moves is closed.

use std::io::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::tls::{self, Pins};

use super::{MAX_DATAGRAM, read, write};
use crate::LinkError;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// QUIC pings every second: a tunnel in which nothing came for so long has nobody at its other end.
const IDLE: Duration = Duration::from_secs(30);
/// Tunnels at the same time, those that shake hands among them.
const MAX_TUNNELS: usize = 2_048;
/// A listener that fails (too many open files, say) is asked again after so long.
const PAUSE: Duration = Duration::from_millis(100);

/// A port on which tunnels are accepted.
#[derive(Debug)]
pub struct Tunnels {
    listener: TcpListener,
    acceptor: Arc<rustls::ServerConfig>,
    quic: SocketAddr,
    most: usize,
}

impl Tunnels {
    /// On `listener`, for the QUIC endpoint of this process that listens on `quic`.
    ///
    /// # Errors
    /// The TLS library's refusal of the key.
    pub fn new(listener: TcpListener, quic: SocketAddr, key: &SecretKey, sites: Pins) -> std::result::Result<Self, LinkError> {
        let mut acceptor = tls::server(key, sites).map_err(|error| LinkError::Setup(error.to_string()))?;
        acceptor.alpn_protocols = vec![tls::TUNNEL_ALPN.to_vec()];
        Ok(Self { listener, acceptor: Arc::new(acceptor), quic: reached(quic), most: MAX_TUNNELS })
    }

    #[cfg(test)]
    pub(super) fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Accepts for ever. `renew` brings the pinned keys up to date before each handshake; where it cannot, nobody is let in.
    pub async fn serve<R: Future<Output = bool>>(self, renew: impl Fn() -> R) {
        let (places, mut tunnels) = (Arc::new(Semaphore::new(self.most)), JoinSet::new());
        loop {
            while tunnels.try_join_next().is_some() {}
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            if !renew().await {
                continue;
            }
            let (acceptor, quic) = (TlsAcceptor::from(Arc::clone(&self.acceptor)), self.quic);
            tunnels.spawn(async move {
                // Who it was, and what went wrong, is no news: anybody can connect.
                let _ = tunnel(stream, &acceptor, quic).await;
                drop(place);
            });
        }
    }
}

/// An address of this machine at which an endpoint that is bound to `quic` is reached.
fn reached(quic: SocketAddr) -> SocketAddr {
    let address = match quic.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        bound => bound,
    };
    SocketAddr::new(address, quic.port())
}

async fn tunnel(stream: TcpStream, acceptor: &TlsAcceptor, quic: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let local: IpAddr = if quic.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(quic).await?;
    carry(stream, &socket).await
}

/// Both ways, until either end is gone.
async fn carry(stream: impl AsyncRead + AsyncWrite, socket: &UdpSocket) -> Result<()> {
    let (reading, writing) = tokio::io::split(stream);
    let inwards = async {
        let (mut reading, mut buffer) = (BufReader::new(reading), [0; MAX_DATAGRAM]);
        loop {
            let length = tokio::time::timeout(IDLE, read(&mut reading, &mut buffer)).await??;
            socket.send(buffer.get(..length).unwrap_or_default()).await?;
        }
    };
    let outwards = async {
        let (mut writing, mut buffer) = (BufWriter::new(writing), [0; MAX_DATAGRAM]);
        loop {
            let mut length = socket.recv(&mut buffer).await?;
            // What waits goes in one piece.
            loop {
                write(&mut writing, buffer.get(..length).unwrap_or_default()).await?;
                match socket.try_recv(&mut buffer) {
                    Ok(more) => length = more,
                    Err(_) => break,
                }
            }
            writing.flush().await?;
        }
    };
    tokio::select! {
        ended = inwards => ended,
        ended = outwards => ended,
    }
}
