//! Choices against exact probabilities, at their edges, and against their proofs' constants.

use super::super::check::{choices, gumbels, peeled};
use super::super::choice::{DELTA, geometric};
use super::super::gumbel::{self, SCALES, UNITS_LOG2};
use super::*;
use crate::delay::DELTA_FEMTO;

/// The noise of a choice of `k` as it is calibrated and drawn for a job, on several threads, and
/// its scale.
fn drawn(noise: Noise, k: u32, entries: u32) -> (Vec<i128>, i64) {
    let delta = if noise == Noise::Laplace { 0.0 } else { 1e-6 };
    let calibrated = calibrated(noise, delta, entries, Bound::Top { k, lower: -1.0, upper: 1.0 });
    let NoiseScale::Choice { k: found, scale } = calibrated[0].noise else { panic!("a choice") };
    let Draw::Choice(choice) = draw(&calibrated, 3).unwrap().draws.remove(0) else { panic!("a choice") };
    assert_eq!((found, choice.k, choice.noise.len()), (k, k as usize, entries as usize));
    (choice.noise, scale.try_into().unwrap())
}

/// Halves of a scale as sums, and as e to the power of them.
fn sums_and_weights(halves: &[i64], scale: i64) -> (Vec<i64>, Vec<f64>) {
    let weights = halves.iter().map(|halves| (*halves as f64 / 2.0).exp()).collect();
    (halves.iter().map(|halves| halves * scale / 2).collect(), weights)
}

/// The exponential mechanism, k times. Each false alarm is beyond 8 standard deviations of a
/// chi-square: about once in 10^9.
#[test]
fn gumbel_noise_chooses_as_the_exponential_mechanism_does() {
    for (halves, k) in [
        (&[2, 0][..], 1),
        (&[0, 0, 0], 1),
        (&[5, 0, 2, 2], 2),
        (&[-3, 4, 0, 0, 1], 3),
        (&[0, 1, 2, 3, 4], 4),
        (&[1, 6, 0, 3, 3, 2], 1),
    ] {
        let (noise, scale) = drawn(Noise::Gaussian, k, 40_000 * halves.len() as u32);
        let (sums, weights) = sums_and_weights(halves, scale);
        choices(&noise, &sums, k as usize, |set| peeled(&weights, set)).unwrap();
        // As if half a scale were the scale, or the sums were in another order.
        let steeper: Vec<f64> = weights.iter().map(|weight| weight * weight).collect();
        let other: Vec<f64> = weights.iter().rev().copied().collect();
        for wrong in [steeper, other].iter().filter(|wrong| **wrong != weights) {
            assert!(choices(&noise, &sums, k as usize, |set| peeled(wrong, set)).is_err(), "{halves:?}, {k}");
        }
    }
}

/// Of 2 of 3, the exact order in which they are peeled by hand: the formula that the others are
/// compared with.
#[test]
fn the_chance_of_a_set_is_that_of_its_orders() {
    let (a, b, c) = (0.5, 0.3, 0.2);
    let want = a * (b / (b + c)) + b * (a / (a + c));
    assert!((peeled(&[5.0, 3.0, 2.0], 0b011) - want).abs() < 1e-12);
    assert!((peeled(&[5.0, 3.0, 2.0], 0b100) - c).abs() < 1e-12);
}

/// The chance that permute-and-flip chooses one entry (McKenna and Sheldon 2020): in a random
/// order, each is taken with chance q = e^-(its distance from the largest) until one is. By
/// inclusion and exclusion over those that come before it.
fn flipped(weights: &[f64], set: usize) -> f64 {
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let q: Vec<f64> = weights.iter().map(|weight| weight / largest).collect();
    let before = |others: usize| -> f64 {
        let product: f64 = (0..q.len()).filter(|at| others >> at & 1 == 1).map(|at| -q[at]).product();
        product / (f64::from(others.count_ones()) + 1.0)
    };
    let own = q[set.trailing_zeros() as usize];
    own * (0..1 << q.len()).filter(|others| others & set == 0).map(before).sum::<f64>()
}

