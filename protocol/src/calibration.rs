//! From a round's bounds and its budget to integers and noise: the one place where a bound becomes a sensitivity.
//!
//! *In*: a [`Round`] and its [`RoundBudget`]. *Out*: one [`Calibrated`] per statistic: the public fixed-point grid, the integer
//! bounds that the reducer enforces, and the noise that makes their sum private for adding or removing one individual.
//! Sites draw by it, and a quote is made from it, so what was quoted is what is drawn. *Refuses*: noise that does not fit.
//!
//! The grid: a real x becomes trunc(x * 2^s), with s chosen so that the largest magnitude allowed lies in [2^20, 2^21).
//! Neighbours differ by one individual. Where each is a partition, that adds or removes one contribution, so a sum's sensitivity is the
//! largest norm of one; where blocks are, it changes one block's contribution to any other, so it is the diameter of what one may be
//! (docs/PRIVACY.md).

use serde::{Deserialize, Serialize};

use crate::job::{RoundBudget, Spend};
use crate::privacy::RHO_UNITS;
use crate::round::{Bound, Partitioning, Round, Statistic};
use crate::scores::{SCORE_LOG2_SCALE, Source};

/// The grid puts the largest magnitude at 2^20 to 2^21 steps.
const STEPS_LOG2: i32 = 20;
/// Where the host multiplies, factors are counted in steps of 2^-18, and products in steps of those times the scores'.
pub const FACTOR_LOG2_SCALE: i32 = 18;
/// Largest noise scale in steps. Beyond it, i64 could saturate.
const MAX_SCALE: f64 = (1_u64 << 48) as f64;

/// What the reducer enforces on one contribution, in steps of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntegerBound {
    /// Every entry within `lower..=upper`.
    Range {
        /// At most 0.
        lower: i64,
        /// At least 0.
        upper: i64,
    },
    /// Nothing, or `one` in a single cell.
    OneCell {
        /// The step that stands for 1.
        one: i64,
    },
    /// Euclidean norm.
    L2 {
        /// Largest norm.
        radius: u64,
    },
    /// Sum of magnitudes.
    L1 {
        /// Largest sum.
        radius: u64,
    },
}

/// The noise added to every entry of one statistic, in steps of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseScale {
    /// Discrete Gaussian.
    Gaussian {
        /// Sigma.
        sigma: u64,
    },
    /// Discrete Laplace.
    Laplace {
        /// The scale t: probabilities fall by exp(-1/t) a step.
        scale: u64,
    },
    /// No sum leaves: the entries that are largest with noise of this scale are chosen. The noise is Gumbel's, so that they are chosen as
    /// if one after the other, each with a probability that falls by exp(-1/scale) for every step that its sum is smaller (the
    /// exponential mechanism); geometric where the target is pure (docs/PRIVACY.md, "Choices").
    Choice {
        /// How many.
        k: u32,
        /// The scale.
        scale: u64,
    },
}

/// One statistic, ready to be enforced, summed and noised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    /// Number of entries.
    pub length: u32,
    /// A real is its steps times 2^-s.
    pub log2_scale: i32,
    /// What one contribution may be.
    pub bound: IntegerBound,
    /// How far one individual can move the sum.
    pub reach: Reach,
    /// What is added to the sum.
    pub noise: NoiseScale,
    /// What the noise must guarantee for this statistic.
    pub target: Target,
    /// Where its entries come from.
    pub source: Source,
}

/// The privacy target of one statistic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// zCDP rho.
    Rho(f64),
    /// Pure epsilon.
    Epsilon(f64),
}

/// A statistic whose noise cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("statistic `{name}`: {why}")]
pub struct CalibrationError {
    /// The statistic.
    pub name: String,
    /// What is wrong and what to do.
    pub why: &'static str,
}

impl CalibrationError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "noise-impossible"
    }
}

/// Calibrates every statistic of a round.
///
/// # Errors
/// A bound or a budget share so extreme that the noise does not fit the grid.
pub fn calibrate(round: &Round, partitioning: Partitioning, budget: RoundBudget) -> Result<Vec<Calibrated>, CalibrationError> {
    let weights: f64 = round.statistics().iter().map(|statistic| statistic.weight).sum();
    let one = |statistic: &Statistic| one(statistic, partitioning, statistic.weight / weights, budget.sums());
    round.statistics().iter().map(one).collect()
}

