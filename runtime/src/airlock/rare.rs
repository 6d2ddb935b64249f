//! Which numbers of a release say of a variant that few people carry it.
//!
//! *In*: the signed statistics, their noise, the noised numbers, how many variants the job reads. *Out*: a count of numbers. It follows from noised numbers
//! and public terms, so it costs no privacy. *Cannot see*: what a component means by its numbers. Those are looked at that the signed terms call counts, of
//! as many entries as there are variants (or a multiple); a frequency that is made of other sums (centred genotypes, as `allele-frequency` has them) is not
//! known for what it is, nor is one that the component hides in another shape. What protects in all cases is the noise.

use vestibule_protocol::calibration::{Calibrated, to_real};
use vestibule_protocol::release::Rounding;
use vestibule_protocol::round::Statistic;

/// Below so many alleles, a variant is rare here: ten people who have two, twenty who have one.
pub(crate) const RARE_ALLELES: f64 = 20.0;

/// How many of the numbers are counts for a variant that are below [`RARE_ALLELES`] by two standard deviations of their noise.
pub(super) fn rare((asked, agreed): (&Statistic, &Calibrated), steps: &[i64], variants: usize) -> usize {
    if !tells((asked, agreed), variants) {
        return 0;
    }
    let doubt = 2.0 * sd(agreed);
    steps.iter().filter(|step| to_real(**step, agreed.log2_scale) + doubt < RARE_ALLELES).count()
}

/// How many could be, whatever they are.
pub(crate) fn could_be_rare((asked, agreed): (&Statistic, &Calibrated), variants: usize) -> usize {
    if tells((asked, agreed), variants) { agreed.length as usize } else { 0 }
}

/// Whether a statistic's numbers are counts for variants, with so little noise that one could tell that one is rare.
fn tells((asked, agreed): (&Statistic, &Calibrated), variants: usize) -> bool {
    let for_variants = variants > 0 && (agreed.length as usize).is_multiple_of(variants);
    for_variants && Rounding::is_for(&asked.bound) && 2.0 * sd(agreed) < RARE_ALLELES
}

fn sd(agreed: &Calibrated) -> f64 {
    agreed.noise.sd_steps() * to_real(1, agreed.log2_scale)
}

#[cfg(test)]
mod tests {
    use vestibule_protocol::calibration::calibrate;
    use vestibule_protocol::job::{Budget, Noise};
    use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest};
    use vestibule_protocol::scores::Source;

    use super::*;

    /// Four entries within a bound, and their noise at an epsilon.
    fn terms(bound: Bound, epsilon: f64) -> (Statistic, Calibrated) {
        let statistic = Statistic { name: "s".into(), length: 4, bound, weight: 1.0, source: Source::Given };
        let request = RoundRequest { statistics: vec![statistic.clone()], budget_share: 1.0, state: vec![], dosages: true };
        let round = Round::check(request).unwrap();
        let budget = Budget::new(Noise::Gaussian, epsilon, 1e-6).unwrap().round(round.share_ppb());
        (statistic, calibrate(&round, Partitioning::Each, budget).unwrap().remove(0))
    }

    #[test]
    fn only_counts_for_variants_that_the_noise_lets_one_tell_are_rare() {
        let alleles = Bound::Range { lower: 0.0, upper: 2.0 };
        let found = |bound: Bound, epsilon: f64, values: [f64; 4], variants: usize| {
            let (asked, agreed) = terms(bound, epsilon);
            let one = 1.0 / to_real(1, agreed.log2_scale);
            #[expect(clippy::cast_possible_truncation, reason = "far below 2^53")]
            let steps = values.map(|value| (value * one) as i64);
            let (rare, most) = (rare((&asked, &agreed), &steps, variants), could_be_rare((&asked, &agreed), variants));
            assert!(rare <= most);
            (rare, most)
        };
        let (_, precise) = terms(alleles, 8.0);
        let edge = RARE_ALLELES - 2.0 * sd(&precise);
        assert!(edge > 5.0, "{edge}");
        // At the edge, beside it, far from it.
        assert_eq!(found(alleles, 8.0, [edge - 0.01, edge + 0.01, -3.0, 500.0], 4), (2, 4));
        assert_eq!(found(alleles, 8.0, [0.0; 4], 2), (4, 4), "two numbers for each variant");
        // Not for variants; none are read; too noisy to tell; no counts.
        assert_eq!(found(alleles, 8.0, [0.0; 4], 3), (0, 0));
        assert_eq!(found(alleles, 8.0, [0.0; 4], 0), (0, 0));
        assert_eq!(found(alleles, 0.5, [0.0; 4], 4), (0, 0));
        assert_eq!(found(Bound::Range { lower: -1.0, upper: 2.0 }, 8.0, [0.0; 4], 4), (0, 0));
        assert_eq!(found(Bound::L2 { radius: 2.0 }, 8.0, [0.0; 4], 4), (0, 0));
        assert_eq!(found(Bound::Top { k: 1, lower: 0.0, upper: 2.0 }, 8.0, [0.0; 4], 4), (0, 0));
    }
}
