//! The whole loop on made-up genotypes: exact without noise, within its own error bars with it, Hardy-Weinberg both ways.

use allele_frequency::AlleleFrequency;
use serde_json::json;
use vestibule_sdk::Variant;
use vestibule_sdk::testing::{Cohort, Gauss, Noise, Outcome, rho};

const PEOPLE: usize = 1_500;
const TABLE: &str = "Allele frequencies";

/// 40 variants in Hardy-Weinberg proportions, and one more without a single heterozygote.
fn genotypes() -> Vec<Vec<u8>> {
    let mut draw = Gauss::new(5);
    let mut all: Vec<Vec<u8>> = (0..40)
        .map(|at| {
            let p = 0.05 + 0.01 * f64::from(at);
            (0..PEOPLE).map(|_| u8::from(draw.uniform() < p) + u8::from(draw.uniform() < p)).collect()
        })
        .collect();
    all.push((0..PEOPLE).map(|at| if at % 3 == 0 { 2 } else { 0 }).collect());
    all
}

fn cohort(genotypes: &[Vec<u8>]) -> Cohort {
    let variant = |at: usize| Variant {
        contig: "1".into(),
        position: 100 + at as u64,
        reference: "A".into(),
        alternate: "G".into(),
        frequency: Some(0.25),
    };
    genotypes
        .iter()
        .enumerate()
        .fold(Cohort::new(), |cohort, (at, dosages)| cohort.variant(variant(at), dosages.iter().copied()))
}

fn run(genotypes: &[Vec<u8>], noise: Noise) -> Outcome {
    let params = json!({"catalogue": "c", "slices": [{"contig": "1", "start": 1, "end": 1_000}]});
    cohort(genotypes).run::<AlleleFrequency>(&params, noise).unwrap()
}

fn frequency(dosages: &[u8]) -> f64 {
    dosages.iter().map(|&g| f64::from(g)).sum::<f64>() / (2.0 * dosages.len() as f64)
}

#[test]
fn without_noise_the_frequencies_are_exact_and_nobody_is_clipped() {
    let genotypes = genotypes();
    let run = run(&genotypes, Noise::Exact);
    for (got, dosages) in run.numbers(TABLE, "frequency").iter().zip(&genotypes) {
        assert!((got - frequency(dosages)).abs() < 1e-12);
    }
    assert_eq!((run.rounds[0].clipped.as_slice(), run.rounds[0].ignored), ([0, 0].as_slice(), 0));
    let p = run.numbers(TABLE, "HWE p");
    assert!(p[40] < 1e-100, "no heterozygotes at all: {}", p[40]);
    // Of 40 p-values about 2 are below 0.05; 9 or more would be a chance of 1 in 10,000.
    assert!(p[..40].iter().filter(|p| **p < 0.05).count() < 9);
    assert_eq!(run.texts(TABLE, "HWE reliable")[20], "yes");
}

/// (estimate - truth) / sd over 41 variants and 50 seeds is chi-square with 2,050 degrees of freedom: 2050 +- 64. The people's
/// count is shared by the variants of a run, so six of those.
#[test]
fn with_noise_the_error_bars_are_right() {
    let genotypes = genotypes();
    let (mut chi, mut low) = (0.0, 0);
    for seed in 0..50 {
        let run = run(&genotypes, Noise::Gaussian { rho: rho(2.0, 1e-6), sites: 4, seed });
        let (values, sds) = (run.numbers(TABLE, "frequency"), run.numbers(TABLE, "frequency sd"));
        for ((value, sd), dosages) in values.iter().zip(sds).zip(&genotypes) {
            chi += ((value - frequency(dosages)) / sd).powi(2);
        }
        low += run.numbers(TABLE, "HWE p")[..40].iter().filter(|p| **p < 0.05).count();
    }
    assert!((chi - 2_050.0).abs() < 6.0 * 64.0, "{chi}");
    // The noise is in the Hardy-Weinberg test too: about 100 of 2,000 below 0.05, not many more.
    assert!((30..180).contains(&low), "{low}");
}

/// A tenth missing at random: taken for the public frequency, so pulled toward it by a tenth of the distance, as the README says.
#[test]
fn missing_genotypes_pull_toward_the_public_frequency() {
    let mut genotypes = genotypes();
    let before: Vec<f64> = genotypes.iter().map(|dosages| frequency(dosages)).collect();
    genotypes.iter_mut().for_each(|dosages| dosages.iter_mut().skip(4).step_by(10).for_each(|g| *g = 255));
    let run = run(&genotypes, Noise::Exact);
    for (got, before) in run.numbers(TABLE, "frequency").iter().zip(before) {
        assert!((got - (0.9 * before + 0.1 * 0.25)).abs() < 0.012, "{got} {before}");
    }
    assert_eq!(run.rounds[0].clipped, [0, 0]);
}

#[test]
fn bad_parameters_are_named() {
    let run = |params| cohort(&genotypes()).run::<AlleleFrequency>(&params, Noise::Exact).unwrap_err().to_string();
    assert!(run(json!({"catalogue": "c", "slices": []})).contains("`slices` is empty"));
    assert!(run(json!({"catalogue": "c", "slices": [{"contig": "1", "start": -1, "end": 5}]})).contains("`slices[0].start`"));
    assert!(run(json!({"catalogue": "c", "slices": [["2", 1, 5]]})).contains("2:1-5"));
}