fn one(statistic: &Statistic, partitioning: Partitioning, part: f64, spend: Spend) -> Result<Calibrated, CalibrationError> {
    let fail = |why| CalibrationError { name: statistic.name.clone(), why };
    let log2_scale = match statistic.source {
        Source::Given => grid(&statistic.bound),
        Source::Genotypes(_) => products(&statistic.bound),
    };
    let log2_scale = log2_scale.ok_or_else(|| fail("the bound is too large or too small: rescale the statistic"))?;
    let bound = integer_bound(&statistic.bound, log2_scale);
    let reach = Reach::of(&bound, statistic.length, partitioning);
    let (noise, target) = match spend {
        // Each choice of width w at scale t costs (w / t)^2 / 8 (Dong, Durfee and Rogers 2020; OpenDP's map), or w / t pure
        // (docs/PRIVACY.md, "Choices").
        Spend::Gaussian(rho) if let Bound::Top { k, .. } = statistic.bound => {
            let rho = (rho.value() * part * (1.0 - 1e-9) * RHO_UNITS).floor() / RHO_UNITS;
            let scale = scale(reach.width * (f64::from(k) / (8.0 * rho)).sqrt()).ok_or_else(|| fail(TOO_LITTLE))?;
            (NoiseScale::Choice { k, scale }, Target::Rho(rho))
        }
        Spend::Laplace(epsilon) if let Bound::Top { k, .. } = statistic.bound => {
            let epsilon = epsilon * part * (1.0 - 1e-9);
            let scale = scale(reach.width * f64::from(k) / epsilon).ok_or_else(|| fail(TOO_LITTLE))?;
            (NoiseScale::Choice { k, scale }, Target::Epsilon(epsilon))
        }
        Spend::Gaussian(rho) => {
            // A part in 10^9 less than the share, so that the floating-point division cannot pass it.
            let rho = (rho.value() * part * (1.0 - 1e-9) * RHO_UNITS).floor() / RHO_UNITS;
            let sigma = reach.l2 / (2.0 * rho).sqrt();
            let sigma = scale(sigma).ok_or_else(|| fail(TOO_LITTLE))?;
            (NoiseScale::Gaussian { sigma }, Target::Rho(rho))
        }
        Spend::Laplace(epsilon) => {
            let epsilon = epsilon * part * (1.0 - 1e-9);
            let scale = scale(reach.l1 / epsilon).ok_or_else(|| fail(TOO_LITTLE))?;
            (NoiseScale::Laplace { scale }, Target::Epsilon(epsilon))
        }
    };
    let source = statistic.source.clone();
    Ok(Calibrated { length: statistic.length, log2_scale, bound, reach, noise, target, source })
}

const TOO_LITTLE: &str =
    "its share of the budget is too small for noise that fits: ask for fewer entries, a larger share or a larger epsilon";

/// The next whole number of steps, and one more so that upward rounding in any later check cannot pass the target.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie within 0..2^48")]
fn scale(exact: f64) -> Option<u64> {
    (exact.is_finite() && exact < MAX_SCALE).then(|| exact.ceil() as u64 + 1)
}

/// The grid of products, where it is fine enough for the bound: one step of the grid must not be more than a millionth of what one entry or
/// the whole vector may be, and all must fit 64 bits.
fn products(bound: &Bound) -> Option<i32> {
    let smallest = match *bound {
        Bound::Range { lower, upper } | Bound::Top { lower, upper, .. } => upper.min(-lower),
        Bound::L2 { radius } => radius,
        Bound::OneCell | Bound::L1 { .. } => return None,
    };
    (f64::from(STEPS_LOG2 - PRODUCT_LOG2_SCALE).exp2()..=f64::from(20).exp2()).contains(&smallest).then_some(PRODUCT_LOG2_SCALE)
}

const PRODUCT_LOG2_SCALE: i32 = FACTOR_LOG2_SCALE + SCORE_LOG2_SCALE;

/// The s for which the bound's largest magnitude times 2^s lies in [2^20, 2^21).
fn grid(bound: &Bound) -> Option<i32> {
    let largest = match *bound {
        Bound::Range { lower, upper } | Bound::Top { lower, upper, .. } => upper.max(-lower),
        Bound::OneCell => 1.0,
        Bound::L2 { radius } | Bound::L1 { radius } => radius,
    };
    #[expect(clippy::cast_possible_truncation, reason = "log2 of a finite positive f64 lies within -1075..1024")]
    let exponent = largest.log2().floor() as i32;
    (-200..=200).contains(&exponent).then_some(STEPS_LOG2 - exponent)
}

