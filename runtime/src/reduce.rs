//! Step 10: the reducer. Whatever a guest returned becomes integers inside the declared bound, and integers are summed exactly.
//!
//! *In*: the contributions of one partition, and what was calibrated from the round's bounds. *Out*: [`Sums`]. *Trusts*: nothing
//! of the guest. *Refuses*: nothing: what is missing, malformed, of the wrong shape or too large is clamped or counts as zero,
//! and nobody learns that it was.
//!
//! The statement that the privacy of every release rests on (docs/PRIVACY.md): for every contribution whatsoever, what
//! [`Sums::add`] adds for it is one integer vector that obeys its [`IntegerBound`], which is checked again in integers.

mod clamp;
mod counts;
mod genotypes;

use vestibule_protocol::calibration::{Calibrated, FACTOR_LOG2_SCALE, IntegerBound};
use vestibule_protocol::scores::Source;
use vestibule_sandbox::Given;

use self::clamp::{Grid, enforce, quantise};
use self::genotypes::Products;
use crate::dataset::RowGroup;
use crate::reserve::{NoRoom, laid, room};

/// Exact sums over partitions, in steps. Shows its size only, and cannot be serialised: it is not private yet.
pub struct Sums {
    statistics: Vec<Part>,
    /// Partitions whose contribution moved any sum.
    moving: i64,
    scratch: Vec<i64>,
}

/// One statistic's.
enum Part {
    /// Of what guests gave.
    Given(Vec<i64>),
    /// Of what guests gave, times genotypes.
    Genotypes(Box<Products>),
}

/// A sum left the range of 64 bits. With bounds below 2^21 steps that takes more than 2^42 individuals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sum left its range")]
pub struct SumOverflow;

impl Sums {
    /// Zeros, one vector for each statistic, where a row has so many variants; and all the memory that adding to them takes.
    ///
    /// # Errors
    /// The machine has not so much.
    pub fn zeros(calibrated: &[Calibrated], variants: usize) -> Result<Self, NoRoom> {
        let longest = calibrated.iter().map(given).max().unwrap_or(0);
        let scratch = room(longest, 0)?;
        let part = |statistic: &Calibrated| match &statistic.source {
            Source::Given => laid(statistic.length as usize, 0).map(Part::Given),
            Source::Genotypes(scores) => {
                Products::working(scores, statistic.bound, variants).map(Box::new).map(Part::Genotypes)
            }
        };
        let statistics = calibrated.iter().map(part).collect::<Result<_, _>>()?;
        Ok(Self { statistics, moving: 0, scratch })
    }

    /// Zeros for others' sums to be [merged](Self::merge) into, and nothing to be added to.
    pub(crate) fn total(calibrated: &[Calibrated], variants: usize) -> Result<Self, NoRoom> {
        let part = |statistic: &Calibrated| match &statistic.source {
            Source::Given => laid(statistic.length as usize, 0).map(Part::Given),
            Source::Genotypes(scores) => Products::new(scores, variants).map(Box::new).map(Part::Genotypes),
        };
        let statistics = calibrated.iter().map(part).collect::<Result<_, _>>()?;
        Ok(Self { statistics, moving: 0, scratch: vec![] })
    }

    /// Bytes of the sums alone, as in [`Self::total`]; and of what adding takes besides.
    pub(crate) fn bytes(calibrated: &[Calibrated], variants: usize) -> (usize, usize) {
        let longest = calibrated.iter().map(given).max().unwrap_or(0);
        let each = calibrated.iter().map(|statistic| match &statistic.source {
            Source::Given => ((statistic.length as usize).saturating_mul(8), 0),
            Source::Genotypes(scores) => Products::bytes(scores, statistic.bound, variants),
        });
        each.fold((0, longest.saturating_mul(8)), |(sums, work), (own, besides)| {
            (sums.saturating_add(own), work.saturating_add(besides))
        })
    }

