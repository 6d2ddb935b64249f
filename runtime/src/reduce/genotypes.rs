//! Step 10 where the host multiplies: sums of factors, which guests gave, times the scores of genotypes, which no guest
//! need be shown.
//!
//! *In*: each individual's factors in whole steps, cut to ±1; then the packed genotypes of the same rows. *Out*: exact
//! sums of the products. *Trusts*: the store's genotypes, and nothing of the guest. *Refuses*: nothing that a guest gave:
//! factors are made smaller until the individual's products, all of them together, obey the statistic's bound, which is
//! checked in integers.
//!
//! A product is linear in its factor, so it is enough to know, for each variant and each of the four things that a
//! genotype can be, the sum of the factors of those who have it. How many rows have it is found for all factors at once
//! ([`super::counts`]), which is all that is needed of rows whose factor is the usual one; what others' factors differ
//! by is added by tables ([`wide`]). Of few variants everything is added ([`narrow`]).
//!
//! *Time.* Which factor is the usual one, 0 or the largest that the bound lets through, is by which of the two more rows
//! have: so one individual moves the number of those that differ by one at most. Nothing is sorted. What one row more
//! that differs takes follows from factors and variants ([`Products`], test `what_one_row_adds`). *Memory* follows from
//! public terms too: a group's factors are held, or of very many factors only those of so few rows that they fit
//! [`PENDING_BYTES`], and all of it is there before the first row.

mod narrow;
mod norms;
mod wide;

use vestibule_protocol::calibration::{FACTOR_LOG2_SCALE, IntegerBound};
use vestibule_protocol::scores::{CLASSES, GenotypeSums};

use self::narrow::Narrow;
use self::norms::Norms;
use self::wide::Wide;
use super::{SumOverflow, accumulate};
use crate::dataset::{GROUP_ROWS, RowGroup};
use crate::reserve::{NoRoom, laid, room};

/// The steps of a factor of 1.
pub(super) const ONE: i64 = 1 << FACTOR_LOG2_SCALE;
/// Bytes of factors that wait for their rows' genotypes, where four rows have no more.
const PENDING_BYTES: usize = 16 << 20;
/// Factors whose columns are laid out together: a line of the processor's cache is used up once it is there.
const COLUMNS: usize = 32;
/// Between columns, so that they do not all fall into the same lines of the cache.
const APART: usize = 16;

/// For each of the four things that a genotype can be, a sum.
type Classes<T> = [T; CLASSES];

/// One statistic's sums.
pub(super) struct Products {
    factors: usize,
    variants: usize,
    scores: GenotypeSums,
    /// For each factor, for each variant.
    sums: Vec<Classes<i64>>,
    /// What rows are multiplied with. Sums that others are only merged into have none.
    work: Option<Work>,
}

/// Factors of rows that were not multiplied yet, and where they are multiplied.
struct Work {
    /// The largest magnitude of a factor.
    most: i32,
    /// Where a row's genotypes decide how large its factors may be.
    norms: Option<Norms>,
    /// Factors of each row so far, one row after the other, within what was laid.
    pending: Vec<i32>,
    /// Rows whose factors are held.
    at_once: usize,
    /// Rows of the group that were multiplied.
    done: usize,
    /// Some factors of all these rows, one factor after the other.
    columns: Vec<i32>,
    narrow: Narrow,
    wide: Wide,
}

/// Rows whose factors are held at a time.
fn at_once(factors: usize) -> usize {
    (PENDING_BYTES / size_of::<i32>() / factors.max(1)).clamp(4, GROUP_ROWS)
}

impl Products {
    /// Zeros, which others' are merged into.
    pub(super) fn new(scores: &GenotypeSums, variants: usize) -> Result<Self, NoRoom> {
        let (factors, variants) = (scores.factors as usize, variants.max(1));
        let sums = laid(factors.saturating_mul(variants), [0; CLASSES])?;
        Ok(Self { factors, variants, scores: scores.clone(), sums, work: None })
    }

    /// Zeros, and all that is needed to multiply rows.
    pub(super) fn working(scores: &GenotypeSums, bound: IntegerBound, variants: usize) -> Result<Self, NoRoom> {
        let mut products = Self::new(scores, variants)?;
        products.work = Some(products.work(bound, at_once(products.factors))?);
        Ok(products)
    }

    fn work(&self, bound: IntegerBound, at_once: usize) -> Result<Work, NoRoom> {
        let most = match bound {
            // Whatever the genotype: the magnitude of a product is at most that of the factor times the largest score.
            IntegerBound::Range { lower, upper } => {
                let largest = self.scores.scores.as_slice().iter().map(|score| i64::from(*score).abs()).max();
                (lower.saturating_neg().min(upper).max(0) / largest.unwrap_or(0).max(1)).min(ONE)
            }
            IntegerBound::L2 { .. } => ONE,
            // A round with these does not pass its check.
            IntegerBound::OneCell { .. } | IntegerBound::L1 { .. } => 0,
        };
        let norms = match bound {
            IntegerBound::L2 { radius } => Norms::new(&self.scores, self.variants, radius, at_once)?,
            _ => None,
        };
        Ok(Work {
            most: small(most),
            norms,
            pending: room(at_once.saturating_mul(self.factors), 0)?,
            at_once,
            done: 0,
            columns: laid(COLUMNS.min(self.factors).saturating_mul(at_once.saturating_add(APART)), 0)?,
            narrow: Narrow::new(self.variants, at_once)?,
            wide: Wide::new(self.variants, at_once)?,
        })
    }

