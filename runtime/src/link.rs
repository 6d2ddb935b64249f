//! The link to the coordinator, from the site's side: the site dials out, the coordinator opens streams back.
//!
//! *In*: whom to dial, and a `Site` that answers. *Out*: answers. The site dials again by itself, for ever, with growing and
//! randomly spread pauses. *Trusts*: the pinned key of the coordinator, to be who it is; nothing that it says.

mod deciding;
mod direct;
mod join;
mod pause;
mod public;
mod serve;
mod witnessing;

pub use join::{JoinError, Whose, join};
pub(crate) use serve::serve;
