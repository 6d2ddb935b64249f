//! One stream, cut into frames.
//!
//! *In*: messages to send. *Out*: messages received. *Refuses*: frames over their cap (before memory is taken for them), of
//! another kind than is due, or that do not decode; a stream that ends in the middle.

use quinn::{Connection, RecvStream, SendStream};
use vestibule_protocol::frame::{FrameError, HEADER_BYTES, Header, Message, decode, encode};

/// A link that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A frame was not accepted.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection or stream ended.
    #[error("the connection ended: {0}")]
    Closed(String),
    /// The endpoint could not be set up.
    #[error("the link could not be set up: {0}")]
    Setup(String),
}

impl LinkError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Frame(error) => error.code(),
            Self::Closed(_) => "link-closed",
            Self::Setup(_) => "link-setup",
        }
    }

    fn closed(error: impl std::fmt::Display) -> Self {
        Self::Closed(error.to_string())
    }
}

/// Both directions of one stream.
#[derive(Debug)]
pub struct Framed {
    send: SendStream,
    recv: RecvStream,
}

impl Framed {
    /// Waits until the peer no longer listens to this stream.
    pub async fn abandoned(&self) {
        // Also a connection that is gone is listened to by nobody.
        let _ = self.send.stopped().await;
    }

    /// Opens a stream to the peer. The peer sees it with the first message.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn open(connection: &Connection) -> Result<Self, LinkError> {
        let (send, recv) = connection.open_bi().await.map_err(LinkError::closed)?;
        Ok(Self { send, recv })
    }

    /// Waits for the peer to open a stream.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn accept(connection: &Connection) -> Result<Self, LinkError> {
        let (send, recv) = connection.accept_bi().await.map_err(LinkError::closed)?;
        Ok(Self { send, recv })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The message is over its own cap, or the stream is gone.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), LinkError> {
        let frame = encode(message)?;
        self.send.write_all(&frame).await.map_err(LinkError::closed)
    }

    /// The header of the next frame: which message comes.
    ///
    /// # Errors
    /// The stream is gone.
    pub async fn header(&mut self) -> Result<Header, LinkError> {
        let mut bytes = [0; HEADER_BYTES];
        self.recv.read_exact(&mut bytes).await.map_err(LinkError::closed)?;
        Ok(Header::parse(bytes))
    }

    /// The message that `header` announced.
    ///
    /// # Errors
    /// Another kind, too long, or not decodable; the stream is gone.
    pub async fn payload<M: Message>(&mut self, header: Header) -> Result<M, LinkError> {
        let length = header.expect::<M>()?;
        // As much room as has come, not as was announced.
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let most = length.saturating_sub(bytes.len());
            let piece = self.recv.read_chunk(most, true).await.map_err(LinkError::closed)?;
            bytes.extend_from_slice(&piece.ok_or_else(|| LinkError::Closed("a message ended in the middle".to_owned()))?.bytes);
        }
        Ok(decode(&bytes)?)
    }

    /// Receives one message of the kind that is due.
    ///
    /// # Errors
    /// As [`Self::header`] and [`Self::payload`].
    pub async fn receive<M: Message>(&mut self) -> Result<M, LinkError> {
        let header = self.header().await?;
        self.payload(header).await
    }

    /// Says that no more will be sent, and waits until the peer has it all.
    ///
    /// # Errors
    /// The connection is gone before that.
    pub async fn finish(mut self) -> Result<(), LinkError> {
        self.send.finish().map_err(LinkError::closed)?;
        self.send.stopped().await.map_err(LinkError::closed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vestibule_protocol::frame::encode;
    use vestibule_protocol::key::SecretKey;
    use vestibule_protocol::message::{Done, TrustUpdate};
    use vestibule_protocol::tls::Pins;

    use super::*;
    use crate::{Way, dial, listen};

    /// What a peer makes of these bytes of a stream, which then ends.
    async fn received(bytes: Vec<u8>) -> Result<TrustUpdate, LinkError> {
        let key = |seed| SecretKey::from_seed([seed; 32]).unwrap();
        let endpoint = listen((Ipv4Addr::LOCALHOST, 0).into(), &key(1), Pins::of([key(2).public()])).unwrap();
        let quic = endpoint.local_addr().unwrap().to_string();
        let accepting = tokio::spawn(async move {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let mut stream = Framed::accept(&connection).await.unwrap();
            let received = stream.receive::<TrustUpdate>().await;
            // Said so that the other end may go.
            let _ = stream.send(&Done).await;
            let _ = stream.finish().await;
            received
        });
        let dialled = dial(Way { quic: &quic, tunnel: None }, &key(2), key(1).public()).await.unwrap();
        let (mut send, mut recv) = dialled.connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        let _ = recv.read_to_end(64).await;
        accepting.await.unwrap()
    }

    #[tokio::test]
    async fn a_message_comes_whole_in_many_pieces_or_not_at_all() {
        let update = TrustUpdate { envelope: (0..3 << 20).map(|n: u32| n.to_le_bytes()[0]).collect() };
        let whole = encode(&update).unwrap();
        assert_eq!(received(whole.clone()).await, Ok(update));
        let mut part = whole;
        part.truncate(1 << 20);
        assert_eq!(received(part).await.unwrap_err().code(), "link-closed");
    }
}