/// `x` in steps, rounded toward zero. Saturates; a NaN is 0.
#[must_use]
pub fn to_steps(x: f64, log2_scale: i32) -> i64 {
    whole(x * steps_per_unit(log2_scale))
}

/// Steps in 1: a power of two, so that multiplying by it rounds nothing.
#[must_use]
pub fn steps_per_unit(log2_scale: i32) -> f64 {
    f64::from(log2_scale).exp2()
}

/// Rounded toward zero. Saturates; a NaN is 0.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "float to integer casts truncate, saturate, and make NaN 0: all wanted")]
pub const fn whole(steps: f64) -> i64 {
    steps as i64
}

/// Steps as a real.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "released values carry noise far above the last bit")]
pub fn to_real(steps: i64, log2_scale: i32) -> f64 {
    steps as f64 * f64::from(-log2_scale).exp2()
}

fn integer_bound(bound: &Bound, log2_scale: i32) -> IntegerBound {
    match *bound {
        Bound::Range { lower, upper } | Bound::Top { lower, upper, .. } => {
            IntegerBound::Range { lower: to_steps(lower, log2_scale), upper: to_steps(upper, log2_scale) }
        }
        Bound::OneCell => IntegerBound::OneCell { one: to_steps(1.0, log2_scale) },
        Bound::L2 { radius } => IntegerBound::L2 { radius: to_steps(radius, log2_scale).unsigned_abs() },
        Bound::L1 { radius } => IntegerBound::L1 { radius: to_steps(radius, log2_scale).unsigned_abs() },
    }
}

/// How far one individual can move a sum, in steps: the sensitivities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reach {
    /// Sum of magnitudes.
    pub l1: f64,
    /// Euclidean norm.
    pub l2: f64,
    /// How far one entry's sum can gain on another's.
    pub width: f64,
}

impl Reach {
    /// Of any vector of `length` entries that obeys `bound`; for blocks, of any difference of two.
    #[must_use]
    pub fn of(bound: &IntegerBound, length: u32, partitioning: Partitioning) -> Self {
        match partitioning {
            Partitioning::Each => Self::norms(bound, length),
            Partitioning::Blocks(_) => Self::diameters(bound, length),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "magnitudes are below 2^21 and lengths below 2^32: exact")]
    fn norms(bound: &IntegerBound, length: u32) -> Self {
        let d = f64::from(length);
        match *bound {
            IntegerBound::Range { lower, upper } => {
                let largest = lower.unsigned_abs().max(upper.unsigned_abs()) as f64;
                Self { l1: d * largest, l2: d.sqrt() * largest * UP, width: upper.abs_diff(lower) as f64 }
            }
            IntegerBound::OneCell { one } => Self { l1: one as f64, l2: one as f64, width: one as f64 },
            // |x|_1 <= sqrt(d) |x|_2, and for integer vectors |x|_1 <= |x|_2^2.
            IntegerBound::L2 { radius } => {
                Self { l1: d.sqrt() * radius as f64 * UP, l2: radius as f64, width: 2.0 * radius as f64 }
            }
            IntegerBound::L1 { radius } => Self { l1: radius as f64, l2: radius as f64, width: 2.0 * radius as f64 },
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "magnitudes are below 2^22 and lengths below 2^32: exact")]
    fn diameters(bound: &IntegerBound, length: u32) -> Self {
        let (d, Self { l1, l2, width }) = (f64::from(length), Self::norms(bound, length));
        match *bound {
            // Every entry moves from one end to the other.
            IntegerBound::Range { lower, upper } => {
                let side = upper.abs_diff(lower) as f64;
                Self { l1: d * side, l2: d.sqrt() * side * UP, width: 2.0 * side }
            }
            // From one cell to another.
            IntegerBound::OneCell { .. } => Self { l1: 2.0 * l1, l2: std::f64::consts::SQRT_2 * l2 * UP, width: 2.0 * width },
            // To the opposite.
            IntegerBound::L2 { .. } | IntegerBound::L1 { .. } => Self { l1: 2.0 * l1, l2: 2.0 * l2, width: 2.0 * width },
        }
    }
}

