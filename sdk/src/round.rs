//! One pass over the data: which statistics, their bounds, their shares of the budget, and the public state.
//!
//! *In*: names, lengths, bounds. *Out*: [`Round`], and [`Step`], which `next` returns. *Refuses* (when the step is encoded, with
//! the statistic's name): names that repeat, lengths of 0, bounds or weights that mean nothing, shares outside 0..1.
//! The host computes each sensitivity from the bound that it enforces itself; what is written here is a request.

use std::ops::RangeInclusive;

use crate::contract::{Bound, Report, Source, Statistic};
use crate::error::{Error, Result};
use crate::scores::Scores;

/// One pass over the data. `S` is the analysis's public state, `()` if it has none.
///
/// ```
/// use vestibule_sdk::Round;
/// let round = Round::new()
///     .count("people")
///     .histogram("age", 10).weight(2.0) // twice the budget of the others
///     .sum("height", -1.0..=1.0);
/// assert_eq!(round.statistics().len(), 3);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Round<S = ()> {
    statistics: Vec<Statistic>,
    share: f64,
    state: S,
    dosages: bool,
}

impl Round {
    /// No statistics yet, the whole budget, no state.
    #[must_use]
    pub const fn new() -> Self {
        Self::with(())
    }
}

impl Default for Round {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Round<S> {
    /// No statistics yet, the whole budget, and this public state for every `contribute`.
    #[must_use]
    pub const fn with(state: S) -> Self {
        Self { statistics: Vec::new(), share: 1.0, state, dosages: true }
    }

    /// This round's share of the job's whole budget, above 0 and at most 1. The shares of all rounds add up to at most 1.
    #[must_use]
    pub const fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// `contribute` needs no dosages in this round: it is shown none, and an individual takes a small part of the time.
    #[must_use]
    pub const fn without_dosages(mut self) -> Self {
        self.dosages = false;
        self
    }

    /// How many people are counted: a sum within 0..=1.
    #[must_use]
    pub fn count(self, name: impl Into<String>) -> Self {
        self.sum(name, 0.0..=1.0)
    }

    /// A sum of one number per partition. The range must hold 0. The noise grows with the larger magnitude of its two ends, so
    /// scale a column to -1..=1 around the middle of its bounds.
    #[must_use]
    pub fn sum(self, name: impl Into<String>, range: RangeInclusive<f64>) -> Self {
        self.sums(name, 1, range)
    }

    /// `length` sums at once, each entry within the range.
    #[must_use]
    pub fn sums(self, name: impl Into<String>, length: usize, range: RangeInclusive<f64>) -> Self {
        self.statistic(name, length, Bound::Range(range.into_inner()))
    }

    /// A histogram: each partition is in one cell or none. The noise of a cell does not depend on how many cells there are.
    #[must_use]
    pub fn histogram(self, name: impl Into<String>, cells: u32) -> Self {
        self.statistic(name, cells as usize, Bound::OneCell)
    }

    /// Count, mean and variance of a number column, of three entries: see [`Individual::moments`](crate::Individual::moments).
    /// The norm of `[1, v, v^2 - 1]` is at most the root of 2 for all v within -1..1, no more than that of `[1, v]`: with the
    /// square so centred, the variance costs no extra noise.
    #[must_use]
    pub fn moments(self, name: impl Into<String>) -> Self {
        self.l2(name, 3, std::f64::consts::SQRT_2)
    }

    /// A vector whose Euclidean norm is at most `clip`; longer ones are scaled down by the host.
    #[must_use]
    pub fn l2(self, name: impl Into<String>, length: usize, clip: f64) -> Self {
        self.statistic(name, length, Bound::L2(clip))
    }

    /// A vector whose magnitudes sum to at most `clip`.
    #[must_use]
    pub fn l1(self, name: impl Into<String>, length: usize, clip: f64) -> Self {
        self.statistic(name, length, Bound::L1(clip))
    }

    /// Which `k` of `length` sums are the largest, each entry of a partition within the range: 1 for those, 0 for the others, added up
    /// over sites. Costs as much noise as `k` single sums do, however many there are to choose from: first choose, then ask about those.
    #[must_use]
    pub fn top(self, name: impl Into<String>, length: usize, k: u32, range: RangeInclusive<f64>) -> Self {
        self.statistic(name, length, Bound::Top((k, *range.start(), *range.end())))
    }

    /// Sums over people of factors times scores of their genotypes, which the host multiplies: entry `(f, s, v)` is factor `f` times what set `s`
    /// says of the genotype at variant `v`, and `v` comes last in the order. `contribute` gives the factors alone, each within -1..=1, as if
    /// they were the statistic's entries: a count of alleles with a factor of 1, a score test with the residual, and so on, for any
    /// number of variants in the time that one takes. The bound is of the whole vector: `Bound::L2`, the norm of the factors times that of
    /// the individual's scores; or `Bound::Range` or `Bound::Top` for entries. Factors of anyone who is beyond are made smaller.
    #[must_use]
    pub fn genotypes(mut self, name: impl Into<String>, factors: u32, scores: Scores, bound: Bound) -> Self {
        let length = u32::try_from(scores.entries(factors)).unwrap_or(0);
        self.statistics.push(Statistic { name: name.into(), length, bound, weight: 1.0, source: scores.source(factors) });
        self
    }

