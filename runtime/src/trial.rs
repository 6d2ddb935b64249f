//! A dry run: the whole of a job on one machine, on data that its owner may see. The same sandbox, reducer and noise as at a
//! site, no ledger, and the exact sums beside the noised ones.
//!
//! *In*: a component, parameters, a budget, and a dataset that the caller ingested from its own files. *Out*: [`Trial`]. *Refuses*:
//! what a site would. Never part of the daemon: nothing here is reachable from the link.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vestibule_protocol::calibration::{Calibrated, calibrate, to_real};
use vestibule_protocol::job::{Budget, Limits};
use vestibule_protocol::release::Released;
use vestibule_protocol::report::Report;
use vestibule_protocol::round::{Round, WHOLE_SHARE_PPB};
use vestibule_sandbox::{Analysis, Given, Shape, Step};

use crate::costs::Costs;
use crate::dataset::{Dataset, RowGroup, Selection};
use crate::delay::{Delay, Load};
use crate::executor::{self, Executor, Work};
use crate::partitions::Partitions;
use crate::reduce::Sums;
use crate::round::{Crew, Ears};
use crate::{noise, round};

/// Faults that are kept; the rest is counted.
const FAULTS: usize = 20;

/// What a dry run found.
#[derive(Clone, PartialEq)]
pub struct Trial {
    /// Round by round.
    pub rounds: Vec<TrialRound>,
    /// The report, from noised numbers: what a job would end with.
    pub report: Report,
    /// What guests failed of. The first few causes.
    pub faults: Vec<Fault>,
    /// How often any failed, of these and other causes.
    pub fault_count: usize,
}

/// A cause of guests' failures.
#[derive(Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it was met first: which individual, in the dataset's order, or which block.
    pub first: usize,
    /// How often.
    pub count: usize,
    /// What the first one said, and where it was; the cause is its first line.
    pub what: String,
}

/// One round of a dry run.
#[derive(Clone, PartialEq)]
pub struct TrialRound {
    /// What was asked.
    pub round: Round,
    /// The exact sums, in the order of its statistics.
    pub exact: Vec<Vec<f64>>,
    /// The same with noise.
    pub released: Vec<Released>,
    /// The most fuel that one partition took whose guest did not fail.
    pub most_fuel: u64,
    /// How long after its round a site's release would leave, at the usual costs.
    pub delay: Duration,
    /// Fuel that is twice what was taken, and how long after its round a release would leave then.
    pub enough: (u64, Duration),
}

// The exact sums and what a guest said about a person are their owner's to print, not a log's.
impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trial({} rounds, values withheld)", self.rounds.len())
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fault({} times, words withheld)", self.count)
    }
}

impl std::fmt::Debug for TrialRound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrialRound({} statistics, values withheld)", self.exact.len())
    }
}

