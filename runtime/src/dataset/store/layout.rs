//! Where each chunk of a file of rows lies: its directory.
//!
//! *In*: the directory's bytes, which the key opened. *Out*: a [`Chunk`] for each row group and column. *Refuses*: a directory that does not say where every byte
//! between header and directory belongs.
//!
//! Columns are places, the dictionary's in its order, and then each catalogue's blocks.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::GROUP_ROWS;
use super::cells::Cell;
use super::sealed::{HEADER, TAG};

/// The column of places in the keyed order.
pub(super) const PLACES: usize = 0;
/// The dictionary's first.
const CELLS: usize = 1;

/// What a file of rows holds, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// The dictionary's columns.
    pub(super) cells: Vec<Cell>,
    /// How many blocks each catalogue has.
    pub(super) blocks: Vec<u32>,
    /// Equal parts of the keyed order, one after the other; also those in which nobody is, so that how many there are says nothing of who is there.
    pub(super) groups: Vec<Group>,
}

/// A row group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) rows: u32,
    /// Of its chunks, as they are sealed, one after the other.
    pub(super) lengths: Vec<u32>,
}

/// A sealed chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) number: u64,
    pub(super) bytes: Range<u64>,
}

/// A layout that was checked.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    layout: Layout,
    /// Where each group begins.
    starts: Vec<u64>,
}

impl Layout {
    /// The column of a block.
    pub(super) fn block(&self, catalogue: usize, block: usize) -> Option<usize> {
        let own = *self.blocks.get(catalogue)? as usize;
        let before: usize = self.blocks.iter().take(catalogue).map(|blocks| *blocks as usize).sum();
        (block < own).then(|| CELLS.saturating_add(self.cells.len()).saturating_add(before).saturating_add(block))
    }

    /// The column of a column of the dictionary.
    pub(super) fn cell(&self, column: usize) -> Option<(usize, Cell)> {
        Some((CELLS.saturating_add(column), *self.cells.get(column)?))
    }

    /// What a column's values are, if it is one of the dictionary's.
    pub(super) fn cell_at(&self, column: usize) -> Option<Cell> {
        self.cells.get(column.checked_sub(CELLS)?).copied()
    }

    /// How many columns there are.
    pub(super) fn columns(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|blocks| *blocks as usize).sum();
        CELLS.saturating_add(self.cells.len()).saturating_add(blocks)
    }
}

impl Directory {
    /// `end`: where the directory itself begins.
    pub(super) fn new(layout: Layout, end: u64) -> Result<Self, String> {
        let columns = layout.columns();
        let whole = |group: &Group| {
            group.lengths.len() == columns
                && group.rows as usize <= GROUP_ROWS
                && group.lengths.iter().all(|length| *length as usize >= TAG)
        };
        if layout.groups.is_empty() || !layout.groups.iter().all(whole) {
            return Err("the directory contradicts itself".to_owned());
        }
        let mut at = HEADER as u64;
        let mut starts = Vec::with_capacity(layout.groups.len());
        for group in &layout.groups {
            starts.push(at);
            at = group.lengths.iter().fold(at, |at, length| at.saturating_add(u64::from(*length)));
        }
        if at != end {
            return Err("the directory speaks of a file of another length".to_owned());
        }
        Ok(Self { layout, starts })
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn group(&self, group: usize) -> Option<&Group> {
        self.layout.groups.get(group)
    }

    pub(super) fn chunk(&self, group: usize, column: usize) -> Option<Chunk> {
        let (start, lengths) = (*self.starts.get(group)?, &self.layout.groups.get(group)?.lengths);
        let length = *lengths.get(column)?;
        let start = lengths.iter().take(column).fold(start, |at, length| at.saturating_add(u64::from(*length)));
        let number = number(group, self.layout.columns(), column);
        Some(Chunk { number, bytes: start..start.saturating_add(u64::from(length)) })
    }
}

/// Which chunk of a file it is.
pub(super) const fn number(group: usize, columns: usize, column: usize) -> u64 {
    (group as u64).saturating_mul(columns as u64).saturating_add(column as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let group = |rows| Group { rows, lengths: vec![24, 30, 1_040, 1_040, 17] };
        Layout { cells: vec![Cell::Flag], blocks: vec![2, 1], groups: vec![group(1), group(3)] }
    }

    const END: u64 = HEADER as u64 + 2 * 2_151;

    #[test]
    fn chunks_lie_one_after_the_other_and_each_has_its_number() {
        let directory = Directory::new(layout(), END).unwrap();
        let (mut at, mut number) = (HEADER as u64, 0);
        for group in 0..2 {
            for column in 0..5 {
                let chunk = directory.chunk(group, column).unwrap();
                assert_eq!((chunk.bytes.start, chunk.number), (at, number));
                (at, number) = (chunk.bytes.end, number + 1);
            }
        }
        assert_eq!(at, END);
        assert!(directory.chunk(2, 0).is_none() && directory.chunk(0, 5).is_none());
        let layout = directory.layout();
        assert_eq!([layout.block(0, 0), layout.block(0, 1), layout.block(1, 0)], [Some(2), Some(3), Some(4)]);
        assert_eq!([layout.block(0, 2), layout.block(1, 1), layout.block(2, 0)], [None; 3]);
        assert_eq!([layout.cell(0), layout.cell(1)], [Some((1, Cell::Flag)), None]);
    }

    #[test]
    fn a_directory_that_contradicts_itself_or_the_file_is_refused() {
        let wrong = |change: &dyn Fn(&mut Layout)| {
            let mut layout = layout();
            change(&mut layout);
            Directory::new(layout, END).is_err()
        };
        assert!(!wrong(&|_| {}));
        assert!(Directory::new(layout(), END + 1).is_err() && Directory::new(layout(), END - 1).is_err());
        assert!(!wrong(&|layout| layout.groups[0].rows = 0) && !wrong(&|layout| layout.groups[0].rows = 1_024));
        assert!(wrong(&|layout| layout.groups[0].rows = 1_025) && wrong(&|layout| layout.groups.clear()));
        assert!(wrong(&|layout| layout.groups[0].lengths[4] = 15) && wrong(&|layout| layout.groups[0].lengths[4] = u32::MAX));
        assert!(wrong(&|layout| layout.blocks[0] = 3) && wrong(&|layout| layout.cells.clear()));
    }
}
