//! The selected part of some individuals' rows, as it was read; and the memory that it is read into.
//!
//! A row group has up to [`GROUP_ROWS`] rows, and room for so many from before the first is read. So what is allocated
//! follows from the selection alone, and a thread reads one group after the other into the same memory.

use std::ops::Range;

use super::super::Value;
use super::super::pack::{BLOCK_BYTES, unpack};
use super::GROUP_ROWS;
use super::cells::Cell;
use super::sealed::TAG;
use super::selection::Selection;
use crate::reserve::{NoRoom, room};

/// The selected part of some individuals' rows.
pub struct RowGroup {
    pub(super) rows: usize,
    pub(super) places: Vec<u64>,
    /// For each column, everybody's value.
    pub(super) columns: Vec<Vec<Value>>,
    /// Everybody's bytes of each block, as it is in the file.
    pub(super) blocks: Vec<Vec<u8>>,
    /// Of which block a stretch is meant.
    pub(super) stretches: Vec<(usize, Range<usize>)>,
    pub(super) shown: bool,
    /// Where it is read from.
    pub(super) wanted: Wanted,
    /// A column as it is in the file.
    pub(super) bytes: Vec<u8>,
    /// Whose rows stay.
    pub(super) stays: Vec<bool>,
}

/// The columns of a file that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) places: bool,
    /// One for each column of the selection.
    pub(super) cells: Vec<(usize, Cell)>,
    /// Each once, though two stretches may lie in one block.
    pub(super) blocks: Vec<usize>,
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

    /// A row's bytes, from the one in which the stretch begins.
    pub(crate) fn row(&self, at: usize) -> &'a [u8] {
        let start = at.saturating_mul(self.stride());
        let row = self.bytes.get(start..start.saturating_add(self.stride())).unwrap_or_default();
        row.get(self.start / 4..).unwrap_or_default()
    }

    /// Some of the rows.
    pub(crate) fn of_rows(self, rows: &Range<usize>) -> Self {
        let bytes = rows.start.saturating_mul(self.stride())..rows.end.saturating_mul(self.stride());
        Self { bytes: self.bytes.get(bytes).unwrap_or_default(), ..self }
    }
}

impl RowGroup {
    /// Room for the longest row group of which so much is read.
    pub(super) fn room(selection: &Selection, wanted: Wanted) -> Result<Self, NoRoom> {
        let columns = wanted.cells.iter().map(|_| room(GROUP_ROWS, Value::Missing)).collect::<Result<_, _>>()?;
        let blocks = wanted.blocks.iter().map(|_| room(Self::BLOCK, 0)).collect::<Result<_, _>>()?;
        let places = room(if wanted.places { GROUP_ROWS } else { 0 }, 0)?;
        let read = wanted.places || !wanted.cells.is_empty();
        let (bytes, stays) = (room(if read { Self::COLUMN } else { 0 }, 0)?, room(GROUP_ROWS, false)?);
        let (rows, stretches, shown) = (0, vec![], selection.shown);
        Ok(Self { rows, places, columns, blocks, stretches, shown, wanted, bytes, stays })
    }

    /// Bytes of a block of everybody's genotypes, and of the longest column of the dictionary, as they are in a file.
    const BLOCK: usize = GROUP_ROWS * BLOCK_BYTES + TAG;
    const COLUMN: usize = GROUP_ROWS.div_ceil(8) + GROUP_ROWS * 8 + TAG;

    /// Bytes of [`Self::room`].
    pub(crate) fn bytes(selection: &Selection) -> usize {
        let columns = selection.values().saturating_mul(GROUP_ROWS).saturating_mul(size_of::<Value>());
        let blocks = selection.blocks().saturating_mul(Self::BLOCK);
        let rows = GROUP_ROWS.saturating_mul(size_of::<u64>().saturating_add(1)).saturating_add(Self::COLUMN);
        columns.saturating_add(blocks).saturating_add(rows)
    }

    /// How many individuals.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Rows of nothing but genotypes, for trials.
    ///
    /// # Errors
    /// The machine has no room.
    pub(crate) fn of_genotypes(
        rows: usize,
        stretches: &[(usize, usize)],
        mut byte: impl FnMut() -> u8,
    ) -> Result<Self, NoRoom> {
        let wanted = Wanted { places: false, cells: vec![], blocks: vec![] };
        let mut group = Self::room(&Selection::of_places(), wanted)?;
        group.rows = rows;
        for (block, &(start, end)) in stretches.iter().enumerate() {
            group.blocks.push((0..rows * BLOCK_BYTES).map(|_| byte()).collect());
            group.stretches.push((block, start..end));
        }
        Ok(group)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Where a row lies in the keyed order, as a part of 2^64; 0 where that was not asked for.
    pub(crate) fn place(&self, index: usize) -> u64 {
        self.places.get(index).copied().unwrap_or(0)
    }

    /// The genotypes that were read, stretch by stretch.
    pub(crate) fn packed(&self) -> impl Iterator<Item = Packed<'_>> {
        let bytes = |block: usize| self.blocks.get(block).map(Vec::as_slice).unwrap_or_default();
        self.stretches.iter().map(move |(block, of)| Packed { bytes: bytes(*block), start: of.start, end: of.end })
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
        for packed in self.packed() {
            if let Some(block) = packed.bytes.get(first..first.saturating_add(BLOCK_BYTES)) {
                unpack(block, packed.start, packed.end, dosages);
            }
        }
    }
}

impl std::fmt::Debug for RowGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowGroup(withheld)")
    }
}
