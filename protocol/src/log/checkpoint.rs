//! Checkpoints (<https://c2sp.org/tlog-checkpoint>): a log's promise of how long it is and what is in it.
//!
//! *In*: a log's origin, size and root; or a note's text. *Out*: the text that is signed, or a [`Checkpoint`]. *Refuses*: sizes with leading
//! zeros, roots that are no SHA-256, extension lines (nobody here writes any).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;

/// What a log was at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// From a note's text. `None` where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let good = lines.next().is_none() && !origin.is_empty();
        let (size, root) = (decimal(size)?, hash(root)?);
        good.then(|| Self { origin: origin.to_owned(), size, root })
    }
}

/// A number without leading zeros.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let good = text == "0" || (!text.starts_with('0') && !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()));
    good.then(|| text.parse().ok())?
}

/// A hash in base64.
pub(super) fn hash(text: &str) -> Option<Digest> {
    STANDARD.decode(text).ok()?.try_into().ok().map(Digest::from_bytes)
}

/// Hashes in base64, a line each.
pub(super) fn lines(hashes: &[Digest]) -> String {
    hashes.iter().map(|hash| STANDARD.encode(hash.as_bytes()) + "\n").collect()
}