    /// Any statistic, with weight 1.
    #[must_use]
    pub fn statistic(mut self, name: impl Into<String>, length: usize, bound: Bound) -> Self {
        // A length past u32 is kept as 0, which the check refuses.
        let length = u32::try_from(length).unwrap_or(0);
        self.statistics.push(Statistic { name: name.into(), length, bound, weight: 1.0, source: Source::Given });
        self
    }

    /// The weight of the statistic just added: its share of the round's budget is its weight over the sum of all weights. The
    /// sd of its noise goes with one over the square root of that.
    ///
    /// # Panics
    /// If no statistic was added yet.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.statistics.last_mut().expect("`weight` is for the statistic just added: add one first").weight = weight;
        self
    }

    /// The statistics so far.
    #[must_use]
    pub fn statistics(&self) -> &[Statistic] {
        &self.statistics
    }

    pub(crate) const fn budget_share(&self) -> f64 {
        self.share
    }

    pub(crate) fn into_parts(self) -> (Vec<Statistic>, bool, S) {
        (self.statistics, self.dosages, self.state)
    }

    /// Whether the host will understand it.
    ///
    /// # Errors
    /// The first thing that is wrong, by the statistic's name.
    pub fn check(&self) -> Result<()> {
        let fail = |name: &str, why: String| Err(Error::new(format!("statistic `{name}`: {why}")));
        if self.statistics.is_empty() {
            return Err(Error::new("a round needs at least one statistic"));
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Err(Error::new(format!("a round's share of the budget is above 0 and at most 1, found {}", self.share)));
        }
        for (at, statistic) in self.statistics.iter().enumerate() {
            let name = &statistic.name;
            if self.statistics[..at].iter().any(|other| other.name == *name) {
                return fail(name, "the name is used twice in this round".into());
            }
            if statistic.length == 0 {
                return fail(name, format!("its length must be 1 to {}", u32::MAX));
            }
            if !(statistic.weight > 0.0 && statistic.weight.is_finite()) {
                return fail(name, format!("a weight is above 0 and finite, found {}", statistic.weight));
            }
            if let (Source::Genotypes(_), Bound::OneCell | Bound::L1(_)) = (&statistic.source, statistic.bound) {
                return fail(name, "sums of genotypes are bounded by `L2`, `Range` or `Top`".into());
            }
            match statistic.bound {
                Bound::Top((k, ..)) if k == 0 || k > statistic.length => {
                    return fail(name, format!("a choice is of 1 to {} entries, found {k}", statistic.length));
                }
                Bound::Range((low, high)) | Bound::Top((_, low, high))
                    if !(low <= 0.0 && high >= 0.0 && low < high && (high - low).is_finite()) =>
                {
                    return fail(name, format!("a range holds 0 and is finite and not empty, found {low}..={high}"));
                }
                Bound::L1(clip) | Bound::L2(clip) if !(clip > 0.0 && clip.is_finite()) => {
                    return fail(name, format!("a clip is above 0 and finite, found {clip}"));
                }
                Bound::Range(_) | Bound::OneCell | Bound::L1(_) | Bound::L2(_) | Bound::Top(_) => {}
            }
        }
        Ok(())
    }
}

/// What comes next: another pass over the data, or the end.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<S = ()> {
    /// Another pass.
    Round(Round<S>),
    /// The end.
    Report(Report),
}

impl<S> From<Round<S>> for Step<S> {
    fn from(round: Round<S>) -> Self {
        Self::Round(round)
    }
}

impl<S> From<Report> for Step<S> {
    fn from(report: Report) -> Self {
        Self::Report(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_is_refused_by_name() {
        let good = || Round::new().count("n");
        assert_eq!(good().check(), Ok(()));
        let t = |round: Round, want: &str| {
            let text = round.check().unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        };
        t(Round::new(), "at least one statistic");
        t(good().count("n"), "`n`: the name is used twice");
        t(good().sums("v", 0, 0.0..=1.0), "`v`: its length");
        t(good().sum("x", 1.0..=2.0), "`x`: a range holds 0");
        t(good().sum("x", 0.0..=f64::INFINITY), "`x`: a range holds 0");
        t(good().sum("x", f64::NAN..=1.0), "`x`: a range holds 0");
        t(good().l2("g", 3, 0.0), "`g`: a clip");
        t(good().l1("g", 3, f64::NAN), "`g`: a clip");
        t(good().genotypes("g", 0, Scores::dosages(&[0.5]), Bound::L2(1.0)), "`g`: its length");
        t(good().genotypes("g", 1, Scores::dosages(&[0.5]), Bound::OneCell), "`g`: sums of genotypes");
        t(good().weight(-1.0), "`n`: a weight");
        t(good().share(0.0), "share of the budget");
        t(good().share(1.1), "share of the budget");
    }
}