/// False alarms as above.
#[test]
fn geometric_noise_chooses_one_as_permute_and_flip_does() {
    for halves in [&[2, 0][..], &[0, 0, 0], &[5, 0, 2, 2], &[-3, 4, 0, 0, 1]] {
        let (noise, scale) = drawn(Noise::Laplace, 1, 20_000 * halves.len() as u32);
        let (sums, weights) = sums_and_weights(halves, scale);
        choices(&noise, &sums, 1, |set| flipped(&weights, set)).unwrap();
        if *halves != [0, 0, 0] {
            assert!(choices(&noise, &sums, 1, |set| peeled(&weights, set)).is_err(), "that is the exponential mechanism");
        }
    }
}

/// The chance of a set under geometric noise with ties to the first, of whole sums: over what the
/// best of the others may reach.
fn one_shot(sums: &[i64], scale: f64, set: usize) -> f64 {
    let reaches = |at: usize, least: i64| (-((least - sums[at]).max(0) as f64) / scale).exp();
    let within = |at: &usize, inside: usize| set >> at & 1 == inside;
    let (lowest, highest) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
    let mut chance = 0.0;
    for best in (0..sums.len()).filter(|at| within(at, 0)) {
        for at in *lowest..=highest + (60.0 * scale) as i64 {
            // `best` is exactly there; other losers before it stay below, those behind it do not
            // pass it.
            let exactly = if at < sums[best] { 0.0 } else { reaches(best, at) - reaches(best, at + 1) };
            let others = (0..sums.len()).filter(|other| *other != best);
            let each = others.map(|other| match within(&other, 1) {
                true => reaches(other, at + i64::from(other > best)),
                false => 1.0 - reaches(other, at + i64::from(other > best)),
            });
            chance += exactly * each.product::<f64>();
        }
    }
    chance
}

/// At a scale of 3 steps ties are common. False alarms as above.
#[test]
fn several_are_chosen_with_geometric_noise_as_often_as_they_should_be() {
    for (sums, k) in [(&[1, 0, 1][..], 1), (&[0, 0, 0], 2), (&[4, 0, 2, 2], 2), (&[0, 1, 2, 3, 4], 3)] {
        let noise = geometric(3, 20_000 * sums.len()).unwrap();
        choices(&noise, sums, k, |set| one_shot(sums, 3.0, set)).unwrap();
    }
}

/// The proof that choices of pure jobs are pure, over all sums between 0 and 4 of three entries and
/// all that one individual may add: no set's chance changes by more than e^(k x width / scale)
/// either way. For k = 1 some set's does by nearly as much.
#[test]
fn no_individual_changes_the_chance_of_a_set_by_more_than_is_charged() {
    let (scale, width) = (1.7, 2);
    let all =
        |most: i64| (0..(most + 1).pow(3)).map(move |n| [n % (most + 1), n / (most + 1) % (most + 1), n / (most + 1).pow(2)]);
    for k in [1, 2] {
        let (charged, mut found) = (k as f64 * width as f64 / scale, 0.0_f64);
        for sums in all(4) {
            for added in all(width) {
                let more: Vec<i64> = sums.iter().zip(added).map(|(sum, added)| sum + added).collect();
                for set in (0..8_usize).filter(|set| set.count_ones() == k) {
                    found = found.max((one_shot(&more, scale, set) / one_shot(&sums, scale, set)).ln().abs());
                }
            }
        }
        assert!(found <= charged + 1e-9, "{k}: {found} of {charged}");
        assert!(k > 1 || found > 0.9 * charged, "{found} of {charged}");
    }
}

#[test]
fn the_self_test_sees_noise_that_is_not_gumbels() {
    let noise = gumbel::draw(1 << 20, 80_000).unwrap();
    gumbels(&noise).unwrap();
    let other = |change: fn(i128) -> i128| gumbels(&noise.iter().copied().map(change).collect::<Vec<_>>()).is_err();
    assert!(other(|noise| noise - noise / 20), "a scale that is a twentieth too small");
    assert!(other(|noise| noise + (1_i128 << (20 + UNITS_LOG2)) / 20), "shifted by a twentieth of a scale");
    assert!(other(|noise| -noise), "turned around");
    assert!(gumbels(&geometric(1 << 20, 80_000).unwrap()).is_err(), "exponential");
    assert!(gumbels(&vec![0; 80_000]).is_err(), "none");
    // The same noise for two entries of a choice: by itself it is Gumbel.
    let twice: Vec<i128> = noise.iter().flat_map(|noise| [*noise; 2]).collect();
    assert!(gumbels(&twice).is_err(), "twice");
}

