//! The selected part of some individuals' rows, as it was read.

use std::sync::Arc;

use super::super::Value;
use super::super::pack::{BLOCK_BYTES, unpack};

/// The selected part of some individuals' rows.
pub struct RowGroup {
    pub(super) rows: usize,
    pub(super) places: Option<Vec<u64>>,
    /// For each column, everybody's value.
    pub(super) columns: Vec<Vec<Value>>,
    /// Everybody's bytes of a block, and the stretch of it that is meant.
    pub(super) stretches: Vec<(Arc<Vec<u8>>, usize, usize)>,
    pub(super) shown: bool,
}

/// Everybody's genotypes at a stretch of a block, as they are stored: two bits each, see `pack`.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    bytes: &'a [u8],
    start: usize,
    end: usize,
}

impl<'a> Packed<'a> {
    /// The rows, one after the other.
    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of a row.
    #[expect(clippy::unused_self, reason = "the same for all, today")]
    pub(crate) const fn stride(&self) -> usize {
        BLOCK_BYTES
    }

    /// Where in a row the stretch begins.
    pub(crate) const fn start(&self) -> usize {
        self.start
    }

    /// Variants of the stretch.
    pub(crate) const fn variants(&self) -> usize {
        self.end.saturating_sub(self.start)
    }
}

impl RowGroup {
    /// How many individuals.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Rows of nothing but genotypes.
    #[cfg(test)]
    pub(crate) fn of_genotypes(rows: usize, stretches: &[(usize, usize)], mut byte: impl FnMut() -> u8) -> Self {
        let mut block = || -> Vec<u8> { (0..rows * BLOCK_BYTES).map(|_| byte()).collect() };
        let stretches = stretches.iter().map(|&(start, end)| (Arc::new(block()), start, end)).collect();
        Self { rows, places: None, columns: vec![], stretches, shown: false }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Where a row lies in the keyed order, as a part of 2^64; 0 where that was not asked for.
    pub(crate) fn place(&self, index: usize) -> u64 {
        self.places.as_ref().and_then(|places| places.get(index)).copied().unwrap_or(0)
    }

    /// The genotypes that were read, stretch by stretch.
    pub(crate) fn packed(&self) -> impl Iterator<Item = Packed<'_>> {
        self.stretches.iter().map(|(blocks, start, end)| Packed { bytes: blocks, start: *start, end: *end })
    }

    /// Writes one individual's values, and its dosages (0, 1, 2 or 255 where missing) where they are shown, over the buffers.
    pub fn fill(&self, index: usize, values: &mut Vec<Value>, dosages: &mut Vec<u8>) {
        values.clear();
        values.extend(self.columns.iter().map(|column| column.get(index).copied().unwrap_or(Value::Missing)));
        dosages.clear();
        if !self.shown {
            return;
        }
        let first = index.saturating_mul(BLOCK_BYTES);
        for (blocks, start, end) in &self.stretches {
            if let Some(block) = blocks.get(first..first.saturating_add(BLOCK_BYTES)) {
                unpack(block, *start, *end, dosages);
            }
        }
    }
}

impl std::fmt::Debug for RowGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowGroup(withheld)")
    }
}