/// Covers the rounding of a square root and a product.
const UP: f64 = 1.0 + 4.0 * f64::EPSILON;

impl NoiseScale {
    /// Standard deviation in steps; 0 for a choice, to which nothing is added.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "scales are below 2^48: exact")]
    pub fn sd_steps(&self) -> f64 {
        match *self {
            // The discrete Gaussian's variance is below sigma^2, by less than 1e-8 of it from sigma = 2 on (CKS 2020, cor. 9).
            Self::Gaussian { sigma } => sigma as f64,
            // Variance 2 e^(-1/t) / (1 - e^(-1/t))^2.
            Self::Laplace { scale } => {
                let fall = (-1.0 / scale as f64).exp();
                (2.0 * fall).sqrt() / (1.0 - fall)
            }
            Self::Choice { .. } => 0.0,
        }
    }
}

impl Calibrated {
    /// The grid of what is released: that of the sums, or whole numbers where entries are chosen.
    #[must_use]
    pub const fn released_log2_scale(&self) -> i32 {
        match self.noise {
            NoiseScale::Choice { .. } => 0,
            NoiseScale::Gaussian { .. } | NoiseScale::Laplace { .. } => self.log2_scale,
        }
    }

    /// Of a choice: by how much sums must differ, in the statistic's own unit, for the larger to be preferred e to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "scales are below 2^48: exact")]
    pub fn choice_scale(&self) -> Option<f64> {
        match self.noise {
            NoiseScale::Choice { scale, .. } => Some(scale as f64 * f64::from(-self.log2_scale).exp2()),
            NoiseScale::Gaussian { .. } | NoiseScale::Laplace { .. } => None,
        }
    }

    /// Standard deviation of the noise on each entry, in the statistic's own unit.
    #[must_use]
    pub fn noise_sd(&self) -> f64 {
        self.noise.sd_steps() * f64::from(-self.log2_scale).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Budget, Noise};
    use crate::round::RoundRequest;

    fn round(statistics: &[(u32, Bound, f64)]) -> Round {
        let statistics = statistics.iter().enumerate();
        let statistics = statistics.map(|(i, &(length, bound, weight))| Statistic {
            name: format!("s{i}"),
            length,
            bound,
            weight,
            source: Source::Given,
        });
        Round::check(RoundRequest { statistics: statistics.collect(), budget_share: 1.0, state: vec![], dosages: true })
            .unwrap()
    }

