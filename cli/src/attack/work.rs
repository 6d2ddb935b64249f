//! How much work one individual makes beside the guests': the products of factors and genotypes, and
//! what a cluster's accounting shows of a task.
//!
//! *In*: factors that one row more has; a task's draws. *Out*: whether the work follows from public
//! terms, or is noised. *Trusts*: the clock of this thread's own processor time; the quickest of some
//! runs counts.

use std::time::Duration;

use anyhow::{Context as _, Result};
use vestibule_protocol::calibration::{Calibrated, calibrate};
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest, Statistic, WHOLE_SHARE_PPB};
use vestibule_protocol::scores::{CLASSES, GenotypeSums, Source};
use vestibule_runtime::costs::Costs;
use vestibule_runtime::delay::{Delay, Load};
use vestibule_runtime::partitions::Partitions;
use vestibule_runtime::trial;

use super::lab::Lab;
use super::statistics::game;
use super::{Defect, Row};

const TIME: &str = "time";
/// Factors, and the variants that each is multiplied with.
const FACTORS: u32 = 4_000;
const VARIANTS: usize = 8;
const PEOPLE: usize = 700;
const RUNS: usize = 15;
/// Tasks on each side of a game.
const TASKS: usize = 10_000;
const EPSILON: f64 = 20.0;

pub(crate) fn rows(lab: &Lab) -> Result<Vec<Row>> {
    Ok(vec![multiplied(lab)?, accounted(lab)?])
}

/// A round of products and its noise.
fn products() -> Result<(Round, Vec<Calibrated>)> {
    let scores: Vec<i16> = [-1, 0, 1, 0].repeat(VARIANTS);
    anyhow::ensure!(scores.len() == CLASSES * VARIANTS, "a score for each thing that a genotype can be");
    let source = Source::Genotypes(GenotypeSums { factors: FACTORS, scores: scores.into() });
    #[expect(clippy::cast_possible_truncation, reason = "far below 2^32")]
    let length = FACTORS * VARIANTS as u32;
    let statistic = Statistic { name: "x".into(), length, bound: Bound::L2 { radius: 64.0 }, weight: 1.0, source };
    let request = RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: vec![], dosages: false };
    let round = Round::check(request)?;
    let budget = Budget::new(Noise::Gaussian, EPSILON, 1e-6)?.round(round.share_ppb());
    let calibrated = calibrate(&round, Partitioning::Each, budget)?;
    Ok((round, calibrated))
}

/// Everybody gives zeros, but for one person.
fn multiplied(lab: &Lab) -> Result<Row> {
    let (_, calibrated) = products()?;
    let factors = |differs: bool| -> Vec<Vec<f64>> {
        let mut rows = vec![vec![0.0; FACTORS as usize]; PEOPLE];
        if let Some(row) = rows.get_mut(PEOPLE / 2).filter(|_| differs) {
            row.fill(-0.5);
        }
        rows
    };
    let took = |given: &Vec<Vec<f64>>| -> Result<f64> {
        let began = busy();
        trial::multiplied(&calibrated, VARIANTS, given)?;
        let mut took = busy().saturating_sub(began);
        if lab.defect == Some(Defect::SortedFactors) {
            took = took.saturating_add(sorted(given));
        }
        Ok(took.as_secs_f64())
    };
    let given = [factors(false), factors(true)];
    let [mut all, mut one] = [f64::INFINITY; 2];
    for _ in 0..RUNS {
        all = all.min(took(&given[0])?);
        one = one.min(took(&given[1])?);
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let granted = Costs::USUAL.entry_ns * 1e-9 * (FACTORS as usize * VARIANTS) as f64;
    let observed = format!(
        "products take {:.1} ms where nobody differs, {:.1} where one of {PEOPLE} does; delays \
         reckon with {:.1} more",
        all * 1e3,
        one * 1e3,
        granted * 1e3
    );
    Ok(Row::new(
        "give other factors than everybody else, so that products take longer",
        TIME,
        "columns are sorted, or tables made for one row that differs",
        (one - all <= granted, observed),
    ))
}

/// Processor time of this thread so far.
fn busy() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The usual factor of each column by sorting it.
fn sorted(given: &[Vec<f64>]) -> Duration {
    let began = busy();
    for factor in 0..FACTORS as usize {
        let mut column: Vec<f64> = given.iter().filter_map(|row| row.get(factor).copied()).collect();
        column.sort_unstable_by(f64::total_cmp);
        let _ = std::hint::black_box(column);
    }
    busy().saturating_sub(began)
}

/// The processor time of a task that is late by all that one individual may take, and of one that is
/// not: what accounting shows of it in the end.
fn accounted(lab: &Lab) -> Result<Row> {
    let (round, _) = products()?;
    let load = Load::new(Limits::default(), 3, Partitions::of(Partitioning::Each, 1), 1 << 20);
    let longest_us = load.longest_us(1, Costs::USUAL);
    let round_budget = Budget::new(Noise::Laplace, EPSILON, 0.0)?.round(WHOLE_SHARE_PPB);
    let delay = Delay::of(&round, round_budget.time(), load, Costs::USUAL).of_task();
    let sample = |late_us: f64| -> Result<Vec<f64>> {
        let total = |_| {
            let burns = match lab.defect {
                Some(Defect::SleepingTask) => 0.0,
                _ => trial::burns(&delay, 1)?.as_secs_f64() * 1e6,
            };
            Ok(late_us + burns)
        };
        (0..TASKS).map(total).collect()
    };
    // The other half is for its end.
    let claim = match round_budget.time() {
        vestibule_protocol::job::Spend::Laplace(epsilon) => epsilon / 2.0,
        vestibule_protocol::job::Spend::Gaussian(_) => None.context("a Laplace job with Gaussian noise")?,
    };
    let shown = game(&sample(longest_us)?, &sample(0.0)?).max(0.0);
    let observed = format!("the best guesses show epsilon {shown:.2} of {claim:.2}");
    let unprotected = format!("the task is busy {:.0} ms longer, if that person is there", longest_us / 1e3);
    Ok(Row::new(
        "read in a cluster's accounting how long a task's processors were busy",
        TIME,
        unprotected,
        (shown <= claim, observed),
    ))
}
