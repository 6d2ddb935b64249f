//! How a site reaches its coordinator: by UDP where the network lets it, else through a tunnel.
//!
//! *In*: a [`Way`], our key, and the one key that is accepted. *Out*: a connection, whichever way was there first; UDP has a head start.
//! *Refuses*: anybody else at the other end.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use vestibule_protocol::key::{PublicKey, SecretKey};
use vestibule_protocol::tls::{self, Pins};

use crate::LinkError;
use crate::endpoint::client_config;
use crate::tunnel::TunnelSocket;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So long after UDP was tried, the tunnel is tried too.
const HEAD_START: Duration = Duration::from_secs(3);
/// The name is not used: identity is the pinned key.
const NAME: &str = "coordinator.invalid";

/// Where a coordinator is.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// `host:port`, UDP.
    pub quic: &'a str,
    /// `host:port`, TCP, if it accepts tunnels.
    pub tunnel: Option<&'a str>,
}

/// A connection, and what it lives in.
#[derive(Debug)]
pub struct Dialled {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The connection.
    pub connection: Connection,
    /// Whether it goes through a tunnel.
    pub tunnelled: bool,
}

/// Dials, proving `key`, accepting `coordinator` alone.
///
/// # Errors
/// It cannot be reached by any way, or is another.
pub async fn dial(way: Way<'_>, key: &SecretKey, coordinator: PublicKey) -> Result<Dialled, LinkError> {
    let by_udp = direct(way.quic, key, coordinator);
    let Some(tunnel) = way.tunnel else { return by_udp.await };
    tokio::pin!(by_udp);
    let why = match tokio::time::timeout(HEAD_START, &mut by_udp).await {
        Ok(Ok(dialled)) => return Ok(dialled),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let by_tcp = tunnelled(tunnel, key, coordinator);
    let Some(why) = why else {
        tokio::pin!(by_tcp);
        return tokio::select! {
            Ok(dialled) = &mut by_udp => Ok(dialled),
            Ok(dialled) = &mut by_tcp => Ok(dialled),
            else => Err(LinkError::Closed(format!("neither {} (UDP) nor {tunnel} (TCP) answers", way.quic))),
        };
    };
    by_tcp.await.map_err(|error| LinkError::Closed(format!("{why}; {error}")))
}

async fn direct(address: &str, key: &SecretKey, coordinator: PublicKey) -> Result<Dialled, LinkError> {
    let closed = |error: &dyn std::fmt::Display| LinkError::Closed(format!("{address} (UDP): {error}"));
    let remote = tokio::net::lookup_host(address).await.map_err(|error| closed(&error))?.next();
    let remote = remote.ok_or_else(|| closed(&"no address of that name"))?;
    let local: SocketAddr =
        if remote.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let endpoint = Endpoint::client(local).map_err(|error| closed(&error))?;
    let connection = greeted(&endpoint, remote, key, coordinator).await.map_err(|error| closed(&error))?;
    Ok(Dialled { endpoint, connection, tunnelled: false })
}

pub(crate) async fn tunnelled(address: &str, key: &SecretKey, coordinator: PublicKey) -> Result<Dialled, LinkError> {
    let closed = |error: &dyn std::fmt::Display| LinkError::Closed(format!("{address} (TCP): {error}"));
    let mut config = tls::client(key, Pins::of([coordinator])).map_err(|error| LinkError::Setup(error.to_string()))?;
    config.alpn_protocols = vec![tls::TUNNEL_ALPN.to_vec()];
    let name = ServerName::try_from(NAME).map_err(|error| LinkError::Setup(error.to_string()))?;
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?;
        Ok::<_, std::io::Error>((TlsConnector::from(Arc::new(config)).connect(name, stream).await?, peer))
    };
    let connected = tokio::time::timeout(HANDSHAKE, connecting).await;
    let (stream, peer) = connected.map_err(|_| closed(&"no answer"))?.map_err(|error| closed(&error))?;
    let socket = TunnelSocket::over(stream, peer);
    let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime));
    let endpoint = endpoint.map_err(|error| closed(&error))?;
    let connection = greeted(&endpoint, peer, key, coordinator).await.map_err(|error| closed(&error))?;
    Ok(Dialled { endpoint, connection, tunnelled: true })
}

async fn greeted(
    endpoint: &Endpoint,
    remote: SocketAddr,
    key: &SecretKey,
    coordinator: PublicKey,
) -> Result<Connection, LinkError> {
    let closed = |error: &dyn std::fmt::Display| LinkError::Closed(error.to_string());
    let config = client_config(key, Pins::of([coordinator]))?;
    let connecting = endpoint.connect_with(config, remote, NAME).map_err(|error| closed(&error))?;
    let connection = tokio::time::timeout(HANDSHAKE, connecting).await;
    connection.map_err(|_| closed(&"no answer"))?.map_err(|error| closed(&error))
}
