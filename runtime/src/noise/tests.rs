//! The noise as sites draw it. Of choices: `choices.rs`.

mod choices;

use super::check::{DRAWS, chi_square};
use super::*;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::job::{Budget, Noise};
use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;

fn entries(drawn: &Drawn) -> &[i64] {
    let Draw::Noise(noise) = &drawn.draws[0] else { panic!("noise") };
    noise
}

fn calibrated(noise: Noise, delta: f64, length: u32, bound: Bound) -> Vec<Calibrated> {
    let statistics = vec![Statistic { name: "s".into(), length, bound, weight: 1.0, source: Source::Given }];
    let round = Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: true }).unwrap();
    calibrate(&round, Partitioning::Each, Budget::new(noise, 1.0, delta).unwrap().round(1_000_000_000)).unwrap()
}

#[test]
fn the_self_test_passes_and_sees_a_wrong_scale() {
    self_test().unwrap();
    let draws = gaussian(7.0 / 3.0).unwrap().invoke(&vec![0; DRAWS]).unwrap();
    // Noise of half the promised variance.
    assert!(chi_square(&draws, |x| (-x * x / (7.0_f64 / 3.0).powi(2)).exp()).is_err());
    // Noise off by one step.
    let shifted: Vec<i64> = draws.iter().map(|draw| draw + 1).collect();
    assert!(chi_square(&shifted, |x| (-x * x / (2.0 * (7.0_f64 / 3.0).powi(2))).exp()).is_err());
}

/// The variance of n draws lies within 6 standard errors (sd of a variance estimate: sqrt(2/n) for
/// a Gaussian, sqrt(5/n) for a Laplace): a false alarm about once in 10^8 runs.
#[test]
fn noise_has_the_variance_that_was_calibrated() {
    for (noise, delta, kurtosis) in [(Noise::Gaussian, 1e-6, 2.0), (Noise::Laplace, 0.0, 5.0)] {
        let calibrated = calibrated(noise, delta, 10_000, Bound::L1 { radius: 1.0 });
        let drawn = draw(&calibrated, 2).unwrap();
        let sd = calibrated[0].noise.sd_steps();
        let n = entries(&drawn).len() as f64;
        let mean = entries(&drawn).iter().map(|&x| x as f64).sum::<f64>() / n;
        let variance = entries(&drawn).iter().map(|&x| (x as f64 / sd).powi(2)).sum::<f64>() / n;
        assert!((mean / sd).abs() < 6.0 / n.sqrt(), "{noise:?}: mean {mean}");
        assert!((variance - 1.0).abs() < 6.0 * (kurtosis / n).sqrt(), "{noise:?}: variance {variance}");
    }
}

#[test]
fn noise_is_fresh_and_independent_of_how_it_is_split() {
    let calibrated = calibrated(Noise::Gaussian, 1e-6, 9_000, Bound::OneCell);
    let (one, two) = (draw(&calibrated, 1).unwrap(), draw(&calibrated, 3).unwrap());
    assert_eq!((entries(&one).len(), entries(&two).len()), (9_000, 9_000));
    let same = entries(&one).iter().zip(entries(&two)).filter(|(a, b)| a == b).count();
    assert!(same < 10, "{same} of 9,000 entries are the same");
    // No part of one draw repeats another part.
    assert!(entries(&two)[..3_000] != entries(&two)[3_000..6_000]);
}

/// The conversion that budgets are reckoned by against OpenDP's (both by Canonne, Kamath and
/// Steinke 2020, proposition 12).
#[test]
fn epsilon_of_rho_is_what_opendp_says() {
    for (sigma, delta) in [(0.9, 1e-6), (3.0, 1e-6), (10.0, 1e-5), (40.0, 1e-9), (150.0, 1e-6)] {
        let converted = opendp::combinators::make_zCDP_to_approxDP(gaussian(sigma).unwrap()).unwrap();
        let theirs = converted.map(&1.0).unwrap().epsilon(delta).unwrap();
        let ours = vestibule_protocol::privacy::Rho::from_pico((1e12 / (2.0 * sigma * sigma)).ceil() as u64).epsilon(delta);
        // Ours is rounded up in the sixth digit after the point.
        assert!((ours - theirs).abs() < 2e-6 + 1e-5 * theirs, "sigma {sigma}, delta {delta}: {ours} and {theirs}");
    }
}

#[test]
fn a_scale_that_is_too_small_is_refused() {
    let mut calibrated = calibrated(Noise::Gaussian, 1e-6, 1, Bound::OneCell);
    let NoiseScale::Gaussian { sigma } = calibrated[0].noise else { panic!("gaussian") };
    calibrated[0].noise = NoiseScale::Gaussian { sigma: sigma / 2 };
    assert_eq!(draw(&calibrated, 1).unwrap_err(), NoiseError::TooSmall);
    for (noise, delta) in [(Noise::Gaussian, 1e-6), (Noise::Laplace, 0.0)] {
        let mut calibrated = tests::calibrated(noise, delta, 9, Bound::Top { k: 3, lower: -1.0, upper: 1.0 });
        draw(&calibrated, 1).unwrap();
        let NoiseScale::Choice { k, scale } = calibrated[0].noise else { panic!("a choice") };
        calibrated[0].noise = NoiseScale::Choice { k, scale: scale / 2 };
        assert_eq!(draw(&calibrated, 1).unwrap_err(), NoiseError::TooSmall);
    }
}
