//! The link between a site and its coordinator: QUIC (quinn) with the pinned keys of [`vestibule_protocol::tls`], and frames on
//! its streams; where a network lets no UDP through, inside of TLS. The only place where a quinn default matters; all that do are set here, on purpose.
//!
//! *In*: keys and pins; messages to send. *Out*: endpoint configurations; messages that were received whole and within their
//! caps. *Refuses*: whatever the frames refuse, and peers that are too slow or too many.

mod dial;
mod endpoint;
mod framed;
mod tunnel;

pub use dial::{Dialled, Way, dial};
pub use endpoint::{CLOSE_NOT_ALLOWED, CLOSE_REPLACED, CLOSE_SHUTDOWN, listen, peer_key};
pub use framed::{Framed, LinkError};
pub use tunnel::Tunnels;
