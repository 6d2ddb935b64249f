//! Whatever is given, what is added obeys its bound.

use super::*;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::job::{Budget, Noise};
use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::GenotypeSums;
use vestibule_sandbox::Contribution;

fn calibrated(bound: Bound, length: u32) -> Vec<Calibrated> {
    let statistics = vec![Statistic { name: "s".into(), length, bound, weight: 1.0, source: Source::Given }];
    let round = Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: true }).unwrap();
    let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(1_000_000_000);
    calibrate(&round, Partitioning::Each, budget).unwrap()
}

fn summed(calibrated: &[Calibrated], contribution: Contribution) -> Vec<i64> {
    let mut sums = Sums::zeros(calibrated, 0).unwrap();
    sums.add(calibrated, Some(&[Given::from(&contribution)])).unwrap();
    sums.into_steps().unwrap().remove(0)
}

fn obeys(bound: IntegerBound, steps: &[i64]) -> bool {
    let magnitude = |step: &i64| u128::from(step.unsigned_abs());
    match bound {
        IntegerBound::Range { lower, upper } => steps.iter().all(|step| (lower..=upper).contains(step)),
        IntegerBound::OneCell { one } => {
            steps.iter().filter(|&&step| step != 0).count() <= 1 && steps.iter().all(|&step| step == 0 || step == one)
        }
        IntegerBound::L2 { radius } => {
            steps.iter().map(|step| magnitude(step).pow(2)).sum::<u128>() <= u128::from(radius).pow(2)
        }
        IntegerBound::L1 { radius } => steps.iter().map(magnitude).sum::<u128>() <= u128::from(radius),
    }
}

/// xorshift64: a fixed stream of bit patterns, some of them special values.
fn patterns() -> impl Iterator<Item = u64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

#[test]
fn whoever_moves_a_sum_is_counted_once() {
    let two = [calibrated(Bound::OneCell, 3), calibrated(Bound::Range { lower: -1.0, upper: 1.0 }, 2)].concat();
    let counted = |contributions: &[Contribution]| {
        let mut sums = Sums::zeros(&two, 0).unwrap();
        let given: Vec<Given<'_>> = contributions.iter().map(Given::from).collect();
        sums.add(&two, Some(&given)).unwrap();
        sums.moving()
    };
    let reals = |x: f64| Contribution::Reals(vec![0.0, x]);
    assert_eq!(counted(&[Contribution::Cell(2), reals(1.0)]), 1, "once, though it moves both");
    assert_eq!(counted(&[Contribution::None, reals(-9.0)]), 1);
    assert_eq!(counted(&[Contribution::Cell(0), Contribution::None]), 1);
    // What moves nothing: nothing, zeros, what is cut to zero or has not the shape.
    for nothing in [
        vec![Contribution::None, Contribution::None],
        vec![Contribution::Cell(3), reals(0.0)],
        vec![Contribution::None, reals(f64::NAN)],
        vec![Contribution::None, reals(1e-300)],
        vec![Contribution::Reals(vec![1.0; 3]), Contribution::Reals(vec![1.0; 3])],
        vec![Contribution::Cell(1)],
    ] {
        assert_eq!(counted(&nothing), 0, "{nothing:?}");
    }
    let mut sums = Sums::zeros(&two, 0).unwrap();
    sums.add(&two, None).unwrap();
    let mut other = Sums::zeros(&two, 0).unwrap();
    for _ in 0..5 {
        other.add(&two, Some(&[Given::Cell(1), Given::None])).unwrap();
    }
    sums.merge(&other).unwrap();
    assert_eq!(sums.moving(), 5);
}

#[test]
fn every_bit_pattern_ends_inside_every_bound() {
    let bounds = [
        Bound::Range { lower: -0.3, upper: 2.0 },
        Bound::Range { lower: 0.0, upper: 1e-30 },
        Bound::OneCell,
        Bound::L2 { radius: 1.5 },
        Bound::L2 { radius: 1e12 },
        Bound::L1 { radius: 0.1 },
    ];
    let mut patterns = patterns();
    for bound in bounds {
        let calibrated = calibrated(bound, 7);
        for _ in 0..20_000 {
            let mut next = || patterns.next().unwrap();
            let mut real = || match next() % 8 {
                0 => f64::from_bits(next()),
                1 => f64::NAN,
                2 => f64::NEG_INFINITY,
                3 => f64::MAX,
                4 => 5e-324,
                _ => (next() >> 11) as f64 / 9_007_199_254_740_992.0 * 4.0 - 2.0,
            };
            let reals: Vec<f64> = (0..7).map(|_| real()).collect();
            let choice = next();
            let contribution = match choice % 6 {
                0 => Contribution::Integers((0..7).map(|_| next().cast_signed()).collect()),
                1 => Contribution::Bytes((0..7).map(|_| next().to_le_bytes()[0]).collect()),
                2 => Contribution::Cell(u32::try_from(next() >> 32).unwrap() % 9),
                3 => Contribution::None,
                _ => Contribution::Reals(reals),
            };
            let steps = summed(&calibrated, contribution);
            assert!(obeys(calibrated[0].bound, &steps), "{bound:?} {steps:?}");
        }
    }
}

