//! How a site proves what it did, to those who were not there.
//!
//! Every step of every job is a [`leaf`] of the site's append-only Merkle [`tree`] (RFC 6962). The site signs [`checkpoint`]s of it as
//! [`note`]s; witnesses in other organisations cosign one only if it continues the last that they saw; a [`proof`] shows that a leaf is in a
//! cosigned checkpoint, and a [`policy`] says whose cosignatures are enough. [`replay`] recomputes the ledger from the leaves. The forms are C2SP's (<https://c2sp.org>), so that other tools
//! read them.

pub mod checkpoint;
pub mod leaf;
pub mod note;
pub mod policy;
pub mod proof;
pub mod replay;
pub mod tree;

#[cfg(test)]
mod tests;
