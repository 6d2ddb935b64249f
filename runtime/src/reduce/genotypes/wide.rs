//! Sums of factors by genotype at many variants: how many rows have each genotype, times the usual factor; and what
//! other rows' factors differ from it by, for four individuals at a time: their genotypes at one variant are a byte, and
//! what each of the 256 bytes adds to the four sums is reckoned once for all variants.
//!
//! *In*: packed genotypes, columns of factors, the largest that a factor can be. *Out*: added to the sums. What a byte is
//! decides only which entry of a small table is read. What is done depends on the factors by one number, how many are not
//! the usual one, which one row changes by one at most.

use vestibule_protocol::scores::CLASSES;

use super::super::counts::Counting;
use super::super::{SumOverflow, accumulate};
use super::Classes;
use crate::dataset::{BLOCK_VARIANTS, Packed};
use crate::reserve::{NoRoom, laid};

pub(super) struct Wide {
    counting: Counting,
    /// Rows whose factor is another, and by how much.
    others: Vec<(usize, i32)>,
    partial: Vec<Classes<i32>>,
    fours: Vec<u32>,
}

/// Whole bytes of a row, as variants, that a stretch can touch.
fn widest(variants: usize) -> usize {
    variants.saturating_add(6).min(BLOCK_VARIANTS).next_multiple_of(4)
}

impl Wide {
    pub(super) fn new(variants: usize, at_once: usize) -> Result<Self, NoRoom> {
        let widest = widest(variants);
        Ok(Self {
            counting: Counting::new(widest)?,
            others: laid(at_once, (0, 0))?,
            partial: laid(widest, [0; CLASSES])?,
            fours: laid(widest / 4, 0)?,
        })
    }

    /// Bytes of it.
    pub(super) fn bytes(variants: usize, at_once: usize) -> usize {
        let each = size_of::<Classes<i32>>().saturating_add(1);
        let others = at_once.saturating_mul(size_of::<(usize, i32)>());
        Counting::bytes(widest(variants)).saturating_add(widest(variants).saturating_mul(each)).saturating_add(others)
    }

    /// Adds columns of factors, each to its own sums, of these rows.
    pub(super) fn add<'a, 'b>(
        &mut self,
        packed: Packed<'_>,
        most: i32,
        columns: impl Iterator<Item = &'a [i32]>,
        sums: impl Iterator<Item = &'b mut [Classes<i64>]>,
    ) -> Result<(), SumOverflow> {
        let before = packed.start() % 4;
        let bytes = before.saturating_add(packed.variants()).div_ceil(4);
        let counts = self.counting.count(packed);
        let partial = self.partial.get_mut(..bytes.saturating_mul(4)).unwrap_or_default();
        let fours = self.fours.get_mut(..bytes).unwrap_or_default();
        for (column, sums) in columns.zip(sums) {
            let (usual, others) = apart(column, most, &mut self.others);
            // At most 1,024 rows of up to 2^18 steps, and as many differences of up to 2^19.
            for (partial, counts) in partial.iter_mut().skip(before).zip(counts) {
                *partial = counts.map(|count| count.cast_signed().wrapping_mul(usual));
            }
            for four in others.chunks(4) {
                let (mut rows, mut own) = ([&[][..]; 4], [0; 4]);
                for ((at, number), (place, to)) in four.iter().zip(rows.iter_mut().zip(&mut own)) {
                    (*place, *to) = (packed.row(*at), *number);
                }
                turn(rows, fours);
                let table = table(&own);
                for (sums, codes) in partial.as_chunks_mut::<4>().0.iter_mut().zip(&*fours) {
                    for (sums, code) in sums.iter_mut().zip(codes.to_le_bytes()) {
                        let (sums, add): (&mut Classes<i32>, &Classes<i32>) = (sums, at(&table, code));
                        sums.iter_mut().zip(add).for_each(|(sum, add)| *sum = sum.wrapping_add(*add));
                    }
                }
            }
            for (sums, partial) in sums.iter_mut().zip(partial.iter().skip(before)) {
                accumulate(sums, &partial.map(i64::from))?;
            }
        }
        Ok(())
    }
}

