//! What an analysis asks for: its plan, and the rounds that it runs over the data.
//!
//! *In*: the values a component returned from `plan` and `next`, or a round that came over the link. *Out*: [`Plan`] and
//! [`Round`] whose invariants hold. *Trusts*: nothing. *Refuses*: everything outside the limits below, naming the statistic.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::catalogue::VariantSlice;
use crate::scores::{CLASSES, GenotypeSums, MAX_SCORES, Source};
use crate::words::{is_plain, line};

/// Most columns a plan may name.
pub const MAX_COLUMNS: usize = 1_024;
/// Most catalogue slices a plan may name.
pub const MAX_SLICES: usize = 1_024;
/// Most rounds a job may run.
pub const MAX_ROUNDS: u32 = 1_000;
/// Most statistics of one round.
pub const MAX_STATISTICS: usize = 1_024;
/// Most entries of all statistics of one round together.
pub const MAX_ENTRIES: u64 = 4_000_000;
/// Most blocks of individuals.
pub const MAX_BLOCKS: u32 = 1 << 20;
/// Most bytes of a round's public state.
pub const MAX_STATE_BYTES: usize = 32 << 20;
/// Longest name of a statistic, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Budget shares are counted in parts per billion, rounded down.
pub const WHOLE_SHARE_PPB: u64 = 1_000_000_000;

/// Who is in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioning {
    /// One individual.
    Each,
    /// That many disjoint blocks of individuals.
    Blocks(u32),
}

/// What a job reads, decided before any data is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Dictionary columns, in the order in which an individual's values are given.
    pub columns: Vec<String>,
    /// Catalogue slices, in the order in which an individual's dosages are given.
    pub variants: Vec<VariantSlice>,
    /// Who is in one partition.
    pub partitioning: Partitioning,
    /// At most this many rounds.
    pub max_rounds: u32,
}

/// The bound that the host enforces on one contribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Every entry within `lower..=upper`, which holds 0.
    Range {
        /// Lowest value of an entry.
        lower: f64,
        /// Highest value of an entry.
        upper: f64,
    },
    /// Nothing, or one in a single cell.
    OneCell,
    /// Euclidean norm of the whole vector.
    L2 {
        /// Largest norm.
        radius: f64,
    },
    /// Sum of magnitudes of the whole vector.
    L1 {
        /// Largest sum.
        radius: f64,
    },
    /// As `Range`; what is released is which `k` entries have the largest sums.
    Top {
        /// How many are chosen.
        k: u32,
        /// Lowest value of an entry.
        lower: f64,
        /// Highest value of an entry.
        upper: f64,
    },
}

/// One named, bounded, summed quantity of a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistic {
    /// Unique within the round.
    pub name: String,
    /// Number of entries.
    pub length: u32,
    /// What one partition may contribute.
    pub bound: Bound,
    /// Share of the round's budget, relative to the other statistics.
    pub weight: f64,
    /// Where its entries come from.
    pub source: Source,
}

/// A round as it was asked for, not yet checked.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundRequest {
    /// What is summed.
    pub statistics: Vec<Statistic>,
    /// Share of the job's whole budget, above 0 and at most 1.
    pub budget_share: f64,
    /// The round's public state.
    pub state: Vec<u8>,
    /// Whether `contribute` is shown dosages.
    pub dosages: bool,
}

/// A round whose limits hold: the only kind that is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    request: RoundRequest,
    share_ppb: u64,
}

/// A plan or a round that is outside the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoundError {
    /// A count is outside its limits.
    #[error("{what}: {found} is outside {lowest} to {highest}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// Fewest allowed.
        lowest: u64,
        /// Most allowed.
        highest: u64,
    },
    /// A name is empty, too long, has control characters, or is used twice.
    #[error("statistic `{name}`: {why}")]
    Name {
        /// The name, shortened and printable.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A number of a statistic is not usable.
    #[error("statistic `{name}`: {why}")]
    Number {
        /// The statistic.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The budget share is not above 0 and at most 1.
    #[error("the round's budget share must be above 0 and at most 1")]
    Share,
}

impl RoundError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Count { .. } => "round-count",
            Self::Name { .. } => "round-name",
            Self::Number { .. } => "round-number",
            Self::Share => "round-share",
        }
    }
}

