//! What may ever be spent on a dataset, as its recipe says.

use serde::{Deserialize, Serialize};
use vestibule_protocol::privacy::Rho;

/// The part of a lifetime's delta at which its epsilon is reckoned as rho; the rest is for the moments of releases.
pub const SUMS_DELTA: f64 = 0.9;

/// What may ever be spent on a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifetimeBudget {
    /// Epsilon, at this delta, over all jobs together.
    pub epsilon: f64,
    /// Delta. A tenth of it is for the moments at which releases leave.
    pub delta: f64,
    /// What any one researcher may spend of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub researcher_epsilon: Option<f64>,
}

impl LifetimeBudget {
    /// As zCDP, which is what the ledger counts.
    #[must_use]
    pub fn rho(&self) -> Rho {
        Rho::budget(self.epsilon, self.delta * SUMS_DELTA)
    }

    /// A researcher's part.
    #[must_use]
    pub fn researcher_rho(&self) -> Option<Rho> {
        self.researcher_epsilon.map(|epsilon| Rho::budget(epsilon, self.delta * SUMS_DELTA))
    }

    /// What the moments of all releases may add to delta, in 10^-15.
    #[must_use]
    pub fn moments_femto(&self) -> u64 {
        whole(self.delta * (1.0 - SUMS_DELTA) * 1e15)
    }

    /// In 10^-6 epsilon.
    #[must_use]
    pub fn epsilon_micro(&self) -> u64 {
        whole(self.epsilon * 1e6)
    }

    /// In 10^-15 delta.
    #[must_use]
    pub fn delta_femto(&self) -> u64 {
        whole(self.delta * 1e15)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates; both amounts are checked to be positive"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}
