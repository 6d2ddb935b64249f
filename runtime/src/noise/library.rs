//! OpenDP's samplers, in threads that live for a draw.
//!
//! *In*: scales, and what noise of them must guarantee. *Out*: noise for zeros. *Trusts*: OpenDP.
//! *Refuses*: what OpenDP's own privacy map does not confirm.

use opendp::core::Measurement;
use opendp::domains::{AtomDomain, VectorDomain};
use opendp::measurements::{make_gaussian, make_laplace};
use opendp::measures::{MaxDivergence, ZeroConcentratedDivergence};
use opendp::metrics::{L1Distance, L2Distance};

use super::NoiseError;

/// Entries that one thread draws. A thread costs some 20 us, a draw some 5 us.
const ENTRIES_PER_THREAD: usize = 4_096;

pub(super) type Gaussian = Measurement<VectorDomain<AtomDomain<i64>>, L2Distance<f64>, ZeroConcentratedDivergence, Vec<i64>>;
pub(super) type Laplace = Measurement<VectorDomain<AtomDomain<i64>>, L1Distance<f64>, MaxDivergence, Vec<i64>>;

pub(super) fn gaussian(sigma: f64) -> Result<Gaussian, NoiseError> {
    make_gaussian(VectorDomain::new(AtomDomain::default()), L2Distance::default(), sigma, None).map_err(library)
}

pub(super) fn laplace(scale: f64) -> Result<Laplace, NoiseError> {
    make_laplace(VectorDomain::new(AtomDomain::default()), L1Distance::default(), scale, None).map_err(library)
}

/// Discrete Gaussian noise, where OpenDP's map says that it costs no more than `rho`.
pub(super) fn gaussian_within(rho: f64, sigma: f64, l2: f64, entries: usize) -> Result<Vec<i64>, NoiseError> {
    let measurement = gaussian(sigma)?;
    match measurement.map(&l2).map_err(library)? > rho {
        true => Err(NoiseError::TooSmall),
        false => measurement.invoke(&vec![0; entries]).map_err(library),
    }
}

/// The same of discrete Laplace noise.
pub(super) fn laplace_within(epsilon: f64, scale: f64, l1: f64, entries: usize) -> Result<Vec<i64>, NoiseError> {
    let measurement = laplace(scale)?;
    match measurement.map(&l1).map_err(library)? > epsilon {
        true => Err(NoiseError::TooSmall),
        false => measurement.invoke(&vec![0; entries]).map_err(library),
    }
}

/// OpenDP's messages are about its own parameters, which are public.
pub(super) fn library(error: opendp::error::Error) -> NoiseError {
    NoiseError::OpenDp(error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// Draws `length` entries in up to `threads` threads that live for that.
pub(super) fn spread<T: Send>(
    length: usize,
    threads: usize,
    some: impl Fn(usize) -> Result<Vec<T>, NoiseError> + Sync,
) -> Result<Vec<T>, NoiseError> {
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
            all.extend(part.join().map_err(|_| NoiseError::OpenDp("a drawing thread panicked".to_owned()))??);
        }
        Ok(all)
    })
}

/// A single draw.
pub(super) fn one(draw: impl Fn(usize) -> Result<Vec<i64>, NoiseError> + Sync) -> Result<i64, NoiseError> {
    spread(1, 1, draw)?.first().copied().ok_or(NoiseError::TooSmall)
}