    /// Adds one partition. `None`, and any list of another length than there are statistics, counts as no contribution.
    ///
    /// # Errors
    /// [`SumOverflow`].
    pub fn add(&mut self, calibrated: &[Calibrated], contributions: Option<&[Given<'_>]>) -> Result<(), SumOverflow> {
        let contributions = contributions.filter(|found| found.len() == calibrated.len()).unwrap_or_default();
        let mut contributions = contributions.iter().copied();
        let mut moves = false;
        for (part, statistic) in self.statistics.iter_mut().zip(calibrated) {
            let contribution = contributions.next().unwrap_or(Given::None);
            match part {
                Part::Given(sums) => moves |= add_one(sums, statistic, contribution, &mut self.scratch)?,
                Part::Genotypes(products) => {
                    let grid = Grid { entries: products.factors(), log2_scale: FACTOR_LOG2_SCALE, ball: false };
                    if !quantise(grid, contribution, &mut self.scratch) {
                        self.scratch.clear();
                    }
                    moves |= self.scratch.iter().any(|factor| *factor != 0);
                    products.push(&self.scratch)?;
                }
            }
        }
        self.moving = self.moving.checked_add(moves.into()).ok_or(SumOverflow)?;
        Ok(())
    }

    /// Whether what was added since must be [multiplied](Self::multiply) before anything else is added: follows from the number of rows and from
    /// public terms.
    pub(crate) fn is_full(&self) -> bool {
        self.statistics.iter().any(|part| matches!(part, Part::Genotypes(products) if products.is_full()))
    }

    /// Multiplies with their genotypes what was added since for these rows, those that follow on the ones that were multiplied, in their order.
    ///
    /// # Errors
    /// [`SumOverflow`].
    pub(crate) fn multiply(&mut self, rows: &RowGroup) -> Result<(), SumOverflow> {
        for part in &mut self.statistics {
            if let Part::Genotypes(products) = part {
                products.multiply(rows)?;
            }
        }
        Ok(())
    }

    /// Multiplies what is left of these rows. What is added then is of other rows.
    ///
    /// # Errors
    /// [`SumOverflow`].
    pub fn finish(&mut self, rows: &RowGroup) -> Result<(), SumOverflow> {
        self.multiply(rows)?;
        for part in &mut self.statistics {
            if let Part::Genotypes(products) = part {
                products.next_group();
            }
        }
        Ok(())
    }

    /// Adds another thread's sums.
    ///
    /// # Errors
    /// [`SumOverflow`].
    pub fn merge(&mut self, other: &Self) -> Result<(), SumOverflow> {
        self.moving = self.moving.checked_add(other.moving).ok_or(SumOverflow)?;
        for parts in self.statistics.iter_mut().zip(&other.statistics) {
            match parts {
                (Part::Given(sums), Part::Given(others)) => accumulate(sums, others)?,
                (Part::Genotypes(sums), Part::Genotypes(others)) => sums.merge(others)?,
                // Of two rounds: sums that no round has.
                _ => return Err(SumOverflow),
            }
        }
        Ok(())
    }

    /// How many partitions moved any sum, for the noise alone.
    pub(crate) const fn moving(&self) -> i64 {
        self.moving
    }

    /// Writes them behind what is there: for `executor::partial` alone, which seals them before they leave the process.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.moving.to_le_bytes());
        for part in &self.statistics {
            let steps = match part {
                Part::Given(sums) => sums.as_slice(),
                Part::Genotypes(products) => products.sums(),
            };
            steps.iter().for_each(|step| out.extend_from_slice(&step.to_le_bytes()));
        }
    }

    /// What [`Self::put`] wrote of a round with these statistics; `None` where the bytes are not as many as that.
    pub(crate) fn of(calibrated: &[Calibrated], variants: usize, bytes: &[u8]) -> Option<Self> {
        let mut sums = Self::total(calibrated, variants).ok()?;
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let (moving, mut rest) = words.split_first()?;
        sums.moving = i64::from_le_bytes(*moving);
        for part in &mut sums.statistics {
            let steps = match part {
                Part::Given(sums) => sums.as_mut_slice(),
                Part::Genotypes(products) => products.sums_mut(),
            };
            let own;
            (own, rest) = rest.split_at_checked(steps.len())?;
            steps.iter_mut().zip(own).for_each(|(step, word)| *step = i64::from_le_bytes(*word));
        }
        rest.is_empty().then_some(sums)
    }

    /// For the noise, which takes the sums by value, and for a dry run on a researcher's own data.
    ///
    /// # Errors
    /// [`SumOverflow`].
    pub(crate) fn into_steps(self) -> Result<Vec<Vec<i64>>, SumOverflow> {
        let steps = |part| match part {
            Part::Given(sums) => Ok(sums),
            Part::Genotypes(products) => products.into_steps(),
        };
        self.statistics.into_iter().map(steps).collect()
    }
}

/// Entries that a guest gives.
fn given(statistic: &Calibrated) -> usize {
    match &statistic.source {
        Source::Given => statistic.length as usize,
        Source::Genotypes(scores) => scores.factors as usize,
    }
}

impl std::fmt::Debug for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sums({} statistics, values withheld)", self.statistics.len())
    }
}

fn accumulate(sums: &mut [i64], steps: &[i64]) -> Result<(), SumOverflow> {
    // One pass that the compiler can vectorise: add with wrap, and collect the overflow bits.
    let mut overflow = 0_i64;
    for (sum, &step) in sums.iter_mut().zip(steps) {
        let before = *sum;
        *sum = before.wrapping_add(step);
        overflow |= (before ^ *sum) & (step ^ *sum);
    }
    if overflow < 0 { Err(SumOverflow) } else { Ok(()) }
}

/// Returns whether it moved the sums.
fn add_one(
    sums: &mut [i64],
    statistic: &Calibrated,
    contribution: Given<'_>,
    scratch: &mut Vec<i64>,
) -> Result<bool, SumOverflow> {
    if let IntegerBound::OneCell { one } = statistic.bound {
        let Given::Cell(cell) = contribution else { return Ok(false) };
        let Some(sum) = sums.get_mut(cell as usize) else { return Ok(false) };
        *sum = sum.checked_add(one).ok_or(SumOverflow)?;
        return Ok(true);
    }
    let ball = matches!(statistic.bound, IntegerBound::L1 { .. } | IntegerBound::L2 { .. });
    let grid = Grid { entries: statistic.length as usize, log2_scale: statistic.log2_scale, ball };
    if !quantise(grid, contribution, scratch) {
        return Ok(false);
    }
    enforce(statistic.bound, scratch);
    accumulate(sums, scratch)?;
    Ok(scratch.iter().any(|step| *step != 0))
}

#[cfg(test)]
mod tests;
