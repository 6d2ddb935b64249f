//! Step 11: noise, by OpenDP, drawn once and before the sums are touched.
//!
//! *In*: what was calibrated, then [`Sums`]. *Out*: [`Noised`]. *Trusts*: OpenDP's discrete
//! Gaussian and discrete Laplace (Canonne, Kamath, Steinke 2020), and the Gumbel noise of choices,
//! all of which [`self_test`] checks at every start. *Refuses*: to draw where OpenDP's own privacy
//! map says that the scale does not meet the target.
//!
//! The noise is drawn for a vector of zeros, so its drawing time (which follows its size) is
//! independent of the data, and added afterwards; what is chosen is chosen in a time that is
//! independent of it, too. Its bytes come from ChaCha20, keyed by the operating system in each
//! thread that draws; such a thread lives for one draw, so that a process that is forked or a
//! machine that is cloned between two draws does not repeat one.

mod check;
mod choice;
mod error;
mod gumbel;
mod largest;
mod library;
#[cfg(test)]
mod tests;

use vestibule_protocol::calibration::{Calibrated, NoiseScale, Target};
use vestibule_protocol::job::Spend;

pub use self::check::self_test;
use self::choice::Choice;
pub use self::error::NoiseError;
use self::library::{gaussian, gaussian_within, laplace, laplace_within, library, one, spread};
use crate::cohort::{Counted, Floor};
use crate::reduce::{SumOverflow, Sums};

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

/// Noised sums: private, and the first thing that may be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noised {
    steps: Vec<Vec<i64>>,
    counted: Option<Counted>,
}

/// Draws the noise of one round, on up to `threads` threads.
///
/// # Errors
/// OpenDP refuses, or its map does not confirm the target.
pub fn draw(calibrated: &[Calibrated], threads: usize) -> Result<Drawn, NoiseError> {
    let draws = calibrated.iter().map(|statistic| draw_one(statistic, threads)).collect::<Result<_, _>>()?;
    Ok(Drawn { draws, count: None })
}

#[expect(clippy::cast_precision_loss, reason = "scales are below 2^48: exact")]
fn draw_one(statistic: &Calibrated, threads: usize) -> Result<Draw, NoiseError> {
    let (reach, length, target) = (statistic.reach, statistic.length as usize, statistic.target);
    match (statistic.noise, target) {
        (NoiseScale::Choice { k, scale }, _) => {
            Choice::draw((k, scale), (reach.width, target), (length, threads)).map(Draw::Choice)
        }
        (NoiseScale::Gaussian { sigma }, Target::Rho(rho)) => {
            spread(length, threads, |entries| gaussian_within(rho, sigma as f64, reach.l2, entries)).map(Draw::Noise)
        }
        (NoiseScale::Laplace { scale }, Target::Epsilon(epsilon)) => {
            spread(length, threads, |entries| laplace_within(epsilon, scale as f64, reach.l1, entries)).map(Draw::Noise)
        }
        (NoiseScale::Gaussian { .. }, Target::Epsilon(_)) | (NoiseScale::Laplace { .. }, Target::Rho(_)) => {
            Err(NoiseError::TooSmall)
        }
    }
}

/// One draw for the moment of a release, by the same samplers: whole microseconds at a scale of
/// `scale_us`.
///
/// # Errors
/// A scale that OpenDP refuses or that is no time.
pub(crate) fn moment(spend: Spend, scale_us: f64) -> Result<i64, NoiseError> {
    // A hundred years, and infinity.
    if scale_us.is_nan() || scale_us > 3.2e15 {
        return Err(NoiseError::TooSmall);
    }
    one(|entries| match spend {
        Spend::Gaussian(_) => gaussian(scale_us)?.invoke(&vec![0; entries]).map_err(library),
        Spend::Laplace(_) => laplace(scale_us)?.invoke(&vec![0; entries]).map_err(library),
    })
}

/// Noise for a count of individuals, each of whom is in it once at most.
fn count(floor: &Floor) -> Result<i64, NoiseError> {
    let scale = floor.scale();
    one(|entries| match floor.spend() {
        Spend::Gaussian(rho) => gaussian_within(rho.value(), scale, 1.0, entries),
        Spend::Laplace(epsilon) => laplace_within(epsilon, scale, 1.0, entries),
    })
}

impl Drawn {
    /// Draws for the count of those who take part too, where there is a floor.
    ///
    /// # Errors
    /// OpenDP refuses, or its map does not confirm the target.
    pub fn counting(self, floor: Option<&Floor>) -> Result<Self, NoiseError> {
        Ok(Self { count: floor.map(count).transpose()?, ..self })
    }

    /// Adds the noise to the sums. Takes both by value: noise is used once, and sums are not seen
    /// without it.
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
        let steps = self.draws.into_iter().zip(sums).map(one).collect::<Result<_, SumOverflow>>()?;
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
