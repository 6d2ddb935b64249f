//! What daemon and worker say to each other: postcard, behind a length.
//!
//! *In*: a socket. *Out*: [`Command`]s and [`Reply`]s. *Refuses*: frames that are longer than the reader's limit, and bytes that are no
//! message. A length is believed only as far as bytes arrive.

use std::io::{Error, ErrorKind, Read, Result, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vestibule_protocol::job::Limits;

use crate::confine::Walls;

/// Compiled code of the largest component that is allowed.
const MAX_FRAME: u64 = 512 << 20;

/// From the daemon.
#[derive(Serialize, Deserialize)]
pub(crate) enum Command {
    /// Compile this component.
    Compile(Vec<u8>),
    /// Load code that a worker compiled.
    Load(Vec<u8>),
    /// Run `plan`.
    Plan(String, Limits),
    /// Take in a round (its request as JSON); rehearse it.
    Round(Vec<u8>, Limits),
    /// So many partitions lie at the start of the memory file, in so many bytes.
    Batch { partitions: u32, bytes: u64 },
}

/// From the worker.
#[derive(Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The first word: what decides how components are compiled (hexadecimal), and which walls stand.
    Ready(String, Walls),
    /// Done.
    Done,
    /// The round was taken in, with so much fuel.
    Rehearsed(u64),
    /// Compiled code.
    Code(Vec<u8>),
    /// A plan, as JSON.
    Plan(Vec<u8>),
    /// Contributions lie in the memory file, in so many bytes.
    Batch(u64),
    /// Refused, with a stable code and words made of public input.
    Refused(String, String),
    /// The worker could not do its part.
    Fault,
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
        send(&mut bytes, &Command::Batch { partitions: 7, bytes: 300 }).unwrap();
        assert_eq!(bytes, [4, 0, 0, 0, 0, 0, 0, 0, 4, 7, 0xac, 2]);
        let Command::Batch { partitions, bytes: found } = receive(&mut bytes.as_slice()).unwrap() else { panic!("a batch") };
        assert_eq!((partitions, found), (7, 300));
        for length in 0..bytes.len() {
            assert!(receive::<Command>(&mut &bytes[..length]).is_err());
        }
        bytes[8] = 9;
        assert!(receive::<Command>(&mut bytes.as_slice()).is_err());
        assert!(receive::<Command>(&mut [0xff; 64].as_slice()).is_err());
    }
}
