//! Endpoint configurations.
//!
//! *In*: our key and the pins. *Out*: quinn configurations in which every default that matters was replaced: quinn's own allow
//! 200 streams of 1.25 MB each with no connection limit, 65,536 half-open handshakes, 0-RTT, and no keep-alive.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use vestibule_protocol::key::{PublicKey, SecretKey};
use vestibule_protocol::tls::{self, Pins};

use crate::LinkError;

/// Close code: the peer's key may not do this.
pub const CLOSE_NOT_ALLOWED: VarInt = VarInt::from_u32(1);
/// Close code: a newer connection of the same key took over.
pub const CLOSE_REPLACED: VarInt = VarInt::from_u32(2);
/// Close code: this end is shutting down.
pub const CLOSE_SHUTDOWN: VarInt = VarInt::from_u32(3);

/// A coordinator that came back answers the next ping with a stateless reset: a site is back this long after it, and a round trip.
/// Well below the 30 s after which a NAT forgets.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A guess until it is measured: a link across a continent.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// A peer that is silent for this long is gone.
const IDLE: Duration = Duration::from_secs(20);
/// Streams that a peer may have open at once: one per job and round, and a few questions.
const STREAMS: u32 = 64;
/// Bytes in flight per stream, and per connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Handshakes under way at once, and what they may buffer.
const INCOMING: usize = 256;
const INCOMING_BYTES: u64 = 64 << 10;
const INCOMING_TOTAL_BYTES: u64 = 8 << 20;

/// The coordinator's side of a connection.
fn server_config(key: &SecretKey, sites: Pins) -> Result<ServerConfig, LinkError> {
    let tls = tls::server(key, sites).map_err(|error| LinkError::Setup(error.to_string()))?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| LinkError::Setup(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.max_incoming(INCOMING);
    config.incoming_buffer_size(INCOMING_BYTES);
    config.incoming_buffer_size_total(INCOMING_TOTAL_BYTES);
    // A site behind a NAT may change its address; its key is its identity, its address never is.
    config.migration(true);
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

/// A listening endpoint whose stateless resets (RFC 9000, section 10.3) are keyed from `key`: sites that still talk to a
/// coordinator that died learn it from the one that took its place, at once and not by silence.
///
/// # Errors
/// The address cannot be listened on; the TLS library's refusal of the key.
pub fn listen(address: SocketAddr, key: &SecretKey, sites: Pins) -> Result<Endpoint, LinkError> {
    let setup = |error: &dyn std::fmt::Display| LinkError::Setup(error.to_string());
    let seed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.seed()), b"vestibule/stateless-reset/1");
    let config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, seed.as_ref())));
    let socket = UdpSocket::bind(address).map_err(|error| setup(&error))?;
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(config, Some(server_config(key, sites)?), socket, runtime).map_err(|error| setup(&error))
}

/// A site's dialler.
///
/// # Errors
/// The TLS library's refusal of the key.
pub(crate) fn client_config(key: &SecretKey, coordinator: Pins) -> Result<ClientConfig, LinkError> {
    let tls = tls::client(key, coordinator).map_err(|error| LinkError::Setup(error.to_string()))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| LinkError::Setup(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config.keep_alive_interval(Some(KEEP_ALIVE));
    // A first packet that is lost is sent again after three of these; the default would make that a second.
    config.initial_rtt(INITIAL_RTT);
    config.max_idle_timeout(IdleTimeout::try_from(IDLE).ok());
    config.max_concurrent_bidi_streams(STREAMS.into());
    config.max_concurrent_uni_streams(0_u32.into());
    config.stream_receive_window(STREAM_WINDOW.into());
    config.receive_window(CONNECTION_WINDOW.into());
    config.send_window(u64::from(CONNECTION_WINDOW));
    // Datagrams are not used.
    config.datagram_receive_buffer_size(None);
    // The spin bit shows round-trip times to the network.
    config.allow_spin(false);
    config
}

/// The key with which the peer proved itself in the handshake.
#[must_use]
pub fn peer_key(connection: &Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    PublicKey::from_spki(identity.first()?).ok()
}
