//! The whole loop, natively: a planted effect is found through the noise of five sites.

use linear_association::LinearAssociation;
use serde_json::json;
use vestibule_sdk::Variant;
use vestibule_sdk::testing::{Cohort, Noise, rho};

/// xorshift64*: uniform numbers, the same in every run.
fn uniforms() -> impl FnMut() -> f64 {
    let mut state = 0x1234_5678_9abc_def1_u64;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / 9_007_199_254_740_992.0
    }
}

#[test]
fn a_planted_effect_is_the_strongest_and_its_size_is_right() {
    let mut uniform = uniforms();
    let people = 2_000;
    let dosages: Vec<Vec<u8>> =
        (0..20).map(|_| (0..people).map(|_| (0..2).filter(|_| uniform() < 0.4).count() as u8).collect()).collect();
    let ages: Vec<f64> = (0..people).map(|_| 30.0 + 50.0 * uniform()).collect();
    // Twelve uniforms less six are close to a standard normal.
    let mut trait_of = |person: usize| {
        let noise: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        0.5 * f64::from(dosages[7][person]) + 0.02 * (ages[person] - 55.0) + noise
    };
    let traits: Vec<f64> = (0..people).map(&mut trait_of).collect();
    let mut cohort = Cohort::new().number("age", 18.0, 100.0, ages.iter().copied().map(Some));
    cohort = cohort.number("trait", -6.0, 6.0, traits.iter().copied().map(Some));
    for (position, dosages) in (1_u64..).zip(&dosages) {
        let variant = Variant { contig: "1".into(), position, reference: "A".into(), alternate: "C".into(), frequency: None };
        cohort = cohort.variant(variant, dosages.iter().copied());
    }
    let params = json!({"outcome": "trait", "covariates": ["age"], "catalogue": "panel", "slices": [["1", 1, 100]]});
    for noise in [Noise::Exact, Noise::Gaussian { rho: rho(4.0, 1e-6), sites: 5, seed: 3 }] {
        let run = cohort.run::<LinearAssociation>(&params, noise).unwrap();
        let z = run.numbers("Associations", "z");
        let strongest = (0..z.len()).max_by(|a, b| z[*a].abs().total_cmp(&z[*b].abs())).unwrap();
        assert_eq!(strongest, 7, "{z:?}");
        let beta = run.numbers("Associations", "beta")[7];
        // Residuals are clipped, so the estimate leans a little toward zero.
        assert!((0.35..0.65).contains(&beta), "{beta}");
    }
}
