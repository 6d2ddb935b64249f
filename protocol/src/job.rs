//! A job's identity, what it may use, and what it may spend.
//!
//! *In*: the fields of a verified manifest. *Out*: [`JobId`], [`Limits`], [`Budget`] and each round's part of it.
//! *Refuses*: an epsilon or delta that is not a usable budget.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::digest::{hex, unhex};
use crate::privacy::Rho;

/// A job: 128 random bits that the researcher drew, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId([u8; 16]);

/// The text is not 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job id is 32 lower-case hex digits")]
pub struct JobIdError;

impl JobId {
    /// From 16 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for JobId {
    type Err = JobIdError;
    fn from_str(text: &str) -> Result<Self, JobIdError> {
        unhex(text).map(Self).ok_or(JobIdError)
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}

/// What one call into a component may use. Asked for by a manifest; a site's own caps win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Fuel for one partition (wasmtime's unit: about one per instruction).
    pub fuel_per_partition: u64,
    /// Linear memory of one instance, in MiB.
    pub memory_mib: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // The frequencies of 13,154 variants take 0.8 M. The moment of a release hides as much as is asked for here.
        Self { fuel_per_partition: 2_000_000, memory_mib: 8 }
    }
}

/// Which noise a job uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noise {
    /// Discrete Gaussian, (epsilon, delta) by way of zCDP.
    #[default]
    Gaussian,
    /// Discrete Laplace, pure epsilon: delta is 0.
    Laplace,
}

/// What a whole job may spend at each site, per individual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    noise: Noise,
    epsilon: f64,
    delta: f64,
    rho: Rho,
}

/// An epsilon or delta that is not a budget.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// Epsilon is outside its range.
    #[error("epsilon is {0}: it must be at least 0.0001 and at most {MAX_EPSILON}")]
    Epsilon(f64),
    /// Delta is outside its range for Gaussian noise.
    #[error("delta is {0}: Gaussian noise needs one above 0 and at most 0.001")]
    Delta(f64),
    /// Delta was given with Laplace noise.
    #[error("delta is {0}: Laplace noise is purely epsilon-private, so delta must be 0")]
    NotPure(f64),
}

impl BudgetError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Epsilon(_) => "epsilon-impossible",
            Self::Delta(_) | Self::NotPure(_) => "delta-impossible",
        }
    }
}

/// The largest epsilon that is still called private here. A site's own policy is usually far below.
pub const MAX_EPSILON: f64 = 50.0;
const MIN_EPSILON: f64 = 1e-4;

impl Budget {
    /// A budget from the terms of a manifest.
    ///
    /// # Errors
    /// Epsilon or delta outside their range.
    pub fn new(noise: Noise, epsilon: f64, delta: f64) -> Result<Self, BudgetError> {
        if !(MIN_EPSILON..=MAX_EPSILON).contains(&epsilon) {
            return Err(BudgetError::Epsilon(epsilon));
        }
        let rho = match noise {
            Noise::Gaussian if delta > 0.0 && delta <= 1e-3 => Rho::budget(epsilon, delta),
            Noise::Gaussian => return Err(BudgetError::Delta(delta)),
            Noise::Laplace if delta == 0.0 => Rho::of_pure(epsilon),
            Noise::Laplace => return Err(BudgetError::NotPure(delta)),
        };
        Ok(Self { noise, epsilon, delta, rho })
    }

    /// Which noise.
    #[must_use]
    pub const fn noise(&self) -> Noise {
        self.noise
    }

    /// Epsilon of the whole job.
    #[must_use]
    pub const fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// Delta of the whole job; 0 with Laplace noise.
    #[must_use]
    pub const fn delta(&self) -> f64 {
        self.delta
    }

    /// What a site reserves in its ledger before the first round.
    #[must_use]
    pub const fn rho(&self) -> Rho {
        self.rho
    }

