//! The site's end of a tunnel: to quinn, a UDP socket.
//!
//! *In*: a connection to the coordinator's tunnel port. *Out*: a socket from which all datagrams come from one address. Datagrams that the
//! connection cannot take now are dropped, which QUIC mends as it mends any loss. *Stops*: with the socket, or with the connection.

use std::fmt;
use std::io::{Error, ErrorKind, IoSliceMut, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::{MAX_DATAGRAM, read, write};

/// Datagrams that wait, either way.
const WAITING: usize = 512;

/// A socket whose datagrams go through a stream.
pub(crate) struct TunnelSocket {
    peer: SocketAddr,
    out: Sender<Vec<u8>>,
    found: Mutex<Receiver<Vec<u8>>>,
    _pumps: JoinSet<()>,
}

impl TunnelSocket {
    /// Over `stream`, whose other end quinn is to know as `peer`.
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static, peer: SocketAddr) -> Arc<Self> {
        let (reading, writing) = tokio::io::split(stream);
        let (out, mut to_send) = channel::<Vec<u8>>(WAITING);
        let (arrived, found) = channel(WAITING);
        let mut pumps = JoinSet::new();
        pumps.spawn(async move {
            let mut writing = BufWriter::new(writing);
            while let Some(datagram) = to_send.recv().await {
                let written = write(&mut writing, &datagram).await;
                // What comes at once goes at once.
                let flushed = if to_send.is_empty() { writing.flush().await } else { Ok(()) };
                if written.and(flushed).is_err() {
                    return;
                }
            }
        });
        pumps.spawn(async move {
            let (mut reading, mut buffer) = (BufReader::new(reading), [0; MAX_DATAGRAM]);
            while let Ok(length) = read(&mut reading, &mut buffer).await {
                let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                if arrived.send(datagram).await.is_err() {
                    return;
                }
            }
        });
        Arc::new(Self { peer, out, found: Mutex::new(found), _pumps: pumps })
    }
}

impl AsyncUdpSocket for TunnelSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> Result<()> {
        // Full: the datagram is lost. Closed: reading says so.
        drop(self.out.try_send(transmit.contents.to_vec()));
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<Result<usize>> {
        let (Some(buffer), Some(meta)) = (buffers.first_mut(), metas.first_mut()) else { return Poll::Ready(Ok(0)) };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match found.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Err(Error::new(ErrorKind::BrokenPipe, "the tunnel was cut"))),
            Poll::Ready(Some(datagram)) => {
                let length = datagram.len().min(buffer.len());
                for (to, from) in buffer.iter_mut().zip(&datagram) {
                    *to = *from;
                }
                *meta = RecvMeta { addr: self.peer, len: length, stride: length, ecn: None, dst_ip: None };
                Poll::Ready(Ok(1))
            }
        }
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Ok((Ipv4Addr::UNSPECIFIED, 0).into())
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for TunnelSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TunnelSocket({})", self.peer)
    }
}

/// There is always a place to drop a datagram.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}
