//! Sums of factors by genotype at few variants: every row's factor is added to what its genotype is, or to nothing.
//!
//! *In*: packed genotypes at up to [`MOST`] variants, and columns of factors. *Out*: added to the sums. What is done
//! follows from the numbers of rows, factors and variants, and from nothing that is in them.

use super::super::{SumOverflow, accumulate};
use super::{APART, Classes};
use crate::dataset::Packed;
use crate::reserve::{NoRoom, laid};

/// Of more variants, tables are quicker.
const MOST: usize = 32;

/// Whether so many variants are few.
pub(super) const fn fits(variants: usize) -> bool {
    variants <= MOST
}

/// For each variant, all bits or none for each row: whether its genotype is the second thing, the third, the fourth.
pub(super) struct Narrow {
    masks: Vec<i32>,
    stride: usize,
}

impl Narrow {
    pub(super) fn new(variants: usize, at_once: usize) -> Result<Self, NoRoom> {
        let stride = at_once.saturating_add(APART);
        Ok(Self { masks: laid(MOST.min(variants).saturating_mul(3).saturating_mul(stride), 0)?, stride })
    }

    /// Bytes of it.
    pub(super) fn bytes(variants: usize, at_once: usize) -> usize {
        let masks = MOST.min(variants).saturating_mul(3).saturating_mul(at_once.saturating_add(APART));
        masks.saturating_mul(size_of::<i32>())
    }

    /// Adds columns of factors, each to its own sums, of these rows.
    pub(super) fn add<'a, 'b>(
        &mut self,
        packed: Packed<'_>,
        columns: impl Iterator<Item = &'a [i32]>,
        sums: impl Iterator<Item = &'b mut [Classes<i64>]>,
    ) -> Result<(), SumOverflow> {
        self.look(packed);
        for (column, sums) in columns.zip(sums) {
            // At most 1,024 rows of up to 2^18 steps.
            let all: i32 = column.iter().sum();
            for (sums, masks) in sums.iter_mut().zip(self.masks.chunks_exact(self.stride.saturating_mul(3))) {
                let (one, rest) = masks.split_at(self.stride);
                let (two, three) = rest.split_at(self.stride);
                let [mut a, mut b, mut c] = [0_i32; 3];
                for (((factor, one), two), three) in column.iter().zip(one).zip(two).zip(three) {
                    a = a.wrapping_add(factor & one);
                    b = b.wrapping_add(factor & two);
                    c = c.wrapping_add(factor & three);
                }
                let rest = all.wrapping_sub(a).wrapping_sub(b).wrapping_sub(c);
                accumulate(sums, &[rest, a, b, c].map(i64::from))?;
            }
        }
        Ok(())
    }

    fn look(&mut self, packed: Packed<'_>) {
        for (variant, masks) in self.masks.chunks_exact_mut(self.stride.saturating_mul(3)).enumerate().take(packed.variants()) {
            let place = packed.start().saturating_add(variant);
            let (one, rest) = masks.split_at_mut(self.stride);
            let (two, three) = rest.split_at_mut(self.stride);
            let rows = packed.bytes().chunks(packed.stride());
            for (((row, one), two), three) in rows.zip(one).zip(two).zip(three) {
                let code = row.get(place / 4).copied().unwrap_or_default() >> (2 * (place % 4)) & 3;
                let mask = |class: u8| -i32::from(code == class);
                (*one, *two, *three) = (mask(1), mask(2), mask(3));
            }
        }
    }
}