    /// Bytes of [`Self::new`]; and of [`Self::working`] besides.
    pub(super) fn bytes(scores: &GenotypeSums, bound: IntegerBound, variants: usize) -> (usize, usize) {
        let (factors, variants) = (scores.factors as usize, variants.max(1));
        let at_once = at_once(factors);
        let sums = factors.saturating_mul(variants).saturating_mul(size_of::<Classes<i64>>());
        let rows = |count: usize| at_once.saturating_add(APART).saturating_mul(count).saturating_mul(size_of::<i32>());
        let norms = match bound {
            IntegerBound::L2 { .. } => Norms::bytes(factors, variants, at_once),
            _ => 0,
        };
        let work = [rows(factors), rows(COLUMNS), norms, Narrow::bytes(variants, at_once), Wide::bytes(variants, at_once)];
        (sums, work.into_iter().fold(0, usize::saturating_add))
    }

    pub(super) const fn factors(&self) -> usize {
        self.factors
    }

    /// Adds a row's factors, cut to what the bound lets through; nothing stands for zeros.
    ///
    /// # Errors
    /// Rows that are [due](Self::due) were not multiplied: a fault of the host's.
    pub(super) fn push(&mut self, factors: &[i64]) -> Result<(), SumOverflow> {
        let work = self.work.as_mut().filter(|work| !work.is_full(self.factors)).ok_or(SumOverflow)?;
        let (most, end) = (i64::from(work.most), work.pending.len().saturating_add(self.factors));
        work.pending.extend(factors.iter().take(self.factors).map(|factor| small((*factor).clamp(-most, most))));
        work.pending.resize(end, 0);
        Ok(())
    }

    /// Whether no other row can be pushed before those that were are multiplied.
    pub(super) fn is_full(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.is_full(self.factors))
    }

    /// Multiplies the factors of all rows that were pushed, which are those of the group that follow on the ones multiplied
    /// before, with those rows' genotypes.
    pub(super) fn multiply(&mut self, rows: &RowGroup) -> Result<(), SumOverflow> {
        let Some(work) = &mut self.work else { return Ok(()) };
        let own = work.done..work.done.saturating_add(work.pending.len() / self.factors.max(1));
        if own.end > rows.len() {
            return Err(SumOverflow);
        }
        if let Some(norms) = &mut work.norms {
            norms.enforce(rows, &own, self.factors, &mut work.pending);
        }
        for first in (0..self.factors).step_by(COLUMNS) {
            let count = COLUMNS.min(self.factors.saturating_sub(first));
            work.lay_out(self.factors, first, count);
            let (stride, length) = (work.at_once.saturating_add(APART), own.len());
            let columns = || work.columns.chunks_exact(stride).take(count).filter_map(|column| column.get(..length));
            let mut place = 0_usize;
            for packed in rows.packed() {
                let packed = packed.of_rows(&own);
                let sums = self.sums.chunks_exact_mut(self.variants).skip(first);
                let sums = sums.filter_map(|sums| sums.get_mut(place..place.saturating_add(packed.variants())));
                if narrow::fits(packed.variants()) {
                    work.narrow.add(packed, columns(), sums)?;
                } else {
                    work.wide.add(packed, work.most, columns(), sums)?;
                }
                place = place.saturating_add(packed.variants());
            }
        }
        work.done = own.end;
        work.pending.clear();
        Ok(())
    }

    /// The rows that follow are those of another group.
    pub(super) fn next_group(&mut self) {
        if let Some(work) = &mut self.work {
            work.done = 0;
            work.pending.clear();
        }
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

impl Work {
    const fn is_full(&self, factors: usize) -> bool {
        self.pending.len() >= self.at_once.saturating_mul(factors)
    }

    /// Lays out the columns of some factors.
    fn lay_out(&mut self, factors: usize, first: usize, count: usize) {
        let stride = self.at_once.saturating_add(APART);
        for (at, row) in self.pending.chunks_exact(factors.max(1)).enumerate() {
            let row = row.get(first..first.saturating_add(count)).unwrap_or_default();
            for (column, factor) in self.columns.chunks_exact_mut(stride).zip(row) {
                column.iter_mut().skip(at).take(1).for_each(|to| *to = *factor);
            }
        }
    }
}

/// A factor, which is at most [`ONE`] either way.
#[expect(clippy::cast_possible_truncation, reason = "clamped")]
fn small(factor: i64) -> i32 {
    factor.clamp(-ONE, ONE) as i32
}

#[cfg(test)]
mod tests;
