//! Which k of many sums are the largest: noise for every entry, drawn before there are sums, then
//! the k largest of both together.
//!
//! *In*: a calibrated choice, then sums. *Out*: 1 for each entry that is chosen, 0 for the others.
//! *Trusts*: OpenDP's map for the cost, its discrete Laplace, and [`gumbel`]'s bound. *Refuses*: a
//! scale that does not meet the target.
//!
//! zCDP: with Gumbel noise the k largest are what the exponential mechanism chooses k times, one
//! after the other (Durfee and Rogers 2019), each time at (width / scale)^2 / 8 (Dong, Durfee and
//! Rogers 2020; Cesar and Rogers 2021); but for 2^-72 of delta an entry, twice the error of a draw.
//! Pure: with geometric noise they are chosen at k x width / scale (Ding et al. 2021 for k = 1).
//! docs/PRIVACY.md, "Choices", has both proofs, with rounding and ties.

use opendp::domains::{AtomDomain, VectorDomain};
use opendp::measurements::{TopKMeasure, make_noisy_top_k};
use opendp::measures::{MaxDivergence, ZeroConcentratedDivergence};
use opendp::metrics::LInfDistance;
use vestibule_protocol::calibration::Target;

use super::NoiseError;
use super::gumbel::{self, UNITS_LOG2};
use super::largest::largest;
use super::library::{laplace, library, spread};
use crate::reduce::SumOverflow;

/// What each entry that is chosen with Gumbel noise adds to delta, at most: twice the error of a
/// draw (docs/PRIVACY.md, "Choices"). All choices of a round together, 4,000,000 entries at most,
/// are within what [`DELTA_FEMTO`] has left.
///
/// [`DELTA_FEMTO`]: crate::delay::DELTA_FEMTO
#[cfg(test)]
pub(super) const DELTA: f64 = 1.0 / (1_u128 << 72) as f64;

/// A choice to be made, with the noise for it, in units of 2^-62 steps.
pub(super) struct Choice {
    pub(super) k: usize,
    pub(super) noise: Vec<i128>,
}

impl Choice {
    /// Draws for `length` entries, of which one individual moves none by more than `width` more
    /// than another.
    pub(super) fn draw(
        (k, scale): (u32, u64),
        (width, target): (f64, Target),
        (length, threads): (usize, usize),
    ) -> Result<Self, NoiseError> {
        let k = k as usize;
        let (cost, most) = match target {
            Target::Rho(rho) => (cost(ZeroConcentratedDivergence, k, scale, width)?, rho),
            Target::Epsilon(epsilon) => (cost(MaxDivergence, k, scale, width)?, epsilon),
        };
        if cost > most || !gumbel::SCALES.contains(&scale) {
            return Err(NoiseError::TooSmall);
        }
        let noise = match target {
            Target::Rho(_) => spread(length, threads, |entries| gumbel::draw(scale, entries))?,
            Target::Epsilon(_) => spread(length, threads, |entries| geometric(scale, entries))?,
        };
        Ok(Self { k, noise })
    }

    /// 1 for each entry that is chosen, 0 for the others. Does the same whatever the sums are.
    pub(super) fn of(self, sums: &[i64]) -> Result<Vec<i64>, SumOverflow> {
        let Self { k, noise: mut keys } = self;
        for (key, sum) in keys.iter_mut().zip(sums) {
            *key = key.checked_add(i128::from(*sum) << UNITS_LOG2).ok_or(SumOverflow)?;
        }
        Ok(largest(&keys, k))
    }
}

/// Geometric noise, P(n) in proportion to e^(-n / scale) for n from 0 on: OpenDP's discrete Laplace
/// x, or -1 - x where that is negative.
pub(super) fn geometric(scale: u64, entries: usize) -> Result<Vec<i128>, NoiseError> {
    #[expect(clippy::cast_precision_loss, reason = "scales are below 2^49: exact")]
    let draws = laplace(scale as f64)?.invoke(&vec![0; entries]).map_err(library)?;
    Ok(draws.into_iter().map(|draw| i128::from(folded(draw)) << UNITS_LOG2).collect())
}

pub(super) const fn folded(draw: i64) -> i64 {
    if draw < 0 { !draw } else { draw }
}

/// What OpenDP's map says of the choice of `k`. One individual adds to no sum less than to another
/// by more than the width; as a shift of all sums changes no choice, that is as if it added between
/// 0 and the width to each.
#[expect(clippy::cast_precision_loss, reason = "scales are below 2^49: exact")]
#[expect(clippy::cast_possible_truncation, reason = "widths are whole numbers below 2^53")]
fn cost<M: TopKMeasure>(measure: M, k: usize, scale: u64, width: f64) -> Result<f64, NoiseError> {
    let (domain, metric) = (VectorDomain::new(AtomDomain::default()), LInfDistance::<i64>::new(true));
    let measurement = make_noisy_top_k(domain, metric, measure, k, scale as f64, false).map_err(library)?;
    measurement.map(&(width as i64)).map_err(library)
}
