//! What a choice among 2,000,000 sums takes, and whether that follows from the sums: all the same,
//! or everybody's vote on one.

use std::time::Instant;

use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::job::{Budget, Noise};
use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;
use vestibule_runtime::noise;
use vestibule_runtime::reduce::Sums;
use vestibule_sandbox::Given;

const ENTRIES: u32 = 2_000_000;
const PEOPLE: usize = 100;
const RUNS: usize = 9;

pub(crate) fn choice(row: impl Fn(&str, String)) {
    let bound = Bound::Top { k: 1, lower: 0.0, upper: 1.0 };
    let statistics = vec![Statistic { name: "x".into(), length: ENTRIES, bound, weight: 1.0, source: Source::Given }];
    let round = Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: true }).unwrap();
    let mut voted = vec![0; ENTRIES as usize];
    voted[777_777] = 1;
    for (noise, delta) in [(Noise::Gaussian, 1e-6), (Noise::Laplace, 0.0)] {
        let budget = Budget::new(noise, 1.0, delta).unwrap().round(round.share_ppb());
        let calibrated = calibrate(&round, Partitioning::Each, budget).unwrap();
        let mut drawing = vec![];
        for (sums, votes) in [("all the same", 0), ("everybody's vote on one", PEOPLE)] {
            let mut choosing: Vec<f64> = (0..RUNS)
                .map(|_| {
                    let mut sums = Sums::zeros(&calibrated, 0).unwrap();
                    (0..votes).for_each(|_| sums.add(&calibrated, Some(&[Given::Integers(&voted)])).unwrap());
                    let start = Instant::now();
                    let drawn = noise::draw(&calibrated, 1).unwrap();
                    drawing.push(start.elapsed().as_secs_f64());
                    let start = Instant::now();
                    drop(drawn.hide(sums).unwrap());
                    start.elapsed().as_secs_f64()
                })
                .collect();
            choosing.sort_by(f64::total_cmp);
            let (least, half, most) = (choosing[0], choosing[RUNS / 2], choosing[RUNS - 1]);
            row(&format!("choice of one of {ENTRIES}, {noise:?}, {sums}"), format!("{half:.3} s ({least:.3} to {most:.3})"));
        }
        drawing.sort_by(f64::total_cmp);
        row(&format!("noise for it, one core, {noise:?}"), format!("{:.2} s", drawing[drawing.len() / 2]));
    }
}
