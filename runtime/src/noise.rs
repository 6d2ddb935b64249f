//! Step 11: noise, by OpenDP, drawn once and before the sums are touched.
//!
//! *In*: what was calibrated, then [`Sums`]. *Out*: [`Noised`]. *Trusts*: OpenDP's discrete Gaussian and discrete Laplace
//! (Canonne, Kamath, Steinke 2020), which [`self_test`] checks at every start. *Refuses*: to draw where OpenDP's own privacy map
//! says that the scale does not meet the target.
//!
//! The noise is drawn for a vector of zeros, so its drawing time (which follows its size) is independent of the data, and
//! added afterwards. Its bytes come from ChaCha20, keyed by the operating system in each thread that draws; such a thread lives
//! for one draw, so that a process that is forked or a machine that is cloned between two draws does not repeat one.

use opendp::core::Measurement;
use opendp::domains::{AtomDomain, VectorDomain};
use opendp::measurements::{TopKMeasure, make_gaussian, make_laplace, make_noisy_top_k};
use opendp::measures::{MaxDivergence, ZeroConcentratedDivergence};
use opendp::metrics::{L1Distance, L2Distance, LInfDistance};
use vestibule_protocol::calibration::{Calibrated, NoiseScale, Target};
use vestibule_protocol::job::Spend;

use crate::cohort::{Counted, Floor};
use crate::reduce::{SumOverflow, Sums};

/// Entries that one thread draws. A thread costs some 20 us, a draw some 5 us.
const ENTRIES_PER_THREAD: usize = 4_096;

/// Noise for every entry of every statistic, in steps; and which statistics are to be chosen from.
pub struct Drawn {
    draws: Vec<Draw>,
    /// For the count of those who took part, where the dataset has a smallest cohort.
    count: Option<i64>,
}

enum Draw {
    Noise(Vec<i64>),
    Choice(Choice),
}

/// A choice that was checked to meet its target. It is made when the sums are there: there is nothing to draw before.
#[derive(Clone, Copy)]
struct Choice {
    k: usize,
    scale: f64,
    pure: bool,
}

/// Noised sums: private, and the first thing that may be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noised {
    steps: Vec<Vec<i64>>,
    counted: Option<Counted>,
}

/// Noise that could not be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoiseError {
    /// OpenDP's refusal.
    #[error("the noise could not be drawn: {0}")]
    OpenDp(String),
    /// The scale does not meet the target by OpenDP's own map.
    #[error("the noise scale does not meet the privacy that was promised")]
    TooSmall,
    /// A sum with its noise left 64 bits.
    #[error(transparent)]
    Overflow(#[from] SumOverflow),
    /// The sampler does not draw from its distribution.
    #[error(
        "the noise sampler failed its self-test (chi-square {chi_square:.1} on {degrees} degrees of freedom): this build must not release anything"
    )]
    SelfTest {
        /// What was found.
        chi_square: f64,
        /// Cells less one.
        degrees: usize,
    },
}

impl NoiseError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OpenDp(_) => "noise-library",
            Self::TooSmall => "noise-too-small",
            Self::Overflow(_) => "sum-overflow",
            Self::SelfTest { .. } => "noise-self-test",
        }
    }
}

type Gaussian = Measurement<VectorDomain<AtomDomain<i64>>, L2Distance<f64>, ZeroConcentratedDivergence, Vec<i64>>;
type TopK<M> = Measurement<VectorDomain<AtomDomain<i64>>, LInfDistance<i64>, M, Vec<usize>>;
type Laplace = Measurement<VectorDomain<AtomDomain<i64>>, L1Distance<f64>, MaxDivergence, Vec<i64>>;

fn gaussian(sigma: f64) -> Result<Gaussian, NoiseError> {
    make_gaussian(VectorDomain::new(AtomDomain::default()), L2Distance::default(), sigma, None).map_err(library)
}

fn laplace(scale: f64) -> Result<Laplace, NoiseError> {
    make_laplace(VectorDomain::new(AtomDomain::default()), L1Distance::default(), scale, None).map_err(library)
}