#[test]
fn bytes_that_stand_for_numbers_count_as_those_numbers() {
    let whole: Vec<i64> = (-128..128).collect();
    let reals: Vec<f64> = whole.iter().map(|&value| value as f64).collect();
    let small: Vec<u8> = whole.iter().map(|&value| value.to_le_bytes()[0]).collect();
    let integer_words: Vec<[u8; 8]> = whole.iter().map(|value| value.to_le_bytes()).collect();
    let real_words: Vec<[u8; 8]> = reals.iter().map(|value| value.to_le_bytes()).collect();
    for bound in [Bound::Range { lower: -100.0, upper: 90.0 }, Bound::L2 { radius: 300.0 }, Bound::L1 { radius: 1e6 }] {
        let calibrated = calibrated(bound, 256);
        let summed = |given: Given<'_>| {
            let mut sums = Sums::zeros(&calibrated, 0).unwrap();
            sums.add(&calibrated, Some(&[given])).unwrap();
            sums.into_steps().unwrap().remove(0)
        };
        let want = summed(Given::Reals(&reals));
        assert!(want.iter().any(|&step| step != 0));
        for given in
            [Given::Integers(&whole), Given::Small(&small), Given::IntegerWords(&integer_words), Given::RealWords(&real_words)]
        {
            assert_eq!(summed(given), want);
        }
    }
}

#[test]
fn contributions_inside_the_bound_are_kept_exactly() {
    let range = calibrated(Bound::Range { lower: 0.0, upper: 2.0 }, 3);
    let one = 1 << range[0].log2_scale;
    let want = [0, one, 2 * one];
    assert_eq!(summed(&range, Contribution::Bytes(vec![0, 1, 2])), want);
    assert_eq!(summed(&range, Contribution::Integers(vec![0, 1, 2])), want);
    assert_eq!(summed(&range, Contribution::Reals(vec![0.0, 1.0, 2.0])), want);
    let cells = calibrated(Bound::OneCell, 3);
    assert_eq!(summed(&cells, Contribution::Cell(1)), [0, 1 << 20, 0]);
    let ball = calibrated(Bound::L2 { radius: 5.0 }, 2);
    let step = 1_i64 << ball[0].log2_scale;
    assert_eq!(summed(&ball, Contribution::Reals(vec![3.0, -4.0])), [3 * step, -4 * step]);
    // Outside, the direction is kept.
    let clipped = summed(&ball, Contribution::Reals(vec![6e30, -8e30]));
    assert!((clipped[0] - 3 * step).abs() <= step / 1000 && (clipped[1] + 4 * step).abs() <= step / 1000, "{clipped:?}");
}

#[test]
fn whatever_has_another_shape_counts_as_nothing() {
    let range = calibrated(Bound::Range { lower: 0.0, upper: 2.0 }, 2);
    for contribution in [
        Contribution::None,
        Contribution::Cell(0),
        Contribution::Bytes(vec![1]),
        Contribution::Bytes(vec![1; 3]),
        Contribution::Integers(vec![]),
        Contribution::Reals(vec![1.0; 3]),
        Contribution::Reals(vec![f64::NAN; 2]),
    ] {
        assert_eq!(summed(&range, contribution), [0, 0]);
    }
    let cells = calibrated(Bound::OneCell, 2);
    for contribution in [Contribution::Cell(2), Contribution::Cell(u32::MAX), Contribution::Bytes(vec![1, 0])] {
        assert_eq!(summed(&cells, contribution), [0, 0]);
    }
    let mut sums = Sums::zeros(&range, 0).unwrap();
    sums.add(&range, None).unwrap();
    sums.add(&range, Some(&[])).unwrap();
    sums.add(&range, Some(&[Given::Bytes(&[2, 2]), Given::None])).unwrap();
    assert_eq!(sums.into_steps().unwrap(), [[0, 0]]);
}

