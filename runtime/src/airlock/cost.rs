//! What a round's noise costs, reckoned a second time: from the bounds as they were signed and the noise as it will be drawn, without any of the
//! code that calibrated it.
//!
//! *In*: a round's statistics, their grids and noise. *Out*: the cost of all of them together. The other way round than calibration, which goes
//! from a budget to noise: so that a fault in one shows in the other. docs/PRIVACY.md, "Sensitivity", has the formulas' sources.

use vestibule_protocol::calibration::{Calibrated, NoiseScale};
use vestibule_protocol::job::Spend;
use vestibule_protocol::round::{Bound, Partitioning, Statistic};

/// Rounding of square roots and quotients, here and there.
const MARGIN: f64 = 1.0 + 1e-7;

/// How far one individual can move the sums of a statistic, in steps of its grid, on which reals are cut toward zero: in the first norm, in the
/// second, and one entry against another.
fn moved(statistic: &Statistic, partitioning: Partitioning, unit: f64) -> (f64, f64, f64) {
    let steps = |real: f64| (real / unit).trunc();
    let entries = f64::from(statistic.length);
    // Where an individual is a partition, its contribution comes or goes; where it is one of a block, that block's may become any other.
    let blocks = matches!(partitioning, Partitioning::Blocks(_));
    let twice = if blocks { 2.0 } else { 1.0 };
    match statistic.bound {
        Bound::Range { lower, upper } | Bound::Top { lower, upper, .. } => {
            let (lower, upper) = (steps(lower), steps(upper));
            let most = if blocks { upper - lower } else { f64::max(upper, -lower) };
            (entries * most, entries.sqrt() * most, twice * (upper - lower))
        }
        Bound::OneCell => (twice * steps(1.0), twice.sqrt() * steps(1.0), twice * steps(1.0)),
        Bound::L2 { radius } => (twice * steps(radius) * entries.sqrt(), twice * steps(radius), twice * 2.0 * steps(radius)),
        Bound::L1 { radius } => (twice * steps(radius), twice * steps(radius), twice * 2.0 * steps(radius)),
    }
}

/// Whether the noise of all statistics together costs no more than `spend`, and what it costs.
#[expect(clippy::cast_precision_loss, reason = "scales are below 2^48: exact")]
pub(super) fn within(
    statistics: &[Statistic],
    partitioning: Partitioning,
    calibrated: &[Calibrated],
    spend: Spend,
) -> Result<f64, &'static str> {
    if statistics.len() != calibrated.len() {
        return Err("there is noise for another number of statistics");
    }
    let mut cost = 0.0;
    for (statistic, calibrated) in statistics.iter().zip(calibrated) {
        let (first, second, width) = moved(statistic, partitioning, 2.0_f64.powi(-calibrated.log2_scale));
        cost += match (calibrated.noise, spend) {
            (NoiseScale::Gaussian { sigma }, Spend::Gaussian(_)) => (second / sigma as f64).powi(2) / 2.0,
            (NoiseScale::Laplace { scale }, Spend::Laplace(_)) => first / scale as f64,
            (NoiseScale::Choice { k, scale }, Spend::Gaussian(_)) => f64::from(k) * (width / scale as f64).powi(2) / 8.0,
            (NoiseScale::Choice { k, scale }, Spend::Laplace(_)) => f64::from(k) * width / scale as f64,
            _ => return Err("the noise is of another kind than the terms call for"),
        };
    }
    let most = match spend {
        Spend::Gaussian(rho) => rho.value(),
        Spend::Laplace(epsilon) => epsilon,
    };
    if cost.is_finite() && cost <= most * MARGIN {
        Ok(cost)
    } else {
        Err("the noise is too small for what the round may spend")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vestibule_protocol::calibration::calibrate;
    use vestibule_protocol::job::{Budget, Noise};
    use vestibule_protocol::round::{Round, RoundRequest};
    use vestibule_protocol::scores::Source;

    fn round(bounds: &[(Bound, u32)]) -> Round {
        let statistic = |(index, (bound, length)): (usize, &(Bound, u32))| Statistic {
            name: format!("s{index}"),
            length: *length,
            bound: *bound,
            weight: 1.0 + f64::from(u32::try_from(index).unwrap()),
            source: Source::Given,
        };
        let statistics = bounds.iter().enumerate().map(statistic).collect();
        Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: true }).unwrap()
    }

    /// What calibration makes of a budget costs that budget, for every bound, both kinds of partitions, both kinds of noise; and a hundredth less
    /// noise, or the same noise for a wider bound, costs too much.
    #[test]
    fn two_ways_to_reckon_agree() {
        let bounds = [
            (Bound::Range { lower: -3.0, upper: 2.0 }, 7),
            (Bound::OneCell, 20),
            (Bound::L2 { radius: 0.37 }, 50),
            (Bound::L1 { radius: 1_000.0 }, 5),
            (Bound::Top { k: 3, lower: 0.0, upper: 2.0 }, 90),
        ];
        for partitioning in [Partitioning::Each, Partitioning::Blocks(64)] {
            for (noise, delta) in [(Noise::Gaussian, 1e-6), (Noise::Laplace, 0.0)] {
                for bounds in [&bounds[..], &bounds[..1], &bounds[1..2], &bounds[2..3], &bounds[3..4], &bounds[4..]] {
                    let round = round(bounds);
                    let spend = Budget::new(noise, 1.0, delta).unwrap().round(round.share_ppb());
                    let calibrated = calibrate(&round, partitioning, spend).unwrap();
                    let cost = within(round.statistics(), partitioning, &calibrated, spend.sums()).unwrap();
                    let most = match spend.sums() {
                        Spend::Gaussian(rho) => rho.value(),
                        Spend::Laplace(epsilon) => epsilon,
                    };
                    assert!(cost > most * 0.98, "{bounds:?} {partitioning:?}: {cost} of {most}");
                    let mut less = calibrated.clone();
                    for calibrated in &mut less {
                        calibrated.noise = match calibrated.noise {
                            NoiseScale::Gaussian { sigma } => NoiseScale::Gaussian { sigma: sigma * 98 / 100 },
                            NoiseScale::Laplace { scale } => NoiseScale::Laplace { scale: scale * 98 / 100 },
                            NoiseScale::Choice { k, scale } => NoiseScale::Choice { k, scale: scale * 98 / 100 },
                        };
                    }
                    assert!(
                        within(round.statistics(), partitioning, &less, spend.sums()).is_err(),
                        "{bounds:?} {partitioning:?}"
                    );
                }
            }
        }
        let round = round(&[(Bound::Range { lower: 0.0, upper: 1.0 }, 4)]);
        let spend = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(round.share_ppb());
        let calibrated = calibrate(&round, Partitioning::Each, spend).unwrap();
        let mut wider = round.statistics().to_vec();
        wider[0].bound = Bound::Range { lower: -1.1, upper: 1.0 };
        assert!(within(&wider, Partitioning::Each, &calibrated, spend.sums()).is_err());
        // Blocks need the bound's width; what was made for everybody alone has half of it here.
        wider[0].bound = Bound::Range { lower: -1.0, upper: 1.0 };
        assert!(within(&wider, Partitioning::Blocks(9), &calibrated, spend.sums()).is_err());
    }
}
