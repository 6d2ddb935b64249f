//! How many rows have each genotype at each variant, for rows whose factor is the same: they are counted, and the counts multiplied.
//!
//! *In*: packed genotypes. *Out*: for each variant, how many rows have a dosage of 0, 1, 2 and a missing one. A row is looked at 64 bits at a
//! time: the bits of eight rows are added in parallel, each of the 64 to a number of its own whose digits lie in eight words (carry-save adders;
//! Harley and Seal). Nothing that is done follows from what the genotypes are.

use vestibule_protocol::scores::CLASSES;

use crate::dataset::Packed;
use crate::reserve::{NoRoom, laid};

/// Words of the longest row: 4,096 variants, two bits each.
const WORDS: usize = 128;
/// Behind them those of the third thing to count: where both bits are set, of two words in one.
const LANES: usize = WORDS + WORDS / 2;
/// Rows that are added at once.
const ROWS: usize = 8;
/// Digits of a number.
const DIGITS: usize = 8;
/// Rows that eight digits can count.
const MOST: usize = ((1 << DIGITS) - 1) / ROWS * ROWS;
/// The lower bit of each genotype.
const LOW: u64 = 0x5555_5555_5555_5555;

type Row = [u64; LANES];

/// Where rows are counted.
pub(super) struct Counting {
    rows: Box<[Row; ROWS]>,
    digits: Box<[Row; DIGITS]>,
    totals: Vec<u32>,
    found: Vec<[u32; CLASSES]>,
}

/// How much of a row is looked at: of a narrow stretch little, so that no row costs more than its
/// stretch is wide. That is in what one individual can take (docs/PRIVACY.md, "Sums over genotypes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Width {
    words: usize,
    /// Words that hold where both bits are set: the second half of the row's in the upper bits.
    both: usize,
}

impl Width {
    /// Of a stretch that begins so many genotypes within its first byte.
    fn of(before: usize, variants: usize) -> Self {
        let words = before.saturating_add(variants).div_ceil(32).clamp(1, WORDS);
        Self { words, both: words.div_ceil(2) }
    }

    const fn lanes(self) -> usize {
        self.words.saturating_add(self.both)
    }
}

impl Counting {
    /// For stretches of up to so many variants.
    pub(super) fn new(widest: usize) -> Result<Self, NoRoom> {
        let (rows, digits) = (Box::new([[0; LANES]; ROWS]), Box::new([[0; LANES]; DIGITS]));
        Ok(Self { rows, digits, totals: laid(LANES * 64, 0)?, found: laid(widest, [0; CLASSES])? })
    }

    /// Bytes of it.
    pub(super) const fn bytes(widest: usize) -> usize {
        let work = size_of::<[Row; ROWS]>().saturating_add(size_of::<[Row; DIGITS]>());
        let found = widest.saturating_mul(size_of::<[u32; CLASSES]>());
        work.saturating_add(LANES * 64 * size_of::<u32>()).saturating_add(found)
    }

    /// Counts all rows of a stretch: for each variant, those of each genotype.
    pub(super) fn count(&mut self, packed: Packed<'_>) -> &[[u32; CLASSES]] {
        let before = packed.start() % 4;
        let width = Width::of(before, packed.variants());
        let rows = self.sums(packed, width);
        let bit = |lane: usize| self.totals.get(lane).copied().unwrap_or(0);
        for (place, found) in (before..).zip(&mut self.found).take(packed.variants()) {
            let (low, high) = (bit(2 * place), bit(2 * place + 1));
            // Those of the first half of the row lie in the lower bits, those of the second in the upper.
            let half = width.both * 32;
            let both = bit(width.words * 64 + (2 * place) % (half * 2) + usize::from(place >= half));
            let (one, two) = (low.wrapping_sub(both), high.wrapping_sub(both));
            *found = [rows.wrapping_sub(one).wrapping_sub(two).wrapping_sub(both), one, two, both];
        }
        self.found.get(..packed.variants()).unwrap_or_default()
    }

    /// Adds up each bit of all rows. Returns how many rows there are.
    fn sums(&mut self, packed: Packed<'_>, width: Width) -> u32 {
        let lanes = width.lanes();
        let totals = self.totals.get_mut(..lanes.saturating_mul(64)).unwrap_or_default();
        totals.fill(0);
        let start = packed.start() / 4;
        let mut rows = 0_u32;
        for some in packed.bytes().chunks(packed.stride().saturating_mul(MOST)) {
            self.digits.iter_mut().for_each(|digit| digit.iter_mut().take(lanes).for_each(|digit| *digit = 0));
            for few in some.chunks(packed.stride().saturating_mul(ROWS)) {
                let mut each = few.chunks(packed.stride());
                for row in self.rows.iter_mut() {
                    let bytes = each.next().inspect(|_| rows = rows.saturating_add(1));
                    lay(bytes.and_then(|bytes| bytes.get(start..)).unwrap_or_default(), width, row);
                }
                add(&self.rows, &mut self.digits, lanes);
            }
            spill(&self.digits, totals);
        }
        rows
    }
}

