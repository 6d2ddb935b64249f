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
    ClientConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
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
/// Bytes of a connection id.
const CONNECTION_ID: usize = 8;
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
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, seed.as_ref())));
    config.cid_generator(|| Box::new(ConnectionIds));
    let socket = UdpSocket::bind(address).map_err(|error| setup(&error))?;
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(config, Some(server_config(key, sites)?), socket, runtime).map_err(|error| setup(&error))
}

/// Connection ids of random bytes, any of which may be one of ours. Those that quinn makes unless told otherwise carry a mark of the process
/// that made them, and what lacks it is dropped without an answer: the one who took a dead coordinator's place would reset nobody.
/// An answer is shorter than what it answers, and there is one in 20 ms at most.
struct ConnectionIds;

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID];
        aws_lc_rs::rand::fill(&mut bytes).expect("AWS-LC ends the process rather than go on without randomness");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::runtime::Runtime;

    use super::*;
    use crate::{Way, dial};

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32]).unwrap()
    }

    /// A coordinator with key `seed` that knows site 2 and answers its streams, in a runtime of its own: dropping that is to the other
    /// end as if the process were killed. Nothing is said, the socket is gone.
    fn coordinator(port: u16, seed: u8) -> (Runtime, SocketAddr) {
        let runtime = Runtime::new().unwrap();
        let _inside = runtime.enter();
        let endpoint = listen((Ipv4Addr::LOCALHOST, port).into(), &key(seed), Pins::of([key(2).public()])).unwrap();
        let address = endpoint.local_addr().unwrap();
        runtime.spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(connection) = incoming.await else { continue };
                tokio::spawn(async move { while connection.accept_bi().await.is_ok() {} });
            }
        });
        (runtime, address)
    }

    /// How a site's connection ends whose coordinator was killed, where one with key `seed` takes its place: within two pings, or not at all.
    fn ends(seed: u8) -> Option<quinn::ConnectionError> {
        let site = Runtime::new().unwrap();
        let (first, address) = coordinator(0, 1);
        let quic = address.to_string();
        let dialled = site.block_on(async {
            let dialled = dial(Way { quic: &quic, tunnel: None }, &key(2), key(1).public()).await.unwrap();
            // The coordinator drops the stream, which a site hears of only once both ends are done with the handshake.
            let (mut send, mut recv) = dialled.connection.open_bi().await.unwrap();
            send.write_all(b"?").await.unwrap();
            assert!(recv.read_to_end(1).await.unwrap().is_empty());
            dialled
        });
        drop(first);
        assert_eq!(dialled.connection.close_reason(), None);
        let _second = coordinator(address.port(), seed);
        site.block_on(async { tokio::time::timeout(KEEP_ALIVE * 2, dialled.connection.closed()).await.ok() })
    }

    #[test]
    fn a_site_learns_from_a_coordinator_that_came_back_that_it_had_died() {
        assert_eq!(ends(1), Some(quinn::ConnectionError::Reset));
    }

    #[test]
    fn nobody_else_at_its_address_can_end_the_connection() {
        assert_eq!(ends(3), None);
    }
}
