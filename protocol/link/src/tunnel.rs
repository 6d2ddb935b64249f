//! QUIC where a network lets no UDP through: its datagrams, one after the other, on one TLS connection (TCP, usually port 443).
//!
//! *In*: datagrams. *Out*: the same, as the other end sent them. The tunnel's TLS is pinned to the same keys as QUIC's own, so that no stranger
//! comes as far as QUIC; who the peers are, and what they may read, is decided by QUIC inside of it all the same. *Trusts*: nothing that comes
//! through. *Refuses*: datagrams of no bytes, or larger than any of QUIC's here. A tunnel that is cut ends the connection in it, as a
//! network that fails does.
//!
//! ```text
//! tunnel   = datagram*
//! datagram = length (u16, big endian, 1 to 1,500) bytes
//! ```

mod listen;
mod socket;

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub use listen::Tunnels;
pub(crate) use socket::TunnelSocket;

/// Largest datagram. QUIC's own, as configured here, have 1,472 bytes at most.
const MAX_DATAGRAM: usize = 1_500;

/// Reads the next datagram into `buffer`. Its length.
async fn read(from: &mut (impl AsyncRead + Unpin), buffer: &mut [u8; MAX_DATAGRAM]) -> Result<usize> {
    let length = usize::from(from.read_u16().await?);
    let place = buffer.get_mut(..length).filter(|place| !place.is_empty());
    let place = place.ok_or_else(|| Error::new(ErrorKind::InvalidData, "no datagram of QUIC has that length"))?;
    from.read_exact(place).await?;
    Ok(length)
}

/// Writes one datagram. Larger ones than there are are lost, as a network loses them.
async fn write(to: &mut (impl AsyncWrite + Unpin), datagram: &[u8]) -> Result<()> {
    match u16::try_from(datagram.len()) {
        Ok(length) if (1..=MAX_DATAGRAM).contains(&datagram.len()) => {
            to.write_u16(length).await?;
            to.write_all(datagram).await
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
