//! Step 10 where the host multiplies: sums of factors, which guests gave, times the scores of genotypes, which no guest need be shown.
//!
//! *In*: each individual's factors in whole steps, cut to ±1; then the packed genotypes of the same rows. *Out*: exact sums of the products.
//! *Trusts*: the store's genotypes, and nothing of the guest. *Refuses*: nothing: factors are made smaller until the individual's products,
//! all of them together, obey the statistic's bound, which is checked in integers.
//!
//! A product is linear in its factor, so it is enough to know, for each variant and each of the four things that a genotype can be, the
//! sum of the factors of those who have it. Of the factor that most rows of a group have, that is how many rows have it, which [`super::counts`]
//! finds for all of them at once. What the others' factors differ by is summed for four individuals at a time: their genotypes at one variant are a byte, and what
//! each of the 256 bytes adds to the four sums is reckoned once for all variants. Norms are looked up likewise, for two variants at a time.
//! What a byte or half a byte is decides only which entry of a small table is read.

use vestibule_protocol::calibration::{FACTOR_LOG2_SCALE, IntegerBound};
use vestibule_protocol::scores::{CLASSES, GenotypeSums};

use super::clamp::shrink;
use super::{SumOverflow, accumulate, counts};
use crate::dataset::{Packed, RowGroup};

/// The steps of a factor of 1.
pub(super) const ONE: i64 = 1 << FACTOR_LOG2_SCALE;
/// Rows whose factors' differences are summed in 32 bits: 2,048 of 2^19 steps are 2^30.
const ROWS_AT_ONCE: usize = 2_048;
/// Bytes of a row that are looked up together, and rows: so that a line of the processor's cache is used up once it is there, and the tables
/// of its bytes stay near for all these rows.
const LINE: usize = 64;
const ROWS_IN_SIGHT: usize = 16;

/// For each of the four things that a genotype can be, a sum.
type Classes<T> = [T; CLASSES];

/// One statistic's sums, and the factors of rows that were not multiplied yet.
pub(super) struct Products {
    factors: usize,
    variants: usize,
    bound: IntegerBound,
    scores: GenotypeSums,
    /// For each variant, the squares of its scores, over all sets.
    squares: Vec<Classes<u64>>,
    largest: i64,
    /// Factors of each row so far, one row after the other.
    pending: Vec<i64>,
    /// For each factor, for each variant.
    sums: Vec<Classes<i64>>,
}

impl Products {
    pub(super) fn new(scores: &GenotypeSums, bound: IntegerBound, variants: usize) -> Self {
        let (factors, variants) = (scores.factors as usize, variants.max(1));
        let mut squares = vec![[0; CLASSES]; variants];
        for set in scores.scores.classes().chunks(variants) {
            for (squares, scores) in squares.iter_mut().zip(set) {
                squares.iter_mut().zip(scores).for_each(|(square, score)| *square += u64::from(score.unsigned_abs()).pow(2));
            }
        }
        let largest = scores.scores.as_slice().iter().map(|score| i64::from(*score).abs()).max().unwrap_or(0);
        let sums = vec![[0; CLASSES]; factors.saturating_mul(variants)];
        Self { factors, variants, bound, scores: scores.clone(), squares, largest, pending: vec![], sums }
    }

    pub(super) const fn factors(&self) -> usize {
        self.factors
    }

    /// Adds a row's factors, cut to ±[`ONE`]; nothing stands for zeros.
    pub(super) fn push(&mut self, factors: &[i64]) {
        let end = self.pending.len().saturating_add(self.factors);
        self.pending.extend(factors.iter().take(self.factors).map(|factor| (*factor).clamp(-ONE, ONE)));
        self.pending.resize(end, 0);
    }