// OpenDP's messages are about its own parameters, which are public.
fn library(error: opendp::error::Error) -> NoiseError {
    NoiseError::OpenDp(error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// Draws the noise of one round, on up to `threads` threads.
///
/// # Errors
/// OpenDP refuses, or its map does not confirm the target.
pub fn draw(calibrated: &[Calibrated], threads: usize) -> Result<Drawn, NoiseError> {
    calibrated
        .iter()
        .map(|statistic| draw_one(statistic, threads))
        .collect::<Result<_, _>>()
        .map(|draws| Drawn { draws, count: None })
}

/// One draw for the moment of a release, by the same samplers: whole microseconds at a scale of `scale_us`.
///
/// # Errors
/// A scale that OpenDP refuses or that is no time.
pub(crate) fn moment(spend: Spend, scale_us: f64) -> Result<i64, NoiseError> {
    // A hundred years, and infinity.
    if scale_us.is_nan() || scale_us > 3.2e15 {
        return Err(NoiseError::TooSmall);
    }
    let drawn = std::thread::scope(|scope| {
        let draw = || match spend {
            Spend::Gaussian(_) => gaussian(scale_us)?.invoke(&vec![0]).map_err(library),
            Spend::Laplace(_) => laplace(scale_us)?.invoke(&vec![0]).map_err(library),
        };
        scope.spawn(draw).join().map_err(|_| NoiseError::OpenDp("a drawing thread panicked".to_owned()))?
    })?;
    drawn.first().copied().ok_or(NoiseError::TooSmall)
}

#[expect(clippy::cast_precision_loss, reason = "scales are below 2^48: exact")]
fn draw_one(statistic: &Calibrated, threads: usize) -> Result<Draw, NoiseError> {
    let reach = statistic.reach;
    if let NoiseScale::Choice { k, scale } = statistic.noise {
        let choice = Choice { k: k as usize, scale: scale as f64, pure: matches!(statistic.target, Target::Epsilon(_)) };
        let (Target::Rho(target) | Target::Epsilon(target)) = statistic.target;
        return if choice.cost(reach.width)? > target { Err(NoiseError::TooSmall) } else { Ok(Draw::Choice(choice)) };
    }
    // `Measurement` is not `Send`: each thread builds its own.
    let some = |entries: usize| -> Result<Vec<i64>, NoiseError> {
        let zeros = vec![0_i64; entries];
        match (statistic.noise, statistic.target) {
            (NoiseScale::Gaussian { sigma }, Target::Rho(rho)) => {
                let measurement = gaussian(sigma as f64)?;
                if measurement.map(&reach.l2).map_err(library)? > rho {
                    return Err(NoiseError::TooSmall);
                }
                measurement.invoke(&zeros).map_err(library)
            }
            (NoiseScale::Laplace { scale }, Target::Epsilon(epsilon)) => {
                let measurement = laplace(scale as f64)?;
                if measurement.map(&reach.l1).map_err(library)? > epsilon {
                    return Err(NoiseError::TooSmall);
                }
                measurement.invoke(&zeros).map_err(library)
            }
            _ => Err(NoiseError::TooSmall),
        }
    };
    let length = statistic.length as usize;
    let threads = length.div_ceil(ENTRIES_PER_THREAD).clamp(1, threads.max(1));
    let share = length.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let some = &some;
        let parts: Vec<_> = (0..length)
            .step_by(share)
            .map(|start| scope.spawn(move || some(share.min(length.saturating_sub(start)))))
            .collect();
        let mut all = Vec::with_capacity(length);
        for part in parts {
            let part = part.join().map_err(|_| NoiseError::OpenDp("a drawing thread panicked".to_owned()))??;
            all.extend(part);
        }
        Ok(Draw::Noise(all))
    })
}

impl Choice {
    fn with<M: TopKMeasure>(self, measure: M) -> Result<TopK<M>, NoiseError> {
        // One individual adds to no sum less than to another by more than the width; as a shift of all sums changes no choice, that
        // is as if it added between 0 and the width to each.
        let metric = LInfDistance::new(true);
        make_noisy_top_k(VectorDomain::new(AtomDomain::default()), metric, measure, self.k, self.scale, false).map_err(library)
    }

    /// What it costs where one individual moves sums apart by up to `width`.
    #[expect(clippy::cast_possible_truncation, reason = "widths are whole numbers below 2^22")]
    fn cost(self, width: f64) -> Result<f64, NoiseError> {
        let width = width as i64;
        let cost =
            if self.pure { self.with(MaxDivergence)?.map(&width) } else { self.with(ZeroConcentratedDivergence)?.map(&width) };
        cost.map_err(library)
    }