/// A row's bytes as words; behind them, where both bits of a genotype are set.
fn lay(bytes: &[u8], width: Width, row: &mut Row) {
    let Some((row, both)) = row.split_at_mut_checked(width.words) else { return };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(last, byte)| *last = *byte);
    let all = words.iter().chain(std::iter::once(&last)).map(|bytes| u64::from_le_bytes(*bytes));
    row.iter_mut().zip(all.chain(std::iter::repeat(0))).for_each(|(word, found)| *word = found);
    let (first, second) = row.split_at_checked(width.both).unwrap_or_default();
    let set = |word: u64| word & (word >> 1) & LOW;
    for (both, first) in both.iter_mut().zip(first) {
        *both = set(*first);
    }
    for (both, second) in both.iter_mut().zip(second) {
        *both |= set(*second) << 1;
    }
}

/// Sum and carry of three bits, in each of 64 places.
const fn sum(a: u64, b: u64, c: u64) -> (u64, u64) {
    let half = a ^ b;
    (half ^ c, (a & b) | (half & c))
}

/// Adds so many lanes of eight rows to the numbers.
fn add(rows: &[Row; ROWS], digits: &mut [Row; DIGITS], lanes: usize) {
    let [a, b, c, d, e, f, g, h] = rows;
    let [ones, twos, fours, rest @ ..] = digits;
    let mut eights = [0; LANES];
    #[allow(clippy::indexing_slicing, clippy::needless_range_loop, reason = "all have as many lanes")]
    for lane in 0..lanes.min(LANES) {
        let (one, carry_a) = sum(ones[lane], a[lane], b[lane]);
        let (one, carry_b) = sum(one, c[lane], d[lane]);
        let (two, carry_c) = sum(twos[lane], carry_a, carry_b);
        let (one, carry_a) = sum(one, e[lane], f[lane]);
        let (one, carry_b) = sum(one, g[lane], h[lane]);
        let (two, carry_d) = sum(two, carry_a, carry_b);
        let (four, carry) = sum(fours[lane], carry_c, carry_d);
        (ones[lane], twos[lane], fours[lane], eights[lane]) = (one, two, four, carry);
    }
    for digit in rest {
        for (digit, carry) in digit.iter_mut().zip(&mut eights).take(lanes) {
            (*digit, *carry) = (*digit ^ *carry, *digit & *carry);
        }
    }
}

/// Adds the numbers to the totals, of as many lanes as there are totals.
fn spill(digits: &[Row; DIGITS], totals: &mut [u32]) {
    /// The lowest bit of each byte.
    const BYTES: u64 = 0x0101_0101_0101_0101;
    for bit in 0..8 {
        for (lane, totals) in totals.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let digit = |(place, row): (usize, &Row)| (row.get(lane).copied().unwrap_or(0) >> bit & BYTES) << place;
            let eight = digits.iter().enumerate().map(digit).fold(0, |sum, digit| sum | digit);
            let places = totals.iter_mut().skip(bit).step_by(8);
            places.zip(eight.to_le_bytes()).for_each(|(total, number)| *total = total.wrapping_add(number.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::RowGroup;

    /// A row costs no more than its stretch is wide: three lanes for each 64 variants.
    #[test]
    fn no_more_is_looked_at_than_there_is() {
        for (before, variants, lanes) in
            [(0, 1, 2), (0, 32, 2), (3, 30, 3), (3, 33, 3), (0, 64, 3), (0, 65, 5), (0, 4_096, 192)]
        {
            assert_eq!(Width::of(before, variants).lanes(), lanes, "{variants} behind {before}");
        }
    }

    /// Any number of rows, all ends of stretches; every genotype by itself is what the counts must equal.
    #[test]
    fn counts_are_those_of_every_genotype_by_itself() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for case in 0..40 {
            let count_rows = [0, 1, 7, 8, 9, 247, 248, 249, 600][case % 9];
            let start = usize::try_from(next() % 4_096).unwrap();
            let end = if case % 3 == 0 { 4_096 } else { start + 1 + usize::try_from(next()).unwrap() % (4_096 - start) };
            let start = if case % 6 == 0 { 0 } else { start };
            // Sometimes all the same, so that every digit is used.
            let rows =
                RowGroup::of_genotypes(
                    count_rows,
                    &[(start, end)],
                    || if case % 5 == 0 { 0xff } else { next().to_le_bytes()[0] },
                )
                .unwrap();
            let packed = rows.packed().next().unwrap();
            let mut counting = Counting::new(end - start).unwrap();
            // Twice: nothing is left of what was counted before.
            counting.count(packed);
            let found = counting.count(packed);
            assert_eq!(found.len(), end - start);
            for (variant, found) in found.iter().enumerate() {
                let mut want = [0_u32; CLASSES];
                for row in packed.bytes().chunks(packed.stride()) {
                    let place = start + variant;
                    want[usize::from(row[place / 4] >> (2 * (place % 4)) & 3)] += 1;
                }
                assert_eq!(*found, want, "case {case}, {count_rows} rows, variant {variant} of {start}..{end}");
            }
        }
    }
}