    /// Multiplies the factors of all rows that were pushed with those rows' genotypes.
    pub(super) fn multiply(&mut self, rows: &RowGroup) -> Result<(), SumOverflow> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.resize(rows.len().saturating_mul(self.factors), 0);
        self.enforce(rows, &mut pending);
        for factor in 0..self.factors {
            let own: Vec<i32> = pending.iter().skip(factor).step_by(self.factors).map(|&factor| small(factor)).collect();
            let usual = most_often(&own);
            let others: Vec<(usize, i32)> =
                own.iter().map(|factor| factor - usual).enumerate().filter(|(_, apart)| *apart != 0).collect();
            let mut first = factor.saturating_mul(self.variants);
            for packed in rows.packed() {
                let sums = self.sums.get_mut(first..first.saturating_add(packed.variants())).unwrap_or_default();
                for (sums, counts) in sums.iter_mut().zip(counts::count(packed)) {
                    accumulate(sums, &counts.map(|count| i64::from(count).wrapping_mul(usual.into())))?;
                }
                add(packed, &others, sums)?;
                first = first.saturating_add(packed.variants());
            }
        }
        pending.clear();
        self.pending = pending;
        Ok(())
    }

    /// Makes each row's factors smaller until its products obey the bound.
    fn enforce(&self, rows: &RowGroup, factors: &mut [i64]) {
        match self.bound {
            IntegerBound::Range { lower, upper } => {
                // Whatever the genotype: the magnitude of a product is at most that of the factor times the largest score.
                let most = lower.saturating_neg().min(upper).max(0) / self.largest.max(1);
                factors.iter_mut().for_each(|factor| *factor = (*factor).clamp(-most, most));
            }
            IntegerBound::L2 { radius } => {
                let limit = u128::from(radius).pow(2);
                if self.largest_square() <= limit {
                    return;
                }
                let norms = self.norms(rows);
                for (row, norm) in factors.chunks_exact_mut(self.factors).zip(norms) {
                    // The square of the norm of all products is that of the factors' times that of the scores'.
                    let squared = |row: &[i64]| {
                        row.iter()
                            .map(|factor| u128::from(factor.unsigned_abs()).pow(2))
                            .sum::<u128>()
                            .saturating_mul(norm.into())
                    };
                    shrink(row, limit, squared, |limit, norm| (limit / norm).sqrt());
                }
            }
            // A round with these does not pass its check.
            IntegerBound::OneCell { .. } | IntegerBound::L1 { .. } => factors.fill(0),
        }
    }

    /// The largest square of a norm that any row can have: where the bound holds it, no row's need be looked at.
    fn largest_square(&self) -> u128 {
        let most = |squares: &Classes<u64>| squares.iter().copied().max().map_or(0, u128::from);
        let ones = u128::from(ONE.unsigned_abs()).pow(2).saturating_mul(self.factors as u128);
        self.squares.iter().map(most).sum::<u128>().saturating_mul(ones)
    }

    /// For each row, the sum of the squares of its genotypes' scores.
    fn norms(&self, rows: &RowGroup) -> Vec<u64> {
        let mut norms = vec![0_u64; rows.len()];
        let mut first = 0_usize;
        for packed in rows.packed() {
            let squares = self.squares.get(first..first.saturating_add(packed.variants())).unwrap_or_default();
            first = first.saturating_add(packed.variants());
            // Whole bytes: what lies before and after the stretch scores nothing.
            let before = packed.start() % 4;
            let mut padded = vec![[0; CLASSES]; before];
            padded.extend_from_slice(squares);
            padded.resize(padded.len().next_multiple_of(4), [0; CLASSES]);
            let tables: Vec<[[u64; 16]; 2]> = padded.as_chunks::<4>().0.iter().map(halves).collect();
            let near = packed.bytes().chunks(packed.stride().saturating_mul(ROWS_IN_SIGHT));
            for (norms, rows) in norms.chunks_mut(ROWS_IN_SIGHT).zip(near) {
                for (line, tables) in tables.chunks(LINE).enumerate() {
                    let start = (packed.start() / 4).saturating_add(line.saturating_mul(LINE));
                    for (norm, row) in norms.iter_mut().zip(rows.chunks(packed.stride())) {
                        let bytes = row.get(start..).unwrap_or_default();
                        // At most 2^30 for each score, of which there are fewer than 2^23: nothing wraps.
                        let sum =
                            bytes.iter().zip(tables).fold(0, |sum: u64, (&byte, table)| sum.wrapping_add(look_up(table, byte)));
                        *norm = norm.wrapping_add(sum);
                    }
                }
            }
        }
        norms
    }

    /// Adds another thread's sums.
    pub(super) fn merge(&mut self, other: &Self) -> Result<(), SumOverflow> {
        accumulate(self.sums.as_flattened_mut(), other.sums.as_flattened())
    }

    /// What was summed so far, before the scores: of rows that were multiplied.
    pub(super) fn sums(&self) -> &[i64] {
        self.sums.as_flattened()
    }

    pub(super) fn sums_mut(&mut self) -> &mut [i64] {
        self.sums.as_flattened_mut()
    }

    /// The sums of the products.
    pub(super) fn into_steps(self) -> Result<Vec<i64>, SumOverflow> {
        let sets = || self.scores.scores.classes().chunks(self.variants);
        let entry = |(sums, scores): (&Classes<i64>, &Classes<i16>)| {
            let sum: i128 = sums.iter().zip(scores).map(|(&sum, &score)| i128::from(sum) * i128::from(score)).sum();
            i64::try_from(sum).map_err(|_| SumOverflow)
        };
        self.sums.chunks(self.variants).flat_map(|own| sets().flat_map(move |set| own.iter().zip(set).map(entry))).collect()
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

/// A factor, which is at most [`ONE`] either way.
#[expect(clippy::cast_possible_truncation, reason = "clamped")]
fn small(factor: i64) -> i32 {
    factor.clamp(-ONE, ONE) as i32
}

/// The factor that most rows have.
fn most_often(factors: &[i32]) -> i32 {
    let mut sorted = factors.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).max_by_key(|same| same.len()).and_then(|same| same.first()).copied().unwrap_or(0)
}