    /// One round's part, for a share in parts per billion: what its sums may spend, and what the moment of its release may.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share is at most 1e9: exact")]
    pub fn round(&self, share_ppb: u64) -> RoundBudget {
        let charge = self.rho.share(share_ppb);
        let (sums, time) = match self.noise {
            Noise::Gaussian => {
                let time = charge.share(TIME_SHARE_PPB);
                (Spend::Gaussian(charge.checked_sub(time).unwrap_or(Rho::ZERO)), Spend::Gaussian(time))
            }
            Noise::Laplace => {
                let epsilon = self.epsilon * (share_ppb as f64 / 1e9);
                let time = epsilon * (TIME_SHARE_PPB as f64 / 1e9);
                (Spend::Laplace(epsilon - time), Spend::Laplace(time))
            }
        };
        RoundBudget { sums, time, charge }
    }
}

/// The part of a round that pays for the moment of its release, in parts per billion: one twentieth.
pub const TIME_SHARE_PPB: u64 = 50_000_000;

/// What one release of numbers may spend.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Spend {
    /// This rho, by Gaussian noise.
    Gaussian(Rho),
    /// This pure epsilon, by Laplace noise.
    Laplace(f64),
}

impl Spend {
    /// Half of it, rounded down.
    #[must_use]
    pub fn half(self) -> Self {
        match self {
            Self::Gaussian(rho) => Self::Gaussian(rho.share(500_000_000)),
            Self::Laplace(epsilon) => Self::Laplace(epsilon / 2.0),
        }
    }
}

/// What one round may spend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundBudget {
    sums: Spend,
    time: Spend,
    charge: Rho,
}

impl RoundBudget {
    /// Divided among the statistics.
    #[must_use]
    pub const fn sums(&self) -> Spend {
        self.sums
    }

    /// For the moment at which the release leaves; half of it for counting who took part, where the dataset has a smallest cohort.
    #[must_use]
    pub const fn time(&self) -> Spend {
        self.time
    }

    /// What the ledger charges for both. With Laplace noise that is a share s of E^2/2, at least the (s E)^2/2 that the round costs.
    #[must_use]
    pub const fn charge(&self) -> Rho {
        self.charge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_budgets_are_refused() {
        for epsilon in [0.0, -1.0, 1e-5, 50.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Budget::new(Noise::Gaussian, epsilon, 1e-6).unwrap_err().code(), "epsilon-impossible");
        }
        for delta in [0.0, -1e-6, 0.01, f64::NAN] {
            assert_eq!(Budget::new(Noise::Gaussian, 1.0, delta).unwrap_err().code(), "delta-impossible");
        }
        assert_eq!(Budget::new(Noise::Laplace, 1.0, 1e-6).unwrap_err().code(), "delta-impossible");
    }

    #[test]
    fn laplace_rounds_cost_no_more_than_their_charge() {
        let budget = Budget::new(Noise::Laplace, 2.0, 0.0).unwrap();
        for share in [1, 1_000, 250_000_000, 999_999_999, 1_000_000_000] {
            let round = budget.round(share);
            let (Spend::Laplace(sums), Spend::Laplace(time)) = (round.sums(), round.time()) else { panic!("laplace") };
            assert!((sums + time).powi(2) / 2.0 <= round.charge().value() + 1e-12, "{share}");
        }
    }

    #[test]
    fn sums_and_time_of_gaussian_rounds_add_up_to_the_charge() {
        let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap();
        for share in [1, 1_000, 333_333_333, 1_000_000_000] {
            let round = budget.round(share);
            let (Spend::Gaussian(sums), Spend::Gaussian(time)) = (round.sums(), round.time()) else { panic!("gaussian") };
            assert_eq!(sums.checked_add(time), Some(round.charge()));
            assert!(time.pico() * 20 <= round.charge().pico());
        }
    }

    #[test]
    fn job_ids_are_hex() {
        let id = JobId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("AB".repeat(16).parse::<JobId>().is_err());
    }
}