fn counted(what: &'static str, found: usize, lowest: u64, highest: u64) -> Result<(), RoundError> {
    let found = u64::try_from(found).unwrap_or(u64::MAX);
    if (lowest..=highest).contains(&found) { Ok(()) } else { Err(RoundError::Count { what, found, lowest, highest }) }
}

impl Plan {
    /// Checks the limits of a plan.
    ///
    /// # Errors
    /// Counts outside the limits.
    pub fn checked(self) -> Result<Self, RoundError> {
        counted("columns of the plan", self.columns.len(), 0, MAX_COLUMNS as u64)?;
        counted("catalogue slices of the plan", self.variants.len(), 0, MAX_SLICES as u64)?;
        counted("rounds of the plan", self.max_rounds as usize, 1, u64::from(MAX_ROUNDS))?;
        if let Partitioning::Blocks(blocks) = self.partitioning {
            counted("blocks of the plan", blocks as usize, 1, u64::from(MAX_BLOCKS))?;
        }
        Ok(self)
    }
}

impl Round {
    /// Checks everything that can be checked without the job: counts, names, bounds, weights, share.
    ///
    /// # Errors
    /// The first thing that is outside the limits.
    pub fn check(request: RoundRequest) -> Result<Self, RoundError> {
        counted("statistics of the round", request.statistics.len(), 1, MAX_STATISTICS as u64)?;
        counted("bytes of the round's state", request.state.len(), 0, MAX_STATE_BYTES as u64)?;
        let mut names = BTreeSet::new();
        let (mut entries, mut scores) = (0_u64, 0_usize);
        for statistic in &request.statistics {
            statistic.check()?;
            if !names.insert(statistic.name.as_str()) {
                return Err(RoundError::Name { name: printable(&statistic.name), why: "the name is used twice in the round" });
            }
            entries = entries.saturating_add(u64::from(statistic.length));
            if let Source::Genotypes(genotypes) = &statistic.source {
                scores = scores.saturating_add(genotypes.scores.as_slice().len());
            }
        }
        counted("scores of the round's statistics", scores, 0, MAX_SCORES as u64)?;
        counted("entries of the round's statistics", usize::try_from(entries).unwrap_or(usize::MAX), 1, MAX_ENTRIES)?;
        if !(request.budget_share > 0.0 && request.budget_share <= 1.0) {
            return Err(RoundError::Share);
        }
        // In (0, 1e9]: exact in f64, and the cast truncates.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is within 0..=1e9")]
        let share_ppb = (request.budget_share * 1e9) as u64;
        if share_ppb == 0 {
            return Err(RoundError::Share);
        }
        Ok(Self { request, share_ppb })
    }

    /// What is summed.
    #[must_use]
    pub fn statistics(&self) -> &[Statistic] {
        &self.request.statistics
    }

    /// Share of the job's budget in parts per billion, 1 to 10^9.
    #[must_use]
    pub const fn share_ppb(&self) -> u64 {
        self.share_ppb
    }

