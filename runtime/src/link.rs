//! The link to the coordinator, from the site's side: the site dials out, the coordinator opens streams back.
//!
//! *In*: whom to dial, and a `Site` that answers. *Out*: answers. The site dials again by itself, for ever, with growing and
//! randomly spread pauses. *Trusts*: the pinned key of the coordinator, to be who it is; nothing that it says.

mod join;
mod serve;
mod witnessing;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use quinn::Endpoint;
use vestibule_link::LinkError;
use vestibule_protocol::key::{PublicKey, SecretKey};
use vestibule_protocol::tls::Pins;

pub use join::{JoinError, Whose, join};
pub(crate) use serve::serve;

/// Dials `address` (`host:port`), proving `key`, accepting `coordinator` alone.
async fn dial(address: &str, key: &SecretKey, coordinator: PublicKey) -> Result<(Endpoint, quinn::Connection), LinkError> {
    let closed = |error: &dyn std::fmt::Display| LinkError::Closed(format!("{address}: {error}"));
    let remote = tokio::net::lookup_host(address).await.map_err(|error| closed(&error))?.next();
    let remote = remote.ok_or_else(|| closed(&"no address of that name"))?;
    let local: SocketAddr =
        if remote.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let endpoint = Endpoint::client(local).map_err(|error| closed(&error))?;
    let config = vestibule_link::client_config(key, Pins::of([coordinator]))?;
    // The name is not used: identity is the pinned key.
    let connecting = endpoint.connect_with(config, remote, "coordinator.invalid").map_err(|error| closed(&error))?;
    let connection = tokio::time::timeout(HANDSHAKE, connecting).await;
    let connection = connection.map_err(|_| closed(&"no answer"))?.map_err(|error| closed(&error))?;
    Ok((endpoint, connection))
}

/// How long a handshake may take.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(10);
