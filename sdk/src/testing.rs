//! Runs a whole analysis natively, for its own tests: plan, rounds, report, without wasm and without a host.
//!
//! *In*: a [`Cohort`], parameters, and what [`Noise`] to add. *Out*: an [`Outcome`] to look values up in. The loop is the
//! host's: each person alone, bounds enforced, sums, noise, `next`. *Trusts*: nothing of the analysis's bounds: it enforces them
//! as a site does, in floating point instead of integers. The noise is right in distribution and **not** fit to protect
//! anyone: a seeded generator. Sites draw theirs from OpenDP.

mod cohort;
mod outcome;
mod reduce;

pub use cohort::Cohort;
pub use outcome::Outcome;

/// What is added to each sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// Nothing: the sums themselves.
    Exact,
    /// Gaussian noise for this many sites of this zCDP budget each, from a seed.
    Gaussian {
        /// The job's whole budget at each site (zCDP). [`rho`] converts an epsilon.
        rho: f64,
        /// How many sites add their noise.
        sites: u32,
        /// Same seed, same noise.
        seed: u64,
    },
}

/// The zCDP budget that (`epsilon`, `delta`) allows, by Bun and Steinke's simple conversion (2016, proposition 1.3):
/// epsilon = rho + 2 sqrt(rho ln(1/delta)). Sites use a tighter one, so real noise is somewhat less.
#[must_use]
pub fn rho(epsilon: f64, delta: f64) -> f64 {
    let l = (1.0 / delta).ln();
    ((l + epsilon).sqrt() - l.sqrt()).powi(2)
}

/// Standard normal draws from a seed (splitmix64, Box and Muller). For tests: predictable, so useless as protection.
#[derive(Debug, Clone)]
pub struct Gauss(u64);

impl Gauss {
    /// A generator.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number in 0..1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A standard normal number.
    pub fn draw(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
