//! The arithmetic of a budget: zero-concentrated differential privacy in whole numbers, and what it means as (epsilon, delta).
//!
//! *In*: the epsilon and delta of a manifest or of a dataset's policy. *Out*: [`Rho`], the unit of every ledger.
//! Every conversion errs on the side of privacy: a budget is rounded down, a cost is rounded up, a shown epsilon is rounded up.
//!
//! Sources: zCDP, Bun and Steinke, TCC 2016, <https://arxiv.org/abs/1605.02065>; the conversion to (epsilon, delta),
//! Canonne, Kamath and Steinke, NeurIPS 2020, <https://arxiv.org/abs/2004.00010>, Corollary 13.

use std::fmt;

use serde::{Deserialize, Serialize};

/// zCDP's rho in units of 10^-12, exact under addition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rho(u64);

/// Units of [`Rho`] in a rho of 1.
pub const RHO_UNITS: f64 = 1e12;

impl Rho {
    /// No privacy loss.
    pub const ZERO: Self = Self(0);

    /// From units of 10^-12.
    #[must_use]
    pub const fn from_pico(pico: u64) -> Self {
        Self(pico)
    }

    /// In units of 10^-12.
    #[must_use]
    pub const fn pico(self) -> u64 {
        self.0
    }

    /// As a plain number.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rho above 9007 means no privacy at all; below, the cast is exact")]
    pub fn value(self) -> f64 {
        self.0 as f64 / RHO_UNITS
    }

    /// The sum, or `None` on overflow.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// What is left after taking `other`, or `None` when it is not enough.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// `share_ppb` parts per billion of this budget, rounded down.
    #[must_use]
    pub fn share(self, share_ppb: u64) -> Self {
        let part = u128::from(self.0) * u128::from(share_ppb) / 1_000_000_000;
        Self(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// The largest rho whose (epsilon, delta) is within `epsilon` and `delta`, rounded down.
    #[must_use]
    pub fn budget(epsilon: f64, delta: f64) -> Self {
        let (mut good, mut bad) = (0.0_f64, epsilon.max(0.0));
        halve((&mut good, &mut bad), |rho| delta_of(rho, epsilon) <= delta);
        Self(whole((good * RHO_UNITS).floor()))
    }

    /// The cost of one pure `epsilon`-private release: epsilon^2 / 2, rounded up (Bun and Steinke, Proposition 3).
    #[must_use]
    pub fn of_pure(epsilon: f64) -> Self {
        Self(whole((epsilon * epsilon / 2.0 * RHO_UNITS).ceil()))
    }

    /// The smallest epsilon at `delta` that this rho implies, rounded up in the sixth digit after the point.
    #[must_use]
    pub fn epsilon(self, delta: f64) -> f64 {
        let rho = self.value();
        if self.0 == 0 {
            return 0.0;
        }
        let (mut low, mut high) = (0.0_f64, rho + 2.0 * (rho * (1.0 / delta).ln()).sqrt());
        halve((&mut high, &mut low), |epsilon| delta_of(rho, epsilon) <= delta);
        (high * 1e6).ceil() / 1e6
    }
}

impl fmt::Display for Rho {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rho {:.6}", self.value())
    }
}

impl fmt::Debug for Rho {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rho({} pico)", self.0)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float to integer casts saturate; NaN gives 0")]
const fn whole(value: f64) -> u64 {
    value as u64
}

/// Most steps of a search. Each ends sooner where a step changes nothing: then none does any more.
const STEPS: usize = 200;

/// Halves what lies between a number that is right and one that is not, until doubles are no finer.
fn halve((right, wrong): (&mut f64, &mut f64), is_right: impl Fn(f64) -> bool) {
    for _ in 0..STEPS {
        let middle = f64::midpoint(*right, *wrong);
        if middle == *right || middle == *wrong {
            return;
        }
        *(if is_right(middle) { &mut *right } else { &mut *wrong }) = middle;
    }
}

/// The delta that `rho`-zCDP has at `epsilon`: the infimum over a > 1 of
/// `exp((a-1)(a rho - epsilon)) / (a-1) * (1 - 1/a)^a`. Any a gives a valid bound, so an inexact minimum is safe.
#[must_use]
pub fn delta_of(rho: f64, epsilon: f64) -> f64 {
    if rho <= 0.0 {
        return 0.0;
    }
    let log_delta = |log_excess: f64| {
        let excess = log_excess.exp();
        let order = 1.0 + excess;
        excess * (order * rho - epsilon) + order * (-1.0 / order).ln_1p() - log_excess
    };
    // The minimum lies near a = (epsilon / rho + 1) / 2; a ternary search on ln(a - 1) around it.
    let (mut low, mut high) = (-20.0_f64, (epsilon / rho + 10.0).ln().max(1.0) + 5.0);
    for _ in 0..STEPS {
        let before = (low, high);
        let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if log_delta(left) < log_delta(right) {
            high = right
        } else {
            low = left
        }
        if (low, high) == before {
            break;
        }
    }
    log_delta(f64::midpoint(low, high)).exp().min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_meet_published_values() {
        // epsilon at delta 1e-6, computed with OpenDP 0.16's tight conversion.
        for (rho, epsilon) in [(0.01, 0.622), (0.1, 2.142), (0.5, 5.222), (1.0, 7.766), (2.0, 11.69)] {
            let got = Rho::from_pico(whole(rho * RHO_UNITS)).epsilon(1e-6);
            assert!((got - epsilon).abs() < 0.006, "rho {rho}: {got} is not {epsilon}");
        }
        for (epsilon, rho) in [(0.1, 0.00032), (0.5, 0.0066), (1.0, 0.0244), (2.0, 0.0882), (8.0, 1.05)] {
            let got = Rho::budget(epsilon, 1e-6).value();
            assert!((got / rho - 1.0).abs() < 0.02, "epsilon {epsilon}: {got} is not {rho}");
        }
    }

    #[test]
    fn a_budget_never_costs_more_than_it_says() {
        for epsilon in [1e-3, 0.01, 0.3, 1.0, 7.0, 50.0] {
            for delta in [1e-12, 1e-6, 1e-3] {
                let rho = Rho::budget(epsilon, delta);
                assert!(rho.epsilon(delta) <= epsilon + 2e-6, "{epsilon} {delta}: {rho:?}");
                assert!(rho > Rho::ZERO);
            }
        }
    }

    #[test]
    fn shares_never_add_up_to_more_than_the_whole() {
        let whole = Rho::from_pico(24_400_000_001);
        let parts: u64 = (0..3).map(|_| whole.share(333_333_333).pico()).sum();
        assert!(parts <= whole.pico());
        assert_eq!(whole.share(1_000_000_000), whole);
        assert_eq!(Rho::from_pico(u64::MAX).checked_add(Rho::from_pico(1)), None);
        assert_eq!(Rho::ZERO.checked_sub(Rho::from_pico(1)), None);
    }
}