/// Which factor is the usual one, 0 or the largest: the one that more rows have. Which rows have another, and what it
/// differs by. Takes as long whatever the factors are.
fn apart<'a>(column: &[i32], most: i32, others: &'a mut [(usize, i32)]) -> (i32, &'a [(usize, i32)]) {
    let [zeros, largest] = column.iter().fold([0_u32; 2], |[zeros, largest], factor| {
        [zeros.wrapping_add((*factor == 0).into()), largest.wrapping_add((*factor == most).into())]
    });
    let usual = if largest > zeros { most } else { 0 };
    let mut count = 0_usize;
    for (at, factor) in column.iter().enumerate() {
        // Written over by the next one where it is the usual factor.
        if let Some(other) = others.get_mut(count) {
            *other = (at, factor.wrapping_sub(usual));
        }
        count = count.saturating_add((*factor != usual).into());
    }
    (usual, others.get(..count).unwrap_or_default())
}

#[expect(clippy::indexing_slicing, reason = "a byte is an index of 256")]
fn at(table: &[Classes<i32>; 256], code: u8) -> &Classes<i32> {
    &table[usize::from(code)]
}

/// Of four rows, of which the last may be missing: for each byte of a row, which is four variants, four bytes that each are four rows.
fn turn([a, b, c, d]: [&[u8]; 4], out: &mut [u32]) {
    if d.len() < out.len() {
        // The last rows of a group: as if there were more, whose factors are zero.
        let byte = |row: &[u8], at: usize| row.get(at).copied().unwrap_or_default();
        for (at, out) in out.iter_mut().enumerate() {
            *out = turned(u32::from_le_bytes([byte(a, at), byte(b, at), byte(c, at), byte(d, at)]));
        }
        return;
    }
    for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *out = turned(u32::from_le_bytes([*a, *b, *c, *d]));
    }
}

/// A square of four by four times two bits, mirrored at its diagonal.
const fn turned(square: u32) -> u32 {
    let swap = ((square >> 6) ^ square) & 0x00CC_00CC;
    let square = square ^ swap ^ (swap << 6);
    let swap = ((square >> 12) ^ square) & 0x0000_F0F0;
    square ^ swap ^ (swap << 12)
}

/// What each byte, the genotypes of four rows at one variant, adds to the sums.
fn table(factors: &[i32]) -> [Classes<i32>; 256] {
    let factor = |row: usize| factors.get(row).copied().unwrap_or(0);
    let (low, high) = (pairs(factor(0), factor(1)), pairs(factor(2), factor(3)));
    let mut table = [[0; CLASSES]; 256];
    for (entries, high) in table.as_chunks_mut::<16>().0.iter_mut().zip(&high) {
        for (entry, low) in entries.iter_mut().zip(&low) {
            entry.iter_mut().zip(low.iter().zip(high)).for_each(|(sum, (low, high))| *sum = low.wrapping_add(*high));
        }
    }
    table
}

/// The same for half a byte, which is two rows.
fn pairs(low: i32, high: i32) -> [Classes<i32>; 16] {
    let mut table = [[0; CLASSES]; 16];
    for (class, entries) in table.as_chunks_mut::<CLASSES>().0.iter_mut().enumerate() {
        for (lower, entry) in entries.iter_mut().enumerate() {
            entry.iter_mut().skip(lower).take(1).for_each(|sum| *sum = low);
            entry.iter_mut().skip(class).take(1).for_each(|sum| *sum = sum.wrapping_add(high));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_mirrored() {
        for (row, column) in (0..4).flat_map(|row| (0..4).map(move |column| (row, column))) {
            assert_eq!(turned(3 << (8 * row + 2 * column)), 3 << (8 * column + 2 * row));
        }
    }

    /// So the number of those that differ, all that time depends on, follows one row by one at most.
    #[test]
    fn one_row_more_or_another_factor_makes_one_difference_more_at_most() {
        let mut room = vec![(0, 0); 64];
        let mut state = 1_u64;
        for case in 0..500_u64 {
            let mut next = || {
                state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(case | 1);
                i32::try_from(state >> 40 & 3).unwrap()
            };
            let column: Vec<i32> = (0..40).map(|_| next() * 5).collect();
            let differ = |column: &[i32], room: &mut [(usize, i32)]| {
                let (usual, others) = apart(column, 10, room);
                let mut again = vec![usual; column.len()];
                others.iter().for_each(|(at, apart)| again[*at] += apart);
                assert_eq!(again, column);
                assert!(others.iter().all(|(_, apart)| *apart != 0));
                others.len()
            };
            let all = differ(&column, &mut room);
            for at in 0..column.len() {
                let mut without = column.clone();
                without.remove(at);
                assert!(all.abs_diff(differ(&without, &mut room)) <= 1);
            }
        }
        assert_eq!(apart(&[10, 10, 3, 0], 10, &mut room), (10, &[(2, -7), (3, -10)][..]));
        assert_eq!(apart(&[10, 0], 10, &mut room), (0, &[(0, 10)][..]));
    }
}
