//! Tunnels between two ends in this process, over real sockets of the loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quinn::Endpoint;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::tls::{self, Pins};

use super::*;
use crate::dial::{Dialled, tunnelled};
use crate::{LinkError, listen};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32]).unwrap()
}

/// A coordinator with key 1 that knows sites 2 and 3, and echoes streams.
struct Coordinator {
    endpoint: Endpoint,
    tcp: SocketAddr,
    known: Arc<AtomicBool>,
    tunnels: tokio::task::JoinHandle<()>,
}

impl Coordinator {
    async fn new(most: usize) -> Self {
        let pins = Pins::of([key(2).public(), key(3).public()]);
        let endpoint = listen((Ipv4Addr::LOCALHOST, 0).into(), &key(1), pins.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tcp, known) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(true)));
        let tunnels = Tunnels::new(listener, endpoint.local_addr().unwrap(), &key(1), pins).unwrap().at_most(most);
        let renew = Arc::clone(&known);
        let tunnels = tokio::spawn(tunnels.serve(move || std::future::ready(renew.load(Ordering::Relaxed))));
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                let connection = incoming.await.unwrap();
                tokio::spawn(async move {
                    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                        let bytes = recv.read_to_end(8 << 20).await.unwrap();
                        send.write_all(&bytes).await.unwrap();
                        send.finish().unwrap();
                    }
                });
            }
        });
        Self { endpoint, tcp, known, tunnels }
    }

    async fn dial(&self, site: u8) -> std::result::Result<Dialled, LinkError> {
        tunnelled(&self.tcp.to_string(), &key(site), key(1).public()).await
    }

    /// A site that speaks to the tunnel without QUIC.
    async fn raw(&self, site: u8, alpn: &[u8]) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let mut config = tls::client(&key(site), Pins::of([key(1).public()])).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.tcp).await?;
        let name = ServerName::try_from("coordinator.invalid").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        // With TLS 1.3 the other end's word about our key comes after the handshake.
        stream.flush().await?;
        Ok(stream)
    }
}

async fn echoed(dialled: &Dialled, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut recv) = dialled.connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    recv.read_to_end(8 << 20).await.unwrap()
}

#[tokio::test]
async fn datagrams_have_these_bytes_and_no_others_are_read() {
    let mut wire = Vec::new();
    for datagram in [&[7_u8; 1][..], &[8; 2], &[], &[9; MAX_DATAGRAM + 1]] {
        write(&mut wire, datagram).await.unwrap();
    }
    assert_eq!(wire, [0, 1, 7, 0, 2, 8, 8]);
    let (mut from, mut buffer) = (wire.as_slice(), [0; MAX_DATAGRAM]);
    assert_eq!(read(&mut from, &mut buffer).await.unwrap(), 1);
    assert_eq!(read(&mut from, &mut buffer).await.unwrap(), 2);
    assert_eq!(buffer[..2], [8, 8]);
    for bad in [&[][..], &[0], &[0, 0], &[0, 3, 1, 2], &[5, 221], &[255, 255, 1]] {
        assert!(read(&mut &*bad, &mut buffer).await.is_err(), "{bad:?}");
    }
    let largest = [&[5, 220][..], &[1; 1_500]].concat();
    assert_eq!(read(&mut largest.as_slice(), &mut buffer).await.unwrap(), 1_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_goes_through_a_tunnel_and_ends_when_it_is_cut() {
    let coordinator = Coordinator::new(8).await;
    let (two, three) = (coordinator.dial(2).await.unwrap(), coordinator.dial(3).await.unwrap());
    assert!(two.tunnelled);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[usize::from(at % 3 == 0)]).collect();
    let (first, second) = tokio::join!(echoed(&two, &bytes), echoed(&three, &bytes[1..]));
    assert!(first == bytes && second == bytes[1..]);
    // No tunnel, no connection: known at once, and not by silence.
    coordinator.tunnels.abort();
    let why = two.connection.closed().await;
    assert!(!matches!(why, quinn::ConnectionError::TimedOut), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_those_who_send_anything_else_come_no_further() {
    let coordinator = Coordinator::new(8).await;
    let two = coordinator.dial(2).await.unwrap();
    // Another key; the right key for QUIC's protocol; a coordinator with another key than is pinned.
    assert!(coordinator.dial(4).await.is_err());
    let mut buffer = [0; MAX_DATAGRAM];
    if let Ok(mut stream) = coordinator.raw(2, tls::ALPN).await {
        assert!(read(&mut stream, &mut buffer).await.is_err());
    }
    assert!(tunnelled(&coordinator.tcp.to_string(), &key(2), key(9).public()).await.is_err());
    // A site whose datagrams are none.
    for bad in [&[0, 0][..], &[255, 255, 1, 2, 3]] {
        let mut stream = coordinator.raw(3, tls::TUNNEL_ALPN).await.unwrap();
        stream.write_all(bad).await.unwrap();
        stream.flush().await.unwrap();
        assert!(read(&mut stream, &mut buffer).await.is_err(), "{bad:?}");
    }
    // Keys that cannot be read let nobody in.
    coordinator.known.store(false, Ordering::Relaxed);
    assert!(coordinator.dial(3).await.is_err());
    coordinator.known.store(true, Ordering::Relaxed);
    assert_eq!(echoed(&two, b"still here").await, b"still here");
    assert!(coordinator.endpoint.open_connections() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_tunnels_and_no_more() {
    let coordinator = Coordinator::new(1).await;
    let two = coordinator.dial(2).await.unwrap();
    assert!(coordinator.dial(3).await.is_err());
    two.connection.close(0_u32.into(), b"");
    two.endpoint.wait_idle().await;
    drop(two);
    // Its place is free as soon as the other end has seen that it is gone.
    while coordinator.dial(3).await.is_err() {}
}
