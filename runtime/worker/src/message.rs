//! What daemon and worker say to each other: postcard, behind a length.
//!
//! *In*: a socket. *Out*: [`Command`]s and [`Reply`]s. *Refuses*: frames that are longer than the reader's limit, and bytes that are no
//! message. A length is believed only as far as bytes arrive.

use std::borrow::Cow;
use std::io::{Error, ErrorKind, Read, Result, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vestibule_protocol::job::Limits;
use vestibule_protocol::report::Report;
use vestibule_protocol::round::RoundRequest;
use vestibule_sandbox::{Pages, Slowest};

use crate::confine::Walls;

/// Compiled code of the largest component that is allowed.
const MAX_FRAME: u64 = 512 << 20;

/// From the daemon.
#[derive(Serialize, Deserialize)]
pub(crate) enum Command<'a> {
    /// Compile this component.
    Compile(Bytes<'a>),
    /// Load the code that a worker compiled of this component.
    Load { code: Bytes<'a>, component: Bytes<'a> },
    /// Run `plan`.
    Plan(String, Limits),
    /// Bake a round's state into the component that was loaded (the round's request as JSON).
    Bake(Bytes<'a>, Limits),
    /// Load the code of a component that a worker baked, for a round whose statistics have these lengths as guests give them.
    /// Have room for batches of so many bytes.
    Round { code: Bytes<'a>, lengths: Vec<u32>, limits: Limits, first: First, batch_bytes: u64 },
    /// So many partitions lie at the start of the memory file, in so many bytes; the first ones are
    /// left out.
    Batch { partitions: u32, bytes: u64, skip: u32 },
    /// Measure how slow this machine is, for guests of so much memory in MiB.
    Measure(u32),
    /// Look at this component.
    Inspect(Bytes<'a>),
    /// Run `next`, by the shape and all that was released (as JSON).
    Next(String, Bytes<'a>, Limits),
}

/// What a worker does before its first batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum First {
    /// Rehearse with these.
    Rehearse(Rehearsals),
    /// Lay down what another found in its rehearsal.
    Lay(Pages),
}

/// Public partitions, as rows lie in the memory file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rehearsals {
    pub(crate) partitions: u32,
    pub(crate) rows: Vec<u8>,
}

/// From the worker.
#[derive(Serialize, Deserialize)]
pub(crate) enum Reply<'a> {
    /// The first word: what decides how components are compiled (hexadecimal), and which walls stand.
    Ready(String, Walls),
    /// Done.
    Done,
    /// Compiled code.
    Code(Bytes<'a>),
    /// A plan, as JSON.
    Plan(Vec<u8>),
    /// Contributions lie in the memory file, in so many bytes.
    Batch(u64),
    /// Refused, with a stable code and words made of public input.
    Refused(String, String),
    /// The worker could not do its part.
    Fault,
    /// What was measured.
    Measured(Slowest),
    /// What `next` says: a [`Said`] as JSON.
    Step(Bytes<'a>),
    /// A round was taken in: what its instances find.
    Room(Pages),
}

/// What `next` says.
#[derive(Serialize, Deserialize)]
pub(crate) enum Said {
    /// Another round.
    Round(RoundRequest),
    /// The end.
    Report(Report),
}

/// Many bytes, taken as they are: serde goes through a `Vec<u8>` byte by byte.
pub(crate) struct Bytes<'a>(pub(crate) Cow<'a, [u8]>);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(|bytes| Self(bytes.to_vec().into()))
    }
}

pub(crate) fn send(link: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(Error::other)?;
    link.write_all(&(bytes.len() as u64).to_le_bytes())?;
    link.write_all(&bytes)
}

pub(crate) fn receive<T: DeserializeOwned>(link: &mut impl Read) -> Result<T> {
    let mut length = [0; 8];
    link.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_FRAME {
        return Err(Error::new(ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut bytes = Vec::new();
    if link.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "a frame is no message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_messages_of_a_sane_length_are_read() {
        let mut bytes = vec![];
        send(&mut bytes, &Command::Batch { partitions: 7, bytes: 300, skip: 2 }).unwrap();
        assert_eq!(bytes, [5, 0, 0, 0, 0, 0, 0, 0, 5, 7, 0xac, 2, 2]);
        let Command::Batch { partitions, bytes: found, skip: 2 } = receive(&mut bytes.as_slice()).unwrap() else {
            panic!("a batch")
        };
        assert_eq!((partitions, found), (7, 300));
        for length in 0..bytes.len() {
            assert!(receive::<Command<'_>>(&mut &bytes[..length]).is_err());
        }
        bytes[8] = 9;
        assert!(receive::<Command<'_>>(&mut bytes.as_slice()).is_err());
        assert!(receive::<Command<'_>>(&mut [0xff; 64].as_slice()).is_err());
    }
}
