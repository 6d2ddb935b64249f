//! The link between a site and its coordinator: QUIC (quinn) with the pinned keys of [`vestibule_protocol::tls`], and frames on
//! its streams. The only place where a quinn default matters; all that do are set here, on purpose.
//!
//! *In*: keys and pins; messages to send. *Out*: endpoint configurations; messages that were received whole and within their
//! caps. *Refuses*: whatever the frames refuse, and peers that are too slow or too many.

mod endpoint;
mod framed;

pub use endpoint::{CLOSE_NOT_ALLOWED, CLOSE_REPLACED, CLOSE_SHUTDOWN, client_config, listen, peer_key};
pub use framed::{Framed, LinkError};
