//! Frames: how messages are cut out of a stream. `u32 length | u16 kind | u16 version | payload`, big-endian; the payload is
//! postcard (<https://postcard.jamesmunns.com/wire-format>), one frozen struct per (kind, version).
//!
//! *In*: a [`Message`] to send, or 8 header bytes and then the payload that they announce. *Out*: bytes, or the message.
//! *Trusts*: nothing. *Refuses*: a length over the kind's own cap (before anything is allocated), another kind or version than
//! the step of the protocol calls for, payloads that do not decode, and bytes left over after the payload.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a frame before its payload.
pub const HEADER_BYTES: usize = 8;

/// A message with a place in the protocol. The struct is frozen once released: a change is a new version.
pub trait Message: Serialize + DeserializeOwned {
    /// Which message.
    const KIND: u16;
    /// Which form of it.
    const VERSION: u16;
    /// Most payload bytes.
    const CAP: u32;
}

/// What the first 8 bytes of a frame announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload bytes that follow.
    pub length: u32,
    /// Which message.
    pub kind: u16,
    /// Which form of it.
    pub version: u16,
}

/// A frame that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than the kind allows.
    #[error("a frame of kind {kind} announces {length} bytes: at most {cap} are allowed")]
    TooLong {
        /// Which message.
        kind: u16,
        /// What was announced.
        length: u32,
        /// What is allowed.
        cap: u32,
    },
    /// Not what the protocol calls for here.
    #[error("a frame of kind {found} version {found_version} came where kind {expected} version {expected_version} was due")]
    Unexpected {
        /// What came.
        found: u16,
        /// In which form.
        found_version: u16,
        /// What was due.
        expected: u16,
        /// In which form.
        expected_version: u16,
    },
    /// The payload is not one of that message, or has bytes left over.
    #[error("a frame of kind {kind} does not decode")]
    Payload {
        /// Which message.
        kind: u16,
    },
}

impl FrameError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "frame-too-long",
            Self::Unexpected { .. } => "frame-unexpected",
            Self::Payload { .. } => "frame-malformed",
        }
    }
}

/// The whole frame of one message.
///
/// # Errors
/// The message is longer than its own cap.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER_BYTES];
    frame = postcard::to_extend(message, frame).map_err(|_| FrameError::Payload { kind: M::KIND })?;
    let length = u32::try_from(frame.len().saturating_sub(HEADER_BYTES)).unwrap_or(u32::MAX);
    if length > M::CAP {
        return Err(FrameError::TooLong { kind: M::KIND, length, cap: M::CAP });
    }
    let header = [length.to_be_bytes().as_slice(), &M::KIND.to_be_bytes(), &M::VERSION.to_be_bytes()].concat();
    if let Some(place) = frame.first_chunk_mut::<HEADER_BYTES>() {
        place.copy_from_slice(&header);
    }
    Ok(frame)
}

impl Header {
    /// The same, of a message that has at most so many bytes here, also where its kind allows more.
    ///
    /// # Errors
    /// It announces more.
    pub fn within(self, bytes: usize) -> Result<Self, FrameError> {
        let cap = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Self { length, kind, .. } = self;
        if length > cap { Err(FrameError::TooLong { kind, length, cap }) } else { Ok(self) }
    }

    /// Reads a header.
    #[must_use]
    pub const fn parse(bytes: [u8; HEADER_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { length: u32::from_be_bytes([a, b, c, d]), kind: u16::from_be_bytes([e, f]), version: u16::from_be_bytes([g, h]) }
    }

    /// Whether this announces an `M`, of a length that `M` allows. To be asked before the payload is read.
    ///
    /// # Errors
    /// [`FrameError::Unexpected`] and [`FrameError::TooLong`].
    pub const fn expect<M: Message>(self) -> Result<usize, FrameError> {
        let Self { length, kind, version } = self;
        if kind != M::KIND || version != M::VERSION {
            return Err(FrameError::Unexpected {
                found: kind,
                found_version: version,
                expected: M::KIND,
                expected_version: M::VERSION,
            });
        }
        if length > M::CAP {
            return Err(FrameError::TooLong { kind, length, cap: M::CAP });
        }
        Ok(length as usize)
    }
}

/// Decodes a payload, all of it.
///
/// # Errors
/// [`FrameError::Payload`].
pub fn decode<M: Message>(payload: &[u8]) -> Result<M, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Payload { kind: M::KIND }),
    }
}
