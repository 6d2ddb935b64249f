//! Scores: what the host is to make of genotypes where it multiplies them itself.
//!
//! *In*: a number for each variant and each thing that a genotype can be. *Out*: [`Scores`], in the contract's units of 1/1,024, so that what
//! [`Scores::get`] says is what the host multiplies with. Beyond ±31.9 they are cut.

use crate::contract::{GenotypeSums, Source, Statistic};

const UNITS: f64 = 1_024.0;
/// Dosages 0, 1 and 2, and a missing one.
const CLASSES: [Option<u8>; 4] = [Some(0), Some(1), Some(2), None];

/// Public numbers for genotypes: one set, or several that are summed side by side. See [`Round::genotypes`](crate::Round::genotypes).
///
/// ```
/// use vestibule_sdk::Scores;
/// let scores = Scores::dosages(&[0.4, 1.3]);
/// assert_eq!(scores.get(0, 0, Some(2)), 1.599609375); // a multiple of 1/1,024
/// assert_eq!(scores.get(0, 1, None), 0.0);
/// let both = scores.and(Scores::of(2, |_, dosage| f64::from(u8::from(dosage == Some(1)))));
/// assert_eq!(both.sets(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scores {
    variants: usize,
    units: Vec<[i16; 4]>,
}

impl Scores {
    /// One set: `score(variant, dosage)` for each of so many variants; `None` is a missing dosage.
    #[must_use]
    pub fn of(variants: usize, score: impl Fn(usize, Option<u8>) -> f64) -> Self {
        // `as` saturates, and makes 0 of what is no number.
        #[expect(clippy::cast_possible_truncation, reason = "saturation is what is wanted")]
        let one = |variant| CLASSES.map(|dosage| (score(variant, dosage) * UNITS).round() as i16);
        Self { variants, units: (0..variants).map(one).collect() }
    }

    /// One set: dosages less these centres, such as twice the frequencies; 0 where one is missing. Centres are rounded to 1/1,024.
    #[must_use]
    pub fn dosages(centres: &[f64]) -> Self {
        let centre = |variant: usize| (centres[variant] * UNITS).round() / UNITS;
        Self::of(centres.len(), |variant, dosage| dosage.map_or(0.0, |dosage| f64::from(dosage) - centre(variant)))
    }

    /// Also these sets.
    ///
    /// # Panics
    /// If they are of another number of variants.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        assert!(self.variants == other.variants, "scores of {} and of {} variants", self.variants, other.variants);
        self.units.extend(other.units);
        self
    }

    /// How many variants each set has.
    #[must_use]
    pub const fn variants(&self) -> usize {
        self.variants
    }

    /// How many sets there are.
    #[must_use]
    pub fn sets(&self) -> usize {
        self.units.len().checked_div(self.variants).unwrap_or(0)
    }

    /// What the host multiplies with.
    ///
    /// # Panics
    /// If there is no such set or variant.
    #[must_use]
    pub fn get(&self, set: usize, variant: usize, dosage: Option<u8>) -> f64 {
        let class = dosage.filter(|dosage| *dosage < 3).map_or(3, usize::from);
        f64::from(self.units[set * self.variants + variant][class]) / UNITS
    }

    /// How many entries a statistic of so many factors has.
    pub(crate) fn entries(&self, factors: u32) -> usize {
        self.units.len().saturating_mul(factors as usize)
    }

    pub(crate) fn source(self, factors: u32) -> Source {
        Source::Genotypes(GenotypeSums { factors, scores: self.units.into_flattened() })
    }
}

impl Statistic {
    /// How many entries `contribute` gives.
    #[must_use]
    pub const fn given(&self) -> u32 {
        match &self.source {
            Source::Given => self.length,
            Source::Genotypes(sums) => sums.factors,
        }
    }
}