/// Adds these rows' numbers to the sums of what they have at each variant.
fn add(packed: Packed<'_>, numbers: &[(usize, i32)], sums: &mut [Classes<i64>]) -> Result<(), SumOverflow> {
    let (before, width) = (packed.start() % 4, packed.start() % 4 + packed.variants());
    let bytes = width.div_ceil(4);
    let mut partial = vec![[0_i32; CLASSES]; bytes.saturating_mul(4)];
    let mut fours = vec![0_u32; bytes];
    let row = |at: usize| {
        let start = at.saturating_mul(packed.stride());
        let row = packed.bytes().get(start..start.saturating_add(packed.stride())).unwrap_or_default();
        row.get(packed.start() / 4..).unwrap_or_default()
    };
    for numbers in numbers.chunks(ROWS_AT_ONCE) {
        partial.fill([0; CLASSES]);
        for four in numbers.chunks(4) {
            let (mut rows, mut own) = ([&[][..]; 4], [0; 4]);
            for ((at, number), (place, to)) in four.iter().zip(rows.iter_mut().zip(&mut own)) {
                (*place, *to) = (row(*at), *number);
            }
            turn(rows, &mut fours);
            let table = table(&own);
            for (sums, codes) in partial.as_chunks_mut::<4>().0.iter_mut().zip(&fours) {
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

    /// xorshift64.
    fn numbers(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    fn class(row: &[u8], variant: usize) -> usize {
        usize::from(row[variant / 4] >> (2 * (variant % 4)) & 3)
    }

    /// What the fast way must equal: every product by itself. Also says whether every row obeys the bound.
    fn plain(products: &Products, rows: &RowGroup, factors: &[i64]) -> (Vec<i64>, bool) {
        let sets = products.scores.scores.classes().len() / products.variants;
        let mut sums = vec![0_i128; products.factors * sets * products.variants];
        let mut obeys = true;
        for (at, factors) in factors.chunks(products.factors).enumerate() {
            let mut own = vec![0_i128; sums.len()];
            let mut first = 0;
            for packed in rows.packed() {
                let row = packed.bytes().chunks(packed.stride()).nth(at).unwrap();
                for variant in 0..packed.variants() {
                    let class = class(row, packed.start() + variant);
                    for (f, factor) in factors.iter().enumerate() {
                        for set in 0..sets {
                            let place = set * products.variants + first + variant;
                            let score = products.scores.scores.classes()[place][class];
                            own[f * sets * products.variants + place] = i128::from(*factor) * i128::from(score);
                        }
                    }
                }
                first += packed.variants();
            }
            obeys &= match products.bound {
                IntegerBound::L2 { radius } => {
                    own.iter().map(|x| x.unsigned_abs().pow(2)).sum::<u128>() <= u128::from(radius).pow(2)
                }
                IntegerBound::Range { lower, upper } => own.iter().all(|x| (lower.into()..=upper.into()).contains(x)),
                _ => false,
            };
            sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        (sums.into_iter().map(|sum| sum.try_into().unwrap()).collect(), obeys)
    }

    /// Rows of any number, stretches that begin and end anywhere, any factors, sets and scores.
    #[test]
    fn sums_are_those_of_every_product_by_itself_and_every_row_obeys_the_bound() {
        let mut next = numbers(0x9E37_79B9_7F4A_7C15);
        let mut below = |limit: u64| usize::try_from(next() % limit).unwrap();
        let mut clipped = 0;
        for case in 0..60 {
            let count = if case == 0 { 2_500 } else { below(40) };
            let stretches: Vec<(usize, usize)> = (0..=below(3))
                .map(|_| {
                    let start = below(4_000);
                    (start, start + 1 + below(if case % 7 == 1 { 4_096 - start as u64 } else { 30.min(4_096 - start as u64) }))
                })
                .collect();
            let mut fill = numbers(case + 1);
            let rows = RowGroup::of_genotypes(count, &stretches, || fill().to_le_bytes()[0]);
            let variants = stretches.iter().map(|(start, end)| end - start).sum();
            let (factors, sets) = (1 + below(3), 1 + below(2));
            let scores: Vec<i16> = (0..4 * variants * sets)
                .map(|_| if case % 9 == 2 { i16::MIN } else { i16::try_from(below(4_096)).unwrap() - 2_048 })
                .collect();
            let sums = GenotypeSums { factors: u32::try_from(factors).unwrap(), scores: scores.into() };
            let bound = match case % 3 {
                0 => IntegerBound::L2 { radius: 1 << 45 },
                1 => IntegerBound::L2 { radius: 1 << (20 + below(12)) },
                _ => IntegerBound::Range { lower: -(1 << (20 + below(12))), upper: 1 << (20 + below(12)) },
            };
            let mut products = Products::new(&sums, bound, variants);
            let mut given = Vec::new();
            for _ in 0..count {
                let row: Vec<i64> = (0..factors).map(|_| below(1 << 21) as i64 - (1 << 20)).collect();
                products.push(&row);
                given.extend(row.iter().map(|factor| (*factor).clamp(-ONE, ONE)));
            }
            assert_eq!(products.pending, given);
            products.enforce(&rows, &mut given);
            clipped += usize::from(given != products.pending);
            let (want, obeys) = plain(&products, &rows, &given);
            assert!(obeys, "case {case}: {bound:?}");
            products.multiply(&rows).unwrap();
            assert!(products.pending.is_empty());
            assert_eq!(products.into_steps().unwrap(), want, "case {case}");
        }
        assert!(clipped > 20, "{clipped}");
    }

    #[test]
    fn what_is_missing_or_far_too_large_counts_as_nothing_or_as_one() {
        let sums = GenotypeSums { factors: 1, scores: vec![1, 1, 1, 1].into() };
        let mut products = Products::new(&sums, IntegerBound::L2 { radius: 1 << 40 }, 1);
        let rows = RowGroup::of_genotypes(4, &[(0, 1)], || 0);
        products.push(&[]);
        products.push(&[i64::MAX]);
        products.push(&[i64::MIN]);
        products.push(&[3]);
        products.multiply(&rows).unwrap();
        // A row without a factor, and another round's rows after it, are not mixed up.
        products.push(&[5, 7]);
        products.multiply(&RowGroup::of_genotypes(2, &[(0, 1)], || 0)).unwrap();
        assert_eq!(products.into_steps().unwrap(), [3 + 5]);
    }

    /// 2^24 individuals of the largest factor and score are within 64 bits, and what is beyond them is refused.
    #[test]
    fn sums_that_leave_their_range_are_refused() {
        let sums = GenotypeSums { factors: 1, scores: vec![i16::MIN; 4].into() };
        let with = |people: i64| {
            let mut products = Products::new(&sums, IntegerBound::L2 { radius: 1 << 48 }, 1);
            products.sums[0] = [people * ONE, 0, 0, 0];
            products.into_steps()
        };
        assert_eq!(with(1 << 24).unwrap(), [-(1 << 57)]);
        assert_eq!(with(1 << 31), Err(SumOverflow));
    }

    #[test]
    fn squares_are_mirrored() {
        for (row, column) in (0..4).flat_map(|row| (0..4).map(move |column| (row, column))) {
            assert_eq!(turned(3 << (8 * row + 2 * column)), 3 << (8 * column + 2 * row));
        }
    }
}