#[test]
fn sums_are_exact_in_any_order_and_split() {
    let range = calibrated(Bound::Range { lower: -1.0, upper: 1.0 }, 3);
    let mut patterns = patterns();
    let people: Vec<Contribution> = (0..500)
        .map(|_| {
            Contribution::Reals((0..3).map(|_| (patterns.next().unwrap() >> 12) as f64 / 2.0_f64.powi(51) - 1.0).collect())
        })
        .collect();
    let total = |people: &mut dyn Iterator<Item = &Contribution>| {
        let mut sums = Sums::zeros(&range, 0).unwrap();
        people.for_each(|person| sums.add(&range, Some(&[Given::from(person)])).unwrap());
        sums
    };
    let forward = total(&mut people.iter()).into_steps().unwrap();
    assert_eq!(total(&mut people.iter().rev()).into_steps().unwrap(), forward);
    let (left, right) = people.split_at(123);
    let mut merged = total(&mut right.iter());
    merged.merge(&total(&mut left.iter())).unwrap();
    assert_eq!(merged.into_steps().unwrap(), forward);
}

#[test]
fn sums_that_another_process_wrote_are_read_back_whole_or_not_at_all() {
    let range = calibrated(Bound::Range { lower: -1.0, upper: 1.0 }, 3);
    let mut sums = Sums::zeros(&range, 0).unwrap();
    sums.add(&range, Some(&[Given::Reals(&[0.5, -1.0, 0.25])])).unwrap();
    let mut bytes = vec![];
    sums.put(&mut bytes);
    assert_eq!(Sums::of(&range, 0, &bytes).unwrap().moving(), 1);
    let steps = sums.into_steps().unwrap();
    assert_eq!(Sums::of(&range, 0, &bytes).unwrap().into_steps().unwrap(), steps);
    for length in 0..bytes.len() {
        assert!(Sums::of(&range, 0, &bytes[..length]).is_none(), "{length}");
    }
    bytes.extend([0; 8]);
    assert!(Sums::of(&range, 0, &bytes).is_none());
    assert!(Sums::of(&[], 0, &bytes).is_none());
}

#[test]
fn overflow_is_noticed() {
    let mut sums = vec![i64::MAX - 1, 0];
    accumulate(&mut sums, &[1, 1]).unwrap();
    assert_eq!(accumulate(&mut sums, &[1, 0]), Err(SumOverflow));
    assert_eq!(accumulate(&mut [i64::MIN], &[-1]), Err(SumOverflow));
}

#[test]
fn debug_withholds_the_values() {
    let calibrated = calibrated(Bound::OneCell, 2);
    assert_eq!(format!("{:?}", Sums::zeros(&calibrated, 0).unwrap()), "Sums(1 statistics, values withheld)");
}

/// Whatever stands where factors should, an individual's products obey the bound.
#[test]
fn factors_of_every_kind_are_cut_and_what_is_none_counts_as_none() {
    let source = Source::Genotypes(GenotypeSums { factors: 2, scores: vec![1_024; 8].into() });
    let bound = Bound::L2 { radius: 1.0 };
    let statistics = vec![Statistic { name: "g".into(), length: 4, bound, weight: 1.0, source }];
    let round = Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: false }).unwrap();
    let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(1_000_000_000);
    let calibrated = calibrate(&round, Partitioning::Each, budget).unwrap();
    let rows = RowGroup::of_genotypes(1, &[(4, 6)], || 0).unwrap();
    let summed = |given: Option<&[Given<'_>]>| {
        let mut sums = Sums::zeros(&calibrated, 2).unwrap();
        sums.add(&calibrated, given).unwrap();
        sums.finish(&rows).unwrap();
        let steps = sums.into_steps().unwrap().remove(0);
        assert!(obeys(calibrated[0].bound, &steps), "{steps:?}");
        steps
    };
    let unit = 1_i64 << calibrated[0].log2_scale;
    assert_eq!(summed(Some(&[Given::Reals(&[0.5, -0.25])])), [unit / 2, unit / 2, -unit / 4, -unit / 4]);
    for (reals, want) in [
        ([f64::NAN, 0.25], [0.0, 0.25]),
        // A half of each: four products of it have a norm of 1.
        ([1e300, f64::NEG_INFINITY], [0.5, -0.5]),
        ([f64::MAX, 0.0], [0.5_f64.sqrt(), 0.0]),
    ] {
        let steps = summed(Some(&[Given::Reals(&reals)]));
        let near = |at: usize, want: f64| (steps[at] as f64 / unit as f64 - want).abs() < 1e-4;
        assert!(near(0, want[0]) && near(1, want[0]) && near(2, want[1]) && near(3, want[1]), "{reals:?}: {steps:?}");
    }
    for nothing in [Given::None, Given::Cell(0), Given::Reals(&[0.5]), Given::Bytes(&[1, 1, 1])] {
        assert_eq!(summed(Some(&[nothing])), [0; 4]);
    }
    assert_eq!(summed(None), [0; 4]);
    assert_eq!(summed(Some(&[])), [0; 4]);
}