    #[test]
    fn known_noise_of_known_bounds() {
        // epsilon 1, delta 1e-6: rho 0.0244, of which a twentieth pays for the moment of release; a histogram has L2 sensitivity 1,
        // so sd = 1 / sqrt(2 * 0.95 rho) = 4.65.
        let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(1_000_000_000);
        let sd = |length, bound| calibrate(&round(&[(length, bound, 1.0)]), Partitioning::Each, budget).unwrap()[0].noise_sd();
        let unit = 1.0 / (2.0 * 0.95 * budget.charge().value()).sqrt();
        assert!((unit - 4.65).abs() < 0.02, "{unit}");
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-5, "{got} is not {want}");
        near(sd(10, Bound::OneCell), unit);
        near(sd(1, Bound::Range { lower: 0.0, upper: 2.0 }), 2.0 * unit);
        near(sd(100, Bound::Range { lower: -1.0, upper: 1.0 }), 10.0 * unit);
        near(sd(100, Bound::L2 { radius: 3.0 }), 3.0 * unit);
        near(sd(100, Bound::L1 { radius: 3.0 }), 3.0 * unit);
    }

    /// Every pair of vectors at the corners of what a contribution may be: none is further apart than the diameters say, and some pair
    /// is as far.
    #[test]
    fn blocks_are_apart_by_the_diameter() {
        let corners = |bound: &IntegerBound| -> Vec<[i64; 2]> {
            match *bound {
                IntegerBound::Range { lower: l, upper: u } => vec![[l, l], [l, u], [u, l], [u, u], [0, 0]],
                IntegerBound::OneCell { one } => vec![[0, 0], [one, 0], [0, one]],
                IntegerBound::L1 { radius } => {
                    let r = radius.cast_signed();
                    vec![[0, 0], [r, 0], [0, r], [-r, 0], [0, -r]]
                }
                IntegerBound::L2 { radius } => {
                    let (r, half) = (radius.cast_signed(), (radius as f64 / std::f64::consts::SQRT_2) as i64);
                    vec![[0, 0], [r, 0], [-r, 0], [half, half], [-half, -half]]
                }
            }
        };
        for bound in [
            Bound::Range { lower: -0.5, upper: 2.0 },
            Bound::OneCell,
            Bound::L1 { radius: 1.5 },
            Bound::L2 { radius: 3.0 },
            Bound::Top { k: 1, lower: -1.0, upper: 0.5 },
        ] {
            let bound = integer_bound(&bound, grid(&bound).unwrap());
            let reach = Reach::of(&bound, 2, Partitioning::Blocks(7));
            let (mut l1, mut l2, mut width) = (0.0_f64, 0.0_f64, 0.0_f64);
            for a in corners(&bound) {
                for b in corners(&bound) {
                    let (x, y) = ((a[0] - b[0]) as f64, (a[1] - b[1]) as f64);
                    l1 = l1.max(x.abs() + y.abs());
                    l2 = l2.max(x.hypot(y));
                    width = width.max((x - y).abs());
                }
            }
            for (found, says) in [(l1, reach.l1), (l2, reach.l2), (width, reach.width)] {
                assert!(found <= says, "{bound:?}: {found} is more than {says}");
            }
            assert!(l1 > reach.l1 * 0.999_99 && l2 > reach.l2 * 0.999_99, "{bound:?}: {l1} {l2} {reach:?}");
        }
    }

    #[test]
    fn laplace_follows_l1() {
        let budget = Budget::new(Noise::Laplace, 1.0, 0.0).unwrap().round(1_000_000_000);
        let sd = |length, bound| calibrate(&round(&[(length, bound, 1.0)]), Partitioning::Each, budget).unwrap()[0].noise_sd();
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-5, "{got} is not {want}");
        near(sd(10, Bound::OneCell), 2.0_f64.sqrt() / 0.95);
        near(sd(10, Bound::Range { lower: 0.0, upper: 2.0 }), 20.0 * 2.0_f64.sqrt() / 0.95);
        near(sd(4, Bound::L2 { radius: 1.0 }), 2.0 * 2.0_f64.sqrt() / 0.95);
    }

    #[test]
    fn the_statistics_together_cost_no_more_than_the_round() {
        let budget = Budget::new(Noise::Gaussian, 0.5, 1e-6).unwrap().round(333_333_333);
        let range = Bound::Range { lower: -0.1, upper: 7.3 };
        let all = calibrate(
            &round(&[(3, range, 0.7), (11, Bound::OneCell, 5.0), (2, Bound::L2 { radius: 1e-9 }, 1e-3)]),
            Partitioning::Each,
            budget,
        )
        .unwrap();
        let spent: f64 = all
            .iter()
            .map(|c| {
                let NoiseScale::Gaussian { sigma } = c.noise else { panic!("gaussian") };
                let reach = c.reach.l2;
                assert!(c.log2_scale >= 17 && reach >= 1_048_575.0);
                reach * reach / (2.0 * (sigma as f64) * (sigma as f64))
            })
            .sum();
        let Spend::Gaussian(sums) = budget.sums() else { panic!("gaussian") };
        assert!(spent <= sums.value(), "{spent}");
        assert!(spent >= sums.value() * 0.999, "{spent}");
    }

    #[test]
    fn extremes_are_refused() {
        let tiny = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(1);
        assert_eq!(
            calibrate(&round(&[(1, Bound::OneCell, 1e-12), (1, Bound::OneCell, 1.0)]), Partitioning::Each, tiny)
                .unwrap_err()
                .code(),
            "noise-impossible"
        );
        let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(1_000_000_000);
        for radius in [1e300, 1e-300] {
            assert!(calibrate(&round(&[(1, Bound::L2 { radius }, 1.0)]), Partitioning::Each, budget).is_err());
        }
    }

    #[test]
    fn steps_truncate_toward_zero_and_saturate() {
        assert_eq!(to_steps(0.999, 0), 0);
        assert_eq!(to_steps(-1.999, 0), -1);
        assert_eq!(to_steps(f64::NAN, 20), 0);
        assert_eq!(to_steps(f64::INFINITY, 20), i64::MAX);
        assert!((to_real(to_steps(1.25, 20), 20) - 1.25).abs() < 1e-12);
    }
}
