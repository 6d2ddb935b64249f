//! The whole loop, natively.

use allele_frequency::AlleleFrequency;
use serde_json::json;
use vestibule_sdk::Variant;
use vestibule_sdk::testing::{Cohort, Noise};

fn variant(position: u64, frequency: Option<f64>) -> Variant {
    Variant { contig: "1".into(), position, reference: "A".into(), alternate: "C".into(), frequency }
}

#[test]
fn without_noise_frequencies_are_exact_and_missing_ones_follow_the_public_frequency() {
    let cohort = Cohort::new().variant(variant(10, None), [0, 1, 2, 2]).variant(variant(20, Some(0.25)), [0, 0, 2, 255]);
    let params = json!({"catalogue": "panel", "slices": [{"contig": "1", "start": 1, "end": 100}]});
    let run = cohort.run::<AlleleFrequency>(&params, Noise::Exact).unwrap();
    let frequency = run.numbers("Allele frequencies", "frequency");
    assert!((frequency[0] - 5.0 / 8.0).abs() < 1e-6, "{frequency:?}");
    assert!((frequency[1] - 2.5 / 8.0).abs() < 1e-6, "{frequency:?}");
    assert!((run.numbers("Allele frequencies", "heterozygotes")[0] - 0.25).abs() < 1e-6);
}
