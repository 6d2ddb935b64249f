//! What a round reads: columns of the dictionary, and stretches of blocks of catalogues.

use serde::{Deserialize, Serialize};
use vestibule_protocol::catalogue::VariantSlice;
use vestibule_protocol::round::Round;
use vestibule_protocol::shape::{self, ShapeError};

use super::super::DatasetInfo;
use super::super::pack::BLOCK_VARIANTS;

/// What a round reads: resolved against one dataset's description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Selection {
    pub(super) columns: Vec<usize>,
    pub(super) stretches: Vec<Stretch>,
    pub(super) places: bool,
    /// Whether guests are shown the dosages.
    pub(super) shown: bool,
}

/// A stretch of a block of a catalogue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stretch {
    pub(super) catalogue: usize,
    pub(super) block: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Selection {
    pub(in super::super) fn new(info: &DatasetInfo, columns: &[String], slices: &[VariantSlice]) -> Result<Self, ShapeError> {
        let columns = shape::columns(&info.dictionary, columns)?;
        let mut stretches = Vec::new();
        for (catalogue, range) in shape::slices(&info.catalogues, slices)? {
            let mut at = range.start;
            while at < range.end {
                let block = at / BLOCK_VARIANTS;
                let first = block.saturating_mul(BLOCK_VARIANTS);
                let end = range.end.min(first.saturating_add(BLOCK_VARIANTS));
                stretches.push(Stretch { catalogue, block, start: at.saturating_sub(first), end: end.saturating_sub(first) });
                at = end;
            }
        }
        Ok(Self { columns, stretches, places: false, shown: true })
    }

    /// So many columns, and of each catalogue so many whole blocks.
    #[cfg(test)]
    pub(in super::super) fn of_everything(columns: usize, catalogues: &[(usize, usize)]) -> Self {
        let of = |&(catalogue, blocks): &(usize, usize)| {
            (0..blocks).map(move |block| Stretch { catalogue, block, start: 0, end: BLOCK_VARIANTS })
        };
        let stretches = catalogues.iter().flat_map(of).collect();
        Self { columns: (0..columns).collect(), stretches, places: true, shown: true }
    }

    /// Of the first stretch so many variants, and no other.
    #[cfg(test)]
    pub(crate) fn first(mut self, variants: usize) -> Self {
        self.stretches.truncate(1);
        self.stretches.iter_mut().for_each(|stretch| stretch.end = variants);
        self
    }

    /// Where each row lies in the keyed order, and nothing else.
    pub(super) const fn of_places() -> Self {
        Self { columns: vec![], stretches: vec![], places: true, shown: false }
    }

    /// Also reads where each row lies in the keyed order.
    #[must_use]
    pub const fn with_places(mut self) -> Self {
        self.places = true;
        self
    }

    /// Blocks of catalogues that are read.
    #[must_use]
    pub fn blocks(&self) -> usize {
        let blocks = self.stretches.iter().map(|stretch| (stretch.catalogue, stretch.block));
        blocks.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// What one round needs of it.
    #[must_use]
    pub fn of(&self, round: &Round) -> Self {
        let read = round.shows_dosages() || round.sums_genotypes();
        let stretches = if read { self.stretches.clone() } else { vec![] };
        Self { columns: self.columns.clone(), stretches, places: self.places, shown: round.shows_dosages() }
    }

    /// Values of a row.
    #[must_use]
    pub const fn values(&self) -> usize {
        self.columns.len()
    }

    /// Dosages of a row that guests are shown.
    #[must_use]
    pub fn dosages(&self) -> usize {
        if self.shown { self.variants() } else { 0 }
    }

    /// Variants of a row that are read.
    #[must_use]
    pub fn variants(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.end.saturating_sub(stretch.start)).sum()
    }
}
