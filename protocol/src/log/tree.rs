//! The Merkle tree of a log (RFC 6962, section 2.1): hashes, roots, proofs of inclusion and of consistency.
//!
//! *In*: the hashes of complete subtrees, kept by the one who has the log. *Out*: roots and proofs; whether a proof that a stranger sent
//! holds. *Trusts*: SHA-256. *Refuses*: proofs that are too long, too short, or for sizes that cannot be. Proofs are verified as
//! RFC 9162 (2.1.3.2, 2.1.4.2) says, and tested against another implementation.

use aws_lc_rs::digest::{Context, SHA256};

use crate::digest::Digest;

/// Most hashes that a proof can have: as many as a size has bits, and one.
pub const MAX_PROOF: usize = 65;

/// The hash of a leaf with this body.
#[must_use]
pub fn leaf_hash(body: &[u8]) -> Digest {
    hash(&[&[0], body])
}

/// The hash of a node with these children.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    hash(&[&[1], left.as_bytes(), right.as_bytes()])
}

fn hash(pieces: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    pieces.iter().for_each(|piece| context.update(piece));
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Digest::from_bytes(out)
}

/// The hashes of complete subtrees: `number`-th of those of 2^`level` leaves.
pub trait Nodes {
    /// Why a hash cannot be had.
    type Error;

    /// The hash of a complete subtree.
    ///
    /// # Errors
    /// It is not there.
    fn node(&self, level: u32, number: u64) -> Result<Digest, Self::Error>;
}

/// The complete subtrees that appending leaf `index` completes, the leaf itself first: their hashes, from the ones before.
///
/// # Errors
/// An earlier subtree is not there.
pub fn completed<N: Nodes>(index: u64, leaf: Digest, nodes: &N) -> Result<Vec<(u32, u64, Digest)>, N::Error> {
    let mut found = vec![(0, index, leaf)];
    let (mut level, mut number, mut hash) = (0, index, leaf);
    while number % 2 == 1 {
        hash = node_hash(&nodes.node(level, number - 1)?, &hash);
        (level, number) = (level + 1, number / 2);
        found.push((level, number, hash));
    }
    Ok(found)
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// A subtree is not there.
pub fn root<N: Nodes>(size: u64, nodes: &N) -> Result<Digest, N::Error> {
    if size == 0 { Ok(Digest::of(b"")) } else { range(0, size, nodes) }
}

/// The hash over leaves `from..from + size`; `from` is a multiple of the largest power of two that is not above `size`.
fn range<N: Nodes>(from: u64, size: u64, nodes: &N) -> Result<Digest, N::Error> {
    if size.is_power_of_two() {
        return nodes.node(size.trailing_zeros(), from / size);
    }
    let left = split(size);
    Ok(node_hash(&range(from, left, nodes)?, &range(from + left, size - left, nodes)?))
}

/// The largest power of two that is below `size`, which is at least 2.
const fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// The proof that leaf `index` is in the tree of `size` leaves: siblings from the leaf upwards. `index` is below `size`.
///
/// # Errors
/// A subtree is not there.
pub fn inclusion<N: Nodes>(index: u64, size: u64, nodes: &N) -> Result<Vec<Digest>, N::Error> {
    let (mut from, mut rest, mut proof) = (0, size, Vec::new());
    while rest > 1 {
        let left = split(rest);
        if index < from + left {
            proof.push(range(from + left, rest - left, nodes)?);
            rest = left;
        } else {
            proof.push(range(from, left, nodes)?);
            (from, rest) = (from + left, rest - left);
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `old` leaves is the beginning of the tree of `size`. Empty where `old` is 0 or `size`.
///
/// # Errors
/// A subtree is not there.
pub fn consistency<N: Nodes>(old: u64, size: u64, nodes: &N) -> Result<Vec<Digest>, N::Error> {
    let mut proof = Vec::new();
    if old == 0 || old >= size {
        return Ok(proof);
    }
    let (mut from, mut rest, mut whole) = (0, size, true);
    while old - from != rest {
        let left = split(rest);
        if old - from <= left {
            proof.push(range(from + left, rest - left, nodes)?);
            rest = left;
        } else {
            proof.push(range(from, left, nodes)?);
            (from, rest, whole) = (from + left, rest - left, false);
        }
    }
    if !whole {
        proof.push(range(from, rest, nodes)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` shows that a leaf of hash `leaf` is number `index` of the tree of `size` leaves and that `root` (RFC 9162, 2.1.3.2).
#[must_use]
pub fn is_included(leaf: &Digest, index: u64, size: u64, proof: &[Digest], root: &Digest) -> bool {
    if index >= size || proof.len() > MAX_PROOF {
        return false;
    }
    let (mut number, mut last, mut found) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if number % 2 == 1 || number == last {
            found = node_hash(sibling, &found);
            while number.is_multiple_of(2) && number != 0 {
                (number, last) = (number / 2, last / 2);
            }
        } else {
            found = node_hash(&found, sibling);
        }
        (number, last) = (number / 2, last / 2);
    }
    last == 0 && found == *root
}

/// Whether `proof` shows that the tree of `old` leaves and `old_root` is the beginning of the tree of `size` leaves and `root`
/// (RFC 9162, 2.1.4.2). Every tree begins with the empty one.
#[must_use]
pub fn is_consistent((old, old_root): (u64, &Digest), (size, root): (u64, &Digest), proof: &[Digest]) -> bool {
    if old > size || proof.len() > MAX_PROOF {
        return false;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == Digest::of(b"");
    }
    if old == size {
        return proof.is_empty() && old_root == root;
    }
    // The proof leaves out the old root itself where that is a complete subtree.
    let mut rest = proof.iter();
    let Some(first) = (if old.is_power_of_two() { Some(old_root) } else { rest.next() }) else { return false };
    let shift = (old - 1).trailing_ones();
    let (mut number, mut last) = ((old - 1) >> shift, (size - 1) >> shift);
    let (mut old_found, mut found) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if number % 2 == 1 || number == last {
            (old_found, found) = (node_hash(hash, &old_found), node_hash(hash, &found));
            while number.is_multiple_of(2) && number != 0 {
                (number, last) = (number / 2, last / 2);
            }
        } else {
            found = node_hash(&found, hash);
        }
        (number, last) = (number / 2, last / 2);
    }
    last == 0 && old_found == *old_root && found == *root
}

/// The roots of a growing tree, from its leaves alone: what a verifier recomputes.
#[derive(Debug, Clone, Default)]
pub struct Growing {
    /// The complete subtrees of the tree so far, largest first: one for each bit of `size`.
    peaks: Vec<Digest>,
    size: u64,
}

impl Growing {
    /// Appends a leaf.
    pub fn push(&mut self, leaf: Digest) {
        let merged = (0..self.size.trailing_ones()).fold(leaf, |hash, _| match self.peaks.pop() {
            Some(left) => node_hash(&left, &hash),
            None => hash,
        });
        self.peaks.push(merged);
        self.size += 1;
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(first) = peaks.next() else { return Digest::of(b"") };
        peaks.fold(*first, |right, left| node_hash(left, &right))
    }
}