/// Why a dry run stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError {
    /// The analysis.
    #[error(transparent)]
    Guest(#[from] vestibule_sandbox::GuestError),
    /// The plan names what is not there.
    #[error(transparent)]
    Select(#[from] crate::dataset::ShapeError),
    /// The round asks for what the plan does not give.
    #[error(transparent)]
    Fit(#[from] vestibule_protocol::round::RoundError),
    /// The noise.
    #[error(transparent)]
    Calibration(#[from] vestibule_protocol::calibration::CalibrationError),
    /// The noise.
    #[error(transparent)]
    Noise(#[from] noise::NoiseError),
    /// The run.
    #[error(transparent)]
    Round(#[from] round::RoundFailure),
    /// More rounds, or more budget, than the job has.
    #[error("the analysis asks for {0} than it said at first")]
    Overrun(&'static str),
}

impl TrialError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Guest(error) => error.code(),
            Self::Select(error) => error.code(),
            Self::Fit(error) => error.code(),
            Self::Calibration(error) => error.code(),
            Self::Noise(error) => error.code(),
            Self::Round(error) => error.code(),
            Self::Overrun(_) => "analysis-overrun",
        }
    }
}

/// One vector for each statistic of a round.
pub type Vectors = Vec<Vec<f64>>;

/// The exact sums of one round over a dataset of one's own.
///
/// # Errors
/// The round's.
pub fn exact(
    dataset: &Dataset,
    selection: &Selection,
    partitions: Partitions,
    crews: Vec<Box<dyn Crew + '_>>,
    calibrated: &[Calibrated],
) -> Result<Vectors, TrialError> {
    let sums = round::run(dataset, selection, partitions, crews, calibrated)?;
    Ok(reals(&steps(sums)?, calibrated))
}

/// The same by an executor.
///
/// # Errors
/// The round's.
pub fn exact_by(executor: &dyn Executor, work: Work<'_>) -> Result<Vectors, TrialError> {
    let calibrated = work.ask.calibrated;
    Ok(reals(&steps(executor.run(work)?)?, calibrated))
}

/// The same with noise: the exact sums, and what a site would release.
///
/// # Errors
/// The noise's and the round's.
pub fn release(
    dataset: &Dataset,
    selection: &Selection,
    partitions: Partitions,
    crews: Vec<Box<dyn Crew + '_>>,
    calibrated: &[Calibrated],
) -> Result<(Vectors, Vectors), TrialError> {
    let drawn = noise::draw(calibrated, 2)?;
    let exact = steps(round::run(dataset, selection, partitions, crews, calibrated)?)?;
    let noised = drawn.over(&exact)?;
    Ok((reals(&exact, calibrated), released(noised.steps(), calibrated)))
}

/// The next number of one digit and zeros.
fn rounded_up(number: u64) -> u64 {
    let digits = number.max(1).ilog10();
    let step = 10_u64.saturating_pow(digits);
    number.div_ceil(step).saturating_mul(step)
}

/// What would be released of sums in whole steps, one vector for each statistic.
///
/// # Errors
/// The noise's.
pub fn noised(calibrated: &[Calibrated], sums: &[Vec<i64>]) -> Result<Vectors, TrialError> {
    Ok(released(noise::draw(calibrated, 2)?.over(sums)?.steps(), calibrated))
}

/// Multiplies what individuals gave with their genotypes, all of which are alike, as a round does.
///
/// # Errors
/// No room; a sum out of its range.
pub fn multiplied(calibrated: &[Calibrated], variants: usize, given: &[Vec<f64>]) -> Result<(), TrialError> {
    let host = || TrialError::Round(round::RoundFailure::Host);
    let rows = RowGroup::of_genotypes(given.len(), &[(0, variants)], || 0).map_err(|_| host())?;
    let mut sums = Sums::zeros(calibrated, variants).map_err(|_| host())?;
    for row in given {
        sums.add(calibrated, Some(&[Given::Reals(row)])).map_err(|_| host())?;
        if sums.is_full() {
            sums.multiply(&rows).map_err(|_| host())?;
        }
    }
    sums.finish(&rows).map_err(|_| host())
}

/// The processor time that a task of a cluster would burn when it has its sums.
///
/// # Errors
/// The noise's.
pub fn burns(delay: &Delay, threads: usize) -> Result<Duration, TrialError> {
    Ok(executor::burns(delay, threads)?)
}

fn steps(sums: Sums) -> Result<Vec<Vec<i64>>, TrialError> {
    sums.into_steps().map_err(|_| TrialError::Round(round::RoundFailure::Host))
}

fn released(steps: &[Vec<i64>], calibrated: &[Calibrated]) -> Vectors {
    let real = |(steps, calibrated): (&Vec<i64>, &Calibrated)| {
        steps.iter().map(|&step| to_real(step, calibrated.released_log2_scale())).collect()
    };
    steps.iter().zip(calibrated).map(real).collect()
}

fn reals(steps: &[Vec<i64>], calibrated: &[Calibrated]) -> Vectors {
    let real = |(steps, calibrated): (&Vec<i64>, &Calibrated)| {
        steps.iter().map(|&step| to_real(step, calibrated.log2_scale)).collect()
    };
    steps.iter().zip(calibrated).map(real).collect()
}

/// Runs a job from its plan to its report.
///
/// # Errors
/// See [`TrialError`].
pub fn run(analysis: &Analysis, params: &str, dataset: &Dataset, budget: Budget, limits: Limits) -> Result<Trial, TrialError> {
    let plan = analysis.plan(params, limits)?;
    let (variants, columns) = dataset.info().shape(&plan.columns, &plan.variants)?;
    let shape = Shape { variants, columns };
    let selection = dataset.select(&plan.columns, &plan.variants)?;
    let partitions = Partitions::of(plan.partitioning, dataset.info().approximate_size);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let faults: Mutex<(Vec<Fault>, usize)> = Mutex::default();
    let listen = |individual: usize, detail: vestibule_sandbox::Detail| {
        let mut faults = faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.1 = faults.1.saturating_add(1);
        let what = detail.to_string();
        let cause = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        if let Some(fault) = faults.0.iter_mut().find(|fault| cause(&fault.what) == cause(&what)) {
            fault.count = fault.count.saturating_add(1);
            // Threads meet them in any order.
            fault.first = fault.first.min(individual);
        } else if faults.0.len() < FAULTS {
            faults.0.push(Fault { first: individual, count: 1, what });
        }
    };
    let mut rounds: Vec<TrialRound> = Vec::new();
    let mut share_left = WHOLE_SHARE_PPB;
    let report = loop {
        let history: Vec<Vec<Released>> = rounds.iter().map(|round| round.released.clone()).collect();
        let asked = match analysis.next(params, &shape, &history, limits)? {
            Step::Report(report) => break report,
            Step::Round(asked) => asked,
        };
        if rounds.len() >= plan.max_rounds as usize {
            return Err(TrialError::Overrun("more rounds"));
        }
        share_left = share_left.checked_sub(asked.share_ppb()).ok_or(TrialError::Overrun("a larger share of the budget"))?;
        asked.fits(shape.variants.len(), plan.partitioning)?;
        let selection = selection.of(&asked);
        let calibrated = calibrate(&asked, plan.partitioning, budget.round(asked.share_ppb()))?;
        let runner = analysis.runner(&asked, limits)?;
        let code_bytes = runner.code_bytes();
        let most_fuel = AtomicU64::new(0);
        let ears = Ears {
            fault: &listen,
            fuel: &|fuel| {
                most_fuel.fetch_max(fuel, Ordering::Relaxed);
            },
        };
        let crews = round::here_with(&runner, threads.min(dataset.row_groups()), Some(ears));
        let (exact, noised) = release(dataset, &selection, partitions, crews, &calibrated)?;
        let released = asked.statistics().iter().zip(&calibrated).zip(noised);
        let released = released.map(|((statistic, calibrated), values)| Released {
            name: statistic.name.clone(),
            values,
            noise_sd: calibrated.noise_sd(),
            sites: 1,
        });
        let inputs = selection.values().saturating_add(selection.dosages());
        let spend = budget.round(asked.share_ppb()).time();
        let delay = |limits| {
            let load = Load::new(limits, inputs, partitions, code_bytes);
            Delay::of(&asked, spend, load, Costs::USUAL).expected()
        };
        let most_fuel = most_fuel.into_inner();
        let twice = rounded_up(most_fuel.saturating_mul(2));
        let enough = (twice, delay(Limits { fuel_per_partition: twice, ..limits }));
        let (delay, released) = (delay(limits), released.collect());
        rounds.push(TrialRound { exact, released, round: asked, most_fuel, delay, enough });
    };
    let (faults, fault_count) = faults.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Trial { rounds, report, faults, fault_count })
}
