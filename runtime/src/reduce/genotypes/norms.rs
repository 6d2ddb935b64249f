//! How large a row's factors may be, where its own genotypes decide that: the norm of all its products is bounded.
//!
//! *In*: rows' genotypes and factors. *Out*: factors under which the norm of each row's products, which is that of its
//! factors times that of its scores, is at most the radius, checked in integers. A row's norm is looked up for two
//! variants at a time: what half a byte is decides only which entry of a small table is read.

use std::ops::Range;

use vestibule_protocol::scores::{CLASSES, GenotypeSums};

use super::super::clamp::shrink;
use super::{Classes, ONE, small};
use crate::dataset::{BLOCK_BYTES, RowGroup};
use crate::reserve::{NoRoom, laid};

/// Bytes of a row that are looked up together, and rows: so that a line of the processor's cache is used up once it is
/// there, and the tables of its bytes stay near for all these rows.
const LINE: usize = 64;
const ROWS_IN_SIGHT: usize = 16;

pub(super) struct Norms {
    /// The square of the radius.
    limit: u128,
    /// For each variant, the squares of its scores, over all sets.
    squares: Vec<Classes<u64>>,
    /// For each byte of a stretch.
    tables: Vec<[[u64; 16]; 2]>,
    /// Of each row.
    norms: Vec<u64>,
    /// One row's factors.
    row: Vec<i64>,
}

/// Bytes of a row that a stretch can touch.
fn widest(variants: usize) -> usize {
    variants.div_ceil(4).saturating_add(1).min(BLOCK_BYTES)
}

impl Norms {
    /// `None` where no genotypes at all could pass the bound: then no row's need be looked at.
    pub(super) fn new(scores: &GenotypeSums, variants: usize, radius: u64, at_once: usize) -> Result<Option<Self>, NoRoom> {
        let mut squares = laid(variants, [0; CLASSES])?;
        for set in scores.scores.classes().chunks(variants) {
            for (squares, scores) in squares.iter_mut().zip(set) {
                squares.iter_mut().zip(scores).for_each(|(square, score)| *square += u64::from(score.unsigned_abs()).pow(2));
            }
        }
        let (limit, factors) = (u128::from(radius).pow(2), scores.factors as usize);
        let most = |squares: &Classes<u64>| squares.iter().copied().max().map_or(0, u128::from);
        let ones = u128::from(ONE.unsigned_abs()).pow(2).saturating_mul(factors as u128);
        if squares.iter().map(most).sum::<u128>().saturating_mul(ones) <= limit {
            return Ok(None);
        }
        let tables = laid(widest(variants), [[0; 16]; 2])?;
        Ok(Some(Self { limit, squares, tables, norms: laid(at_once, 0)?, row: laid(factors, 0)? }))
    }

    /// Bytes of it.
    pub(super) fn bytes(factors: usize, variants: usize, at_once: usize) -> usize {
        let squares = variants.saturating_mul(size_of::<Classes<u64>>());
        let tables = widest(variants).saturating_mul(size_of::<[[u64; 16]; 2]>());
        let rows = at_once.saturating_add(factors).saturating_mul(size_of::<u64>());
        squares.saturating_add(tables).saturating_add(rows)
    }

    /// Makes the factors of some rows of a group smaller until each row's products obey the bound.
    pub(super) fn enforce(&mut self, rows: &RowGroup, own: &Range<usize>, factors: usize, pending: &mut [i32]) {
        self.look(rows, own);
        for (factors, norm) in pending.chunks_exact_mut(factors.max(1)).zip(&self.norms) {
            let squared = |row: &[i64]| {
                let sum: u128 = row.iter().map(|factor| u128::from(factor.unsigned_abs()).pow(2)).sum();
                sum.saturating_mul((*norm).into())
            };
            self.row.iter_mut().zip(&*factors).for_each(|(row, factor)| *row = (*factor).into());
            shrink(&mut self.row, self.limit, squared, |limit, norm| (limit / norm).sqrt());
            factors.iter_mut().zip(&self.row).for_each(|(factor, row)| *factor = small(*row));
        }
    }

    /// For each row, the sum of the squares of its genotypes' scores.
    fn look(&mut self, rows: &RowGroup, own: &Range<usize>) {
        self.norms.fill(0);
        let mut first = 0_usize;
        for packed in rows.packed() {
            let packed = packed.of_rows(own);
            let squares = self.squares.get(first..first.saturating_add(packed.variants())).unwrap_or_default();
            first = first.saturating_add(packed.variants());
            // Whole bytes: what lies before and after the stretch scores nothing.
            let before = packed.start() % 4;
            let bytes = before.saturating_add(packed.variants()).div_ceil(4);
            let square = |at: usize| at.checked_sub(before).and_then(|at| squares.get(at)).copied().unwrap_or_default();
            for (byte, table) in self.tables.iter_mut().take(bytes).enumerate() {
                let at = byte.saturating_mul(4);
                *table = halves(&std::array::from_fn(|place| square(at.saturating_add(place))));
            }
            let tables = self.tables.get(..bytes).unwrap_or_default();
            let near = packed.bytes().chunks(packed.stride().saturating_mul(ROWS_IN_SIGHT));
            for (norms, rows) in self.norms.chunks_mut(ROWS_IN_SIGHT).zip(near) {
                for (line, tables) in tables.chunks(LINE).enumerate() {
                    let start = (packed.start() / 4).saturating_add(line.saturating_mul(LINE));
                    for (norm, row) in norms.iter_mut().zip(rows.chunks(packed.stride())) {
                        let bytes = row.get(start..).unwrap_or_default();
                        // At most 2^30 for each score, of which there are fewer than 2^23: nothing wraps.
                        let add = |sum: u64, (&byte, table)| sum.wrapping_add(look_up(table, byte));
                        *norm = norm.wrapping_add(bytes.iter().zip(tables).fold(0, add));
                    }
                }
            }
        }
    }
}

/// What half a byte, two variants, adds to a norm: for the lower half, and for the upper.
fn halves(squares: &[Classes<u64>; 4]) -> [[u64; 16]; 2] {
    let [a, b, c, d] = squares;
    let half = |low: &Classes<u64>, high: &Classes<u64>| {
        let mut table = [0; 16];
        for (sums, high) in table.as_chunks_mut::<CLASSES>().0.iter_mut().zip(high) {
            sums.iter_mut().zip(low).for_each(|(sum, low)| *sum = low + high);
        }
        table
    };
    [half(a, b), half(c, d)]
}

#[expect(clippy::indexing_slicing, reason = "half a byte is an index of 16")]
fn look_up([low, high]: &[[u64; 16]; 2], byte: u8) -> u64 {
    low[usize::from(byte & 15)].wrapping_add(high[usize::from(byte >> 4)])
}
