//! Whether the samplers draw from their distributions: asked at every start of a site.
//!
//! *In*: draws of this build. *Out*: nothing. *Trusts*: the formulas of the distributions.
//! *Refuses*: samplers whose draws do not agree with them by chi-square. A patch release of a
//! transitive crate of OpenDP once biased its noise; a site that starts with such a build must not
//! serve.

use super::choice::{Choice, folded};
use super::gumbel::{self, UNITS_LOG2};
use super::library::{gaussian, laplace, library};
use super::{Draw, Drawn, NoiseError};

/// Draws that the self-test makes of each distribution.
pub(super) const DRAWS: usize = 20_000;
/// Standard deviations of chi-square beyond which it fails: a false alarm about once in 10^9
/// starts.
const LIMIT: f64 = 8.0;
/// Each choice of the self-test: two of four entries, whose sums are so many halves of a scale.
const SUMS: [i64; 4] = [0, 3, 1, 2];
/// A scale of choices, in steps.
const SCALE: u64 = 1 << 20;

/// Checks all samplers against the exact distributions by chi-square.
///
/// # Errors
/// [`NoiseError::SelfTest`].
pub fn self_test() -> Result<(), NoiseError> {
    // Scales with a fraction, since it was rational division that failed.
    chi_square(&gaussian(7.0 / 3.0)?.invoke(&vec![0; DRAWS]).map_err(library)?, |x| {
        (-x * x / (2.0 * (7.0_f64 / 3.0).powi(2))).exp()
    })?;
    let mut draws = laplace(2.5)?.invoke(&vec![0; DRAWS]).map_err(library)?;
    chi_square(&draws, |x| (-x.abs() / 2.5).exp())?;
    // As pure choices use them.
    draws.iter_mut().for_each(|draw| *draw = folded(*draw));
    chi_square(&draws, |x| if x < 0.0 { 0.0 } else { (-x / 2.5).exp() })?;
    gumbels(&gumbel::draw(SCALE, DRAWS * SUMS.len())?)
}

/// Checks Gumbel noise at [`SCALE`] by itself, in fifths of a scale, and by what is chosen with it.
pub(super) fn gumbels(noise: &[i128]) -> Result<(), NoiseError> {
    let fifth =
        |units: &i128| i64::try_from((units >> UNITS_LOG2).saturating_mul(5).div_euclid(SCALE.into())).unwrap_or(i64::MAX);
    let below = |x: f64| (-(-x / 5.0).exp()).exp();
    chi_square(&noise.iter().map(fifth).collect::<Vec<_>>(), |x| below(x + 1.0) - below(x))?;
    let sums = SUMS.map(|halves| halves * (SCALE / 2).cast_signed());
    let weights = SUMS.map(|halves| (f64::from(i32::try_from(halves).unwrap_or_default()) / 2.0).exp());
    choices(noise, &sums, 2, |set| peeled(&weights, set))
}

/// The chance that the exponential mechanism, once for each entry of `set` and then among those
/// that are left, chooses that set. Sets are bits.
pub(super) fn peeled(weights: &[f64], set: usize) -> f64 {
    let all = (1 << weights.len()) - 1;
    after(weights, set, all)
}

fn after(weights: &[f64], set: usize, left: usize) -> f64 {
    if set == 0 {
        return 1.0;
    }
    let entries = || weights.iter().enumerate().map(|(at, weight)| (1_usize << at, weight));
    let total: f64 = entries().filter(|(bit, _)| left & bit != 0).map(|(_, weight)| weight).sum();
    let first = entries().filter(|(bit, _)| set & bit != 0);
    first.map(|(bit, weight)| weight / total * after(weights, set & !bit, left & !bit)).sum()
}

/// Chooses `k` by the noise of each few entries, as often as it reaches, and compares how often
/// each set was chosen with its `chance`.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub(super) fn choices(noise: &[i128], sums: &[i64], k: usize, chance: impl Fn(usize) -> f64) -> Result<(), NoiseError> {
    let mut found = vec![0.0; 1 << sums.len()];
    let mut runs = 0_usize;
    for noise in noise.chunks_exact(sums.len()) {
        let draws = vec![Draw::Choice(Choice { k, noise: noise.to_vec() })];
        let noised = Drawn { draws, count: None }.over(&[sums.to_vec()])?;
        let votes = noised.steps().iter().flatten().enumerate();
        let set: usize = votes.map(|(at, vote)| usize::from(*vote != 0) << at).sum();
        found.get_mut(set).into_iter().for_each(|found| *found += 1.0);
        runs = runs.saturating_add(1);
    }
    // A set of another size must never come: any that does is as far off as can be.
    let expected = |set: usize| if set.count_ones() as usize == k { chance(set) * runs as f64 } else { 0.0 };
    let cells: Vec<_> = found.into_iter().enumerate().map(|(set, found)| (found, expected(set))).collect();
    match cells.iter().any(|(found, expected)| *found > 0.0 && *expected <= 0.0) {
        true => Err(NoiseError::SelfTest { chi_square: f64::INFINITY, degrees: cells.len() }),
        false => agree(&cells, (0.0, 0.0)),
    }
}

/// Compares draws with a density given up to a factor.
#[expect(clippy::cast_precision_loss, reason = "counts and cells are small")]
pub(super) fn chi_square(draws: &[i64], density: impl Fn(f64) -> f64) -> Result<(), NoiseError> {
    let all: f64 = (-400..=400).map(|x| density(f64::from(x))).sum();
    let mut found = vec![0.0; 801];
    let mut beyond = 0.0;
    for draw in draws {
        let cell = usize::try_from(draw.saturating_add(400)).ok();
        *cell.and_then(|cell| found.get_mut(cell)).unwrap_or(&mut beyond) += 1.0;
    }
    let expected = (-400..=400).map(|x| density(f64::from(x)) / all * draws.len() as f64);
    agree(&found.into_iter().zip(expected).collect::<Vec<_>>(), (beyond, 0.0))
}

/// Compares what was found with what was to be expected, cell by cell. Cells that expect fewer than
/// 20 are pooled with the `rest`.
#[expect(clippy::cast_precision_loss, reason = "there are few cells")]
fn agree(cells: &[(f64, f64)], rest: (f64, f64)) -> Result<(), NoiseError> {
    let (large, small): (Vec<_>, Vec<_>) = cells.iter().copied().partition(|(_, expected)| *expected >= 20.0);
    let rest = small.into_iter().fold(rest, |rest, cell| (rest.0 + cell.0, rest.1 + cell.1));
    let off = |(found, expected): (f64, f64)| (found - expected).powi(2) / expected;
    let mut sum: f64 = large.iter().copied().map(off).sum();
    let mut degrees = large.len().saturating_sub(1);
    // What expects next to nothing is not of chi-square's distribution: draws there fail the test
    // where they are many.
    if rest.1 >= 5.0 || rest.0 >= 50.0 {
        sum += off((rest.0, rest.1.max(f64::MIN_POSITIVE)));
        degrees = large.len();
    }
    let z = (sum - degrees as f64) / (2.0 * degrees as f64).sqrt();
    if z > LIMIT || z.is_nan() { Err(NoiseError::SelfTest { chi_square: sum, degrees }) } else { Ok(()) }
}