/// Noise of zeros, so that it is known what wins.
fn choose(k: usize, sums: &[i64]) -> Vec<i64> {
    let choice = Choice { k, noise: vec![0; sums.len()] };
    choice.of(sums).unwrap()
}

#[test]
fn of_equal_sums_the_first_are_chosen() {
    assert_eq!(choose(2, &[7, 7, 7]), [1, 1, 0]);
    assert_eq!(choose(3, &[7, 9, 7, 7, 9]), [1, 1, 0, 0, 1]);
    assert_eq!(choose(1, &[5]), [1]);
    assert_eq!(choose(3, &[3, 1, 2]), [1, 1, 1]);
    assert_eq!(choose(2, &[i64::MAX, i64::MIN, i64::MAX - 1, 0]), [1, 0, 1, 0]);
    assert_eq!(choose(3, &[i64::MIN, i64::MIN + 1, i64::MIN, 0]), [1, 1, 0, 1]);
}

/// Sums at both ends of 64 bits, with noise as it is drawn at the largest scale: what is far ahead
/// wins, nothing wraps around.
#[test]
fn sums_at_the_ends_of_64_bits_are_chosen_from() {
    for noise in [gumbel::draw(SCALES.end - 1, 400).unwrap(), geometric(SCALES.end - 1, 400).unwrap()] {
        let mut sums = vec![i64::MIN; 400];
        sums[17] = i64::MAX;
        let votes = Choice { k: 1, noise }.of(&sums).unwrap();
        assert_eq!((votes[17], votes.iter().sum::<i64>()), (1, 1));
    }
    let off = Choice { k: 1, noise: vec![i128::MAX; 2] }.of(&[1, 1]).map_err(NoiseError::from).unwrap_err();
    assert_eq!(off.code(), "sum-overflow");
}

#[test]
fn a_choice_is_of_the_largest_and_of_as_many_as_were_asked_for() {
    for (noise, delta) in [(Noise::Gaussian, 1e-6), (Noise::Laplace, 0.0)] {
        let calibrated = calibrated(noise, delta, 6, Bound::Top { k: 2, lower: -1.0, upper: 1.0 });
        let NoiseScale::Choice { scale, .. } = calibrated[0].noise else { panic!("a choice") };
        let far = 100 * i64::try_from(scale).unwrap();
        let votes = draw(&calibrated, 1).unwrap().over(&[vec![-far, far, 0, 2 * far, 0, 0]]).unwrap();
        assert_eq!(votes.steps[0], [0, 1, 0, 1, 0, 0]);
    }
}

#[test]
fn noise_of_a_choice_is_fresh_in_every_thread() {
    for noise in [Noise::Gaussian, Noise::Laplace] {
        let (one, two) = (drawn(noise, 1, 9_000).0, drawn(noise, 1, 9_000).0);
        let same = one.iter().zip(&two).filter(|(a, b)| a == b).count();
        assert!(same < 10, "{same} of 9,000 entries are the same");
        assert!(one[..3_000] != one[3_000..6_000]);
    }
}

/// Scales beyond which the noise's error is not proven are refused, whatever they would cost.
#[test]
fn a_scale_beyond_the_proof_is_refused() {
    let at = |scale| Choice::draw((1, scale), (1.0, Target::Rho(1.0)), (4, 1)).map(|choice| choice.k);
    assert_eq!(at(SCALES.start), Ok(1));
    assert_eq!(at(SCALES.start - 1), Err(NoiseError::TooSmall));
    assert_eq!(at(SCALES.end - 1), Ok(1));
    assert_eq!(at(SCALES.end), Err(NoiseError::TooSmall));
}

/// The error of a draw, twice for each entry that is chosen, is within what a choice may add to
/// delta; and all entries that a round may have are within what the moments' cuts (docs/PRIVACY.md,
/// "Time") leave of what is charged.
#[test]
fn what_choices_add_to_delta_is_paid_for() {
    for scale in [SCALES.start, 1 << 20, SCALES.end - 1] {
        assert!(2.0 * gumbel::error(scale) <= DELTA);
    }
    let cuts = 2.0 * 1.3e-12;
    let choices = vestibule_protocol::round::MAX_ENTRIES as f64 * DELTA;
    assert!(cuts + choices < DELTA_FEMTO as f64 * 1e-15, "{choices}");
}