    /// The round's public state.
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.request.state
    }

    /// Whether `contribute` is shown dosages.
    #[must_use]
    pub const fn shows_dosages(&self) -> bool {
        self.request.dosages
    }

    /// Whether the host itself multiplies genotypes.
    #[must_use]
    pub fn sums_genotypes(&self) -> bool {
        self.statistics().iter().any(|statistic| statistic.genotypes().is_some())
    }

    /// Checks what needs the job's plan: that there are scores for each of so many variants, and that partitions are individuals where
    /// the host multiplies.
    ///
    /// # Errors
    /// Names the statistic.
    pub fn fits(&self, variants: usize, partitioning: Partitioning) -> Result<(), RoundError> {
        for statistic in self.statistics() {
            let number = |why| Err(RoundError::Number { name: printable(&statistic.name), why });
            let Some(genotypes) = statistic.genotypes() else { continue };
            if partitioning != Partitioning::Each {
                return number("the host multiplies the genotypes of single individuals, not of blocks");
            }
            if variants == 0 || !genotypes.scores.classes().len().is_multiple_of(variants) {
                return number("there must be four scores for each variant of the plan");
            }
        }
        Ok(())
    }

    /// The round as it travels.
    #[must_use]
    pub const fn request(&self) -> &RoundRequest {
        &self.request
    }
}

impl Statistic {
    /// What the host multiplies, if it does.
    #[must_use]
    pub const fn genotypes(&self) -> Option<&GenotypeSums> {
        match &self.source {
            Source::Given => None,
            Source::Genotypes(genotypes) => Some(genotypes),
        }
    }

    /// How many entries `contribute` gives.
    #[must_use]
    pub fn given(&self) -> usize {
        self.genotypes().map_or(self.length, |genotypes| genotypes.factors) as usize
    }

    fn check(&self) -> Result<(), RoundError> {
        let name = |why| Err(RoundError::Name { name: printable(&self.name), why });
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return name("a name has 1 to 128 bytes");
        }
        if !is_plain(&self.name) {
            return name("a name has no control characters, and none that are invisible");
        }
        let number = |why| Err(RoundError::Number { name: printable(&self.name), why });
        if self.length == 0 {
            return number("the length must be at least 1");
        }
        if !(self.weight.is_finite() && self.weight > 0.0) {
            return number("the weight must be a positive number");
        }
        if let Some(GenotypeSums { factors, scores }) = self.genotypes() {
            let (all, classes) = (scores.as_slice().len(), scores.classes().len() as u64);
            if *factors == 0 || all == 0 || !all.is_multiple_of(CLASSES) {
                return number("there must be at least one factor, and four scores for each variant");
            }
            if classes.checked_mul((*factors).into()) != Some(self.length.into()) {
                return number("its length must be the number of its factors times that of the scored variants");
            }
            if matches!(self.bound, Bound::OneCell | Bound::L1 { .. }) {
                return number("sums of genotypes are bounded by `l2`, `range` or `top`");
            }
        }
        match self.bound {
            Bound::Top { k, .. } if k == 0 || k > self.length => {
                number("a choice is of at least 1 entry, and of no more than there are")
            }
            Bound::Range { lower, upper } | Bound::Top { lower, upper, .. } => {
                if !(lower.is_finite() && upper.is_finite()) {
                    number("the bounds must be finite numbers")
                } else if !(lower <= 0.0 && upper >= 0.0) {
                    number("the range must hold 0, which stands for `no contribution`")
                } else if lower == upper {
                    number("the range is empty")
                } else {
                    Ok(())
                }
            }
            Bound::OneCell => Ok(()),
            Bound::L2 { radius } | Bound::L1 { radius } => {
                if radius.is_finite() && radius > 0.0 {
                    Ok(())
                } else {
                    number("the radius must be a positive number")
                }
            }
        }
    }
}

fn printable(text: &str) -> String {
    line(text).chars().take(80).collect()
}