    /// 1 for each entry that is chosen, 0 for the others. In a thread of its own, as all drawing.
    fn of(self, sums: &Vec<i64>) -> Result<Vec<i64>, NoiseError> {
        let choose = || match self.pure {
            true => self.with(MaxDivergence)?.invoke(sums).map_err(library),
            false => self.with(ZeroConcentratedDivergence)?.invoke(sums).map_err(library),
        };
        let chosen = std::thread::scope(|scope| {
            scope.spawn(choose).join().map_err(|_| NoiseError::OpenDp("a drawing thread panicked".to_owned()))?
        })?;
        let mut votes = vec![0; sums.len()];
        chosen.into_iter().for_each(|index| votes.get_mut(index).into_iter().for_each(|vote| *vote = 1));
        Ok(votes)
    }
}

/// Noise for a count of individuals, each of whom is in it once at most.
fn count(floor: &Floor) -> Result<i64, NoiseError> {
    let scale = floor.scale();
    let drawn = std::thread::scope(|scope| {
        let draw = || match floor.spend() {
            Spend::Gaussian(rho) => {
                let measurement = gaussian(scale)?;
                match measurement.map(&1.0).map_err(library)? > rho.value() {
                    true => Err(NoiseError::TooSmall),
                    false => measurement.invoke(&vec![0]).map_err(library),
                }
            }
            Spend::Laplace(epsilon) => {
                let measurement = laplace(scale)?;
                match measurement.map(&1.0).map_err(library)? > epsilon {
                    true => Err(NoiseError::TooSmall),
                    false => measurement.invoke(&vec![0]).map_err(library),
                }
            }
        };
        scope.spawn(draw).join().map_err(|_| NoiseError::OpenDp("a drawing thread panicked".to_owned()))?
    })?;
    drawn.first().copied().ok_or(NoiseError::TooSmall)
}

impl Drawn {
    /// Draws for the count of those who take part too, where there is a floor.
    ///
    /// # Errors
    /// OpenDP refuses, or its map does not confirm the target.
    pub fn counting(self, floor: Option<&Floor>) -> Result<Self, NoiseError> {
        Ok(Self { count: floor.map(count).transpose()?, ..self })
    }

    /// Adds the noise to the sums. Takes both by value: noise is used once, and sums are not seen without it.
    ///
    /// # Errors
    /// [`NoiseError::Overflow`].
    pub fn hide(self, sums: Sums) -> Result<Noised, NoiseError> {
        let count = |noise: i64| noise.checked_add(sums.moving()).map(Counted).ok_or(SumOverflow);
        let counted = self.count.map(count).transpose()?;
        Ok(Noised { counted, ..self.over(&sums.into_steps()?)? })
    }

    /// The same over sums that their owner may see: for a dry run.
    pub(crate) fn over(self, sums: &[Vec<i64>]) -> Result<Noised, NoiseError> {
        let one = |(draw, sums): (Draw, &Vec<i64>)| match draw {
            Draw::Noise(mut noise) => {
                for (value, sum) in noise.iter_mut().zip(sums) {
                    *value = value.checked_add(*sum).ok_or(SumOverflow)?;
                }
                Ok(noise)
            }
            Draw::Choice(choice) => choice.of(sums),
        };
        let steps = self.draws.into_iter().zip(sums).map(one).collect::<Result<_, _>>()?;
        Ok(Noised { steps, counted: None })
    }
}

impl Noised {
    /// The noised sums, in steps: one vector for each statistic.
    #[must_use]
    pub fn steps(&self) -> &[Vec<i64>] {
        &self.steps
    }

    /// How many took part, with noise, where that was to be counted.
    #[must_use]
    pub const fn counted(&self) -> Option<Counted> {
        self.counted
    }
}

// Noise that is known takes the privacy away from what it was added to.
impl std::fmt::Debug for Drawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Drawn({} statistics, values withheld)", self.draws.len())
    }
}

/// Draws that the self-test makes of each distribution.
const TEST_DRAWS: usize = 20_000;
/// Standard deviations of chi-square beyond which it fails: a false alarm about once in 10^9 starts.
const TEST_LIMIT: f64 = 8.0;

/// Checks the sampler against the exact distributions by chi-square. A patch release of a transitive crate of OpenDP once
/// biased its noise; a site that starts with such a build must not serve.
///
/// # Errors
/// [`NoiseError::SelfTest`].
pub fn self_test() -> Result<(), NoiseError> {
    // Scales with a fraction, since it was rational division that failed.
    chi_square(&gaussian(7.0 / 3.0)?.invoke(&vec![0; TEST_DRAWS]).map_err(library)?, |x| {
        (-x * x / (2.0 * (7.0_f64 / 3.0).powi(2))).exp()
    })?;
    chi_square(&laplace(2.5)?.invoke(&vec![0; TEST_DRAWS]).map_err(library)?, |x| (-x.abs() / 2.5).exp())
}

