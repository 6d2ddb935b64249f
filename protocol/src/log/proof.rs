//! What a log shows to those who were not there: proofs of a leaf (<https://c2sp.org/tlog-proof>) and what it asks of a witness
//! (`add-checkpoint`, <https://c2sp.org/tlog-witness>).
//!
//! *In*: an index or an old size, hashes, a checkpoint's note. *Out*: their text; or the parts of such a text, unverified. *Refuses*: other forms.

use super::checkpoint::{decimal, hash, lines};
use super::note::MAX_NOTE_BYTES;
use super::tree::MAX_PROOF;
use crate::digest::Digest;

const HEAD: &str = "c2sp.org/tlog-proof@v1";
/// Most bytes of what is read here.
pub const MAX_BYTES: usize = MAX_NOTE_BYTES + 64 * MAX_PROOF;
/// The header of a witness' answer 409 over HTTP in which it shows, in Base64, the checkpoint that it cosigned last. C2SP has the body say its size alone, which
/// a log would have to believe; another witness' answer lacks the header.
pub const LAST_CHECKPOINT: &str = "vestibule-checkpoint";

/// That a leaf is in the tree of a checkpoint. Nothing of it is verified: see [`super::policy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafProof {
    /// Which leaf.
    pub index: u64,
    /// Its siblings, upwards.
    pub hashes: Vec<Digest>,
    /// The signed and cosigned checkpoint.
    pub checkpoint: String,
}

impl LeafProof {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{HEAD}\nindex {}\n{}\n{}", self.index, lines(&self.hashes), self.checkpoint)
    }

    /// From its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(HEAD)?.strip_prefix("\nindex ")?;
        let (index, hashes, checkpoint) = parts(rest)?;
        Some(Self { index, hashes, checkpoint })
    }
}

/// A log asks a witness to cosign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness is thought to have seen.
    pub old: u64,
    /// That the new tree begins with the old.
    pub hashes: Vec<Digest>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

impl AddCheckpoint {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("old {}\n{}\n{}", self.old, lines(&self.hashes), self.checkpoint)
    }

    /// From its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (old, hashes, checkpoint) = parts(text.strip_prefix("old ")?)?;
        Some(Self { old, hashes, checkpoint })
    }
}

/// A number, hashes line by line, an empty line, a note.
fn parts(text: &str) -> Option<(u64, Vec<Digest>, String)> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (head, note) = text.split_once("\n\n")?;
    let mut head = head.split('\n');
    let number = decimal(head.next()?)?;
    let hashes = head.map(hash).collect::<Option<Vec<_>>>()?;
    (hashes.len() <= MAX_PROOF).then(|| (number, hashes, note.to_owned()))
}