impl std::fmt::Debug for RoundRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoundRequest")
            .field("statistics", &self.statistics)
            .field("budget_share", &self.budget_share)
            .field("state_bytes", &self.state.len())
            .field("dosages", &self.dosages)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> RoundRequest {
        let bound = Bound::Range { lower: -1.0, upper: 1.0 };
        RoundRequest {
            statistics: vec![Statistic { name: "n".into(), length: 1, bound, weight: 1.0, source: Source::Given }],
            budget_share: 1.0,
            state: vec![],
            dosages: true,
        }
    }

    #[test]
    fn a_good_round_keeps_its_share() {
        assert_eq!(Round::check(good()).unwrap().share_ppb(), WHOLE_SHARE_PPB);
        let third = RoundRequest { budget_share: 1.0 / 3.0, ..good() };
        assert_eq!(Round::check(third).unwrap().share_ppb(), 333_333_333);
    }

    #[test]
    fn every_limit_is_kept() {
        fn bad(code: &str, change: impl FnOnce(&mut RoundRequest)) {
            let mut request = good();
            change(&mut request);
            assert_eq!(Round::check(request).unwrap_err().code(), code);
        }
        bad("round-count", |r| r.statistics.clear());
        bad("round-number", |r| r.statistics[0].bound = Bound::Top { k: 0, lower: -1.0, upper: 1.0 });
        bad("round-number", |r| r.statistics[0].bound = Bound::Top { k: 2, lower: -1.0, upper: 1.0 });
        bad("round-number", |r| r.statistics[0].bound = Bound::Top { k: 1, lower: 1.0, upper: 2.0 });
        bad("round-count", |r| r.statistics[0].length = u32::MAX);
        bad("round-count", |r| r.state = vec![0; MAX_STATE_BYTES + 1]);
        bad("round-name", |r| r.statistics.push(r.statistics[0].clone()));
        bad("round-name", |r| r.statistics[0].name.clear());
        bad("round-name", |r| r.statistics[0].name = "a\nb".into());
        bad("round-number", |r| r.statistics[0].length = 0);
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            bad("round-number", |r| r.statistics[0].weight = weight);
        }
        let genotypes = |factors, scores: usize| Source::Genotypes(GenotypeSums { factors, scores: vec![1; scores].into() });
        let l2 = Bound::L2 { radius: 1.0 };
        for (factors, scores, length, bound) in [
            (0, 8, 0, l2),
            (1, 0, 0, l2),
            (1, 7, 1, l2),
            (2, 8, 2, l2),
            (1, 8, 2, Bound::OneCell),
            (1, 8, 2, Bound::L1 { radius: 1.0 }),
        ] {
            bad("round-number", |r| {
                r.statistics[0] =
                    Statistic { name: "g".into(), length, bound, weight: 1.0, source: genotypes(factors, scores) };
            });
        }
        bad("round-count", |r| {
            let source = genotypes(1, MAX_SCORES + 4);
            r.statistics[0] = Statistic { name: "g".into(), length: (1 << 20) + 1, bound: l2, weight: 1.0, source };
        });
        for (lower, upper) in [(1.0, 2.0), (-2.0, -1.0), (0.0, 0.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            bad("round-number", |r| r.statistics[0].bound = Bound::Range { lower, upper });
        }
        for radius in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            bad("round-number", |r| r.statistics[0].bound = Bound::L2 { radius });
            bad("round-number", |r| r.statistics[0].bound = Bound::L1 { radius });
        }
        for share in [0.0, -0.5, 1.1, f64::NAN, 1e-12] {
            bad("round-share", |r| r.budget_share = share);
        }
    }

    #[test]
    fn scores_must_fit_the_plan() {
        let source = Source::Genotypes(GenotypeSums { factors: 2, scores: vec![1; 24].into() });
        let statistic = Statistic { name: "g".into(), length: 12, bound: Bound::L2 { radius: 1.0 }, weight: 1.0, source };
        assert_eq!((statistic.given(), good().statistics[0].given()), (2, 1));
        let round = Round::check(RoundRequest { statistics: vec![statistic], ..good() }).unwrap();
        for (variants, fits) in [(1, true), (2, true), (3, true), (6, true), (0, false), (4, false), (12, false)] {
            assert_eq!(round.fits(variants, Partitioning::Each).is_ok(), fits, "{variants}");
        }
        assert!(round.fits(6, Partitioning::Blocks(2)).unwrap_err().to_string().contains("single individuals"));
        assert!(round.sums_genotypes() && Round::check(good()).unwrap().fits(0, Partitioning::Blocks(2)).is_ok());
    }
}