/// Compares draws with a density given up to a factor. Cells that expect fewer than 20 draws are pooled with the tails.
#[expect(clippy::cast_precision_loss, reason = "counts and cells are small")]
pub(crate) fn chi_square(draws: &[i64], density: impl Fn(f64) -> f64) -> Result<(), NoiseError> {
    let all: f64 = (-400..=400).map(|x| density(f64::from(x))).sum();
    let expected = |x: i64| density(x as f64) / all * draws.len() as f64;
    let cells: Vec<i64> = (-400..=400).filter(|&x| expected(x) >= 20.0).collect();
    let mut sum = 0.0;
    let (mut rest_expected, mut rest_found) = (draws.len() as f64, draws.len() as f64);
    for &cell in &cells {
        let found = draws.iter().filter(|&&draw| draw == cell).count() as f64;
        sum += (found - expected(cell)).powi(2) / expected(cell);
        rest_expected -= expected(cell);
        rest_found -= found;
    }
    let mut degrees = cells.len().saturating_sub(1);
    if rest_expected >= 5.0 {
        sum += (rest_found - rest_expected).powi(2) / rest_expected;
        degrees = cells.len();
    }
    let z = (sum - degrees as f64) / (2.0 * degrees as f64).sqrt();
    if z > TEST_LIMIT { Err(NoiseError::SelfTest { chi_square: sum, degrees }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
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
        let draws = gaussian(7.0 / 3.0).unwrap().invoke(&vec![0; TEST_DRAWS]).unwrap();
        // Noise of half the promised variance.
        assert!(chi_square(&draws, |x| (-x * x / (7.0_f64 / 3.0).powi(2)).exp()).is_err());
        // Noise off by one step.
        let shifted: Vec<i64> = draws.iter().map(|draw| draw + 1).collect();
        assert!(chi_square(&shifted, |x| (-x * x / (2.0 * (7.0_f64 / 3.0).powi(2))).exp()).is_err());
    }

    /// The variance of n draws lies within 6 standard errors (sd of a variance estimate: sqrt(2/n) for a Gaussian, sqrt(5/n) for
    /// a Laplace): a false alarm about once in 10^8 runs.
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

    /// The exponential mechanism prefers a sum that is larger by d to another as e^(d / scale) to 1; permute-and-flip prefers it more. Over
    /// 1,500 choices the share lies within 6 standard errors of that: a false alarm about once in 10^8 runs.
    #[test]
    fn choices_prefer_larger_sums_by_as_much_as_was_calibrated() {
        for (noise, delta) in [(Noise::Gaussian, 1e-6), (Noise::Laplace, 0.0)] {
            let calibrated = calibrated(noise, delta, 2, Bound::Top { k: 1, lower: 0.0, upper: 1.0 });
            let NoiseScale::Choice { k: 1, scale } = calibrated[0].noise else { panic!("a choice") };
            let gap = i64::try_from(scale).unwrap();
            let choices = 1_500;
            let first = (0..choices).filter(|_| {
                let votes = draw(&calibrated, 1).unwrap().over(&[vec![gap, 0]]).unwrap().steps.remove(0);
                assert!(votes == [1, 0] || votes == [0, 1]);
                votes[0] == 1
            });
            let share = first.count() as f64 / f64::from(choices);
            // With a gap of one scale: e / (1 + e); 1 - e^-1 / 2 where it is permute-and-flip.
            let want = if delta > 0.0 { 1.0_f64.exp() / (1.0 + 1.0_f64.exp()) } else { 1.0 - 0.5 * (-1.0_f64).exp() };
            assert!((share - want).abs() < 6.0 * (want * (1.0 - want) / f64::from(choices)).sqrt(), "{noise:?}: {share}");
        }
    }

    #[test]
    fn a_choice_is_of_the_largest_and_of_as_many_as_were_asked_for() {
        let calibrated = calibrated(Noise::Gaussian, 1e-6, 6, Bound::Top { k: 2, lower: -1.0, upper: 1.0 });
        let NoiseScale::Choice { scale, .. } = calibrated[0].noise else { panic!("a choice") };
        let far = 100 * i64::try_from(scale).unwrap();
        let votes = draw(&calibrated, 1).unwrap().over(&[vec![-far, far, 0, 2 * far, 0, 0]]).unwrap();
        assert_eq!(votes.steps[0], [0, 1, 0, 1, 0, 0]);
    }

    /// The conversion that budgets are reckoned by against OpenDP's (both by Canonne, Kamath and Steinke 2020, proposition 12).
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
}
