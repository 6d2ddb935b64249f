//! Step 12: the airlock looks once more at what is about to leave, knowing only the signed terms.
//!
//! *In*: [`Charged`] terms and [`Noised`] sums. *Out*: [`Cleared`]. *Trusts*: neither the step that calibrated nor the one that
//! drew: the noise that the terms call for is computed again, from the manifest. *Refuses*: another shape, another grid, other
//! noise, a charge below what the round costs.

use vestibule_protocol::calibration::{Calibrated, NoiseScale, calibrate};
use vestibule_protocol::release::is_choice;
use vestibule_protocol::round::Partitioning;

use crate::ledger::Charged;
use crate::noise::Noised;

/// Noised sums that may leave.
#[derive(Debug)]
pub struct Cleared {
    noised: Noised,
}

/// What is about to leave is not what was agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the airlock holds the release back: {0}")]
pub struct AirlockError(&'static str);

impl AirlockError {
    /// A stable code for the site's own log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "airlock"
    }
}

/// Looks.
///
/// # Errors
/// [`AirlockError`]: our fault, never the data's.
pub fn inspect(
    charged: &Charged,
    partitioning: Partitioning,
    calibrated: &[Calibrated],
    noised: Noised,
) -> Result<Cleared, AirlockError> {
    let verified = charged.admitted().verified();
    let budget = verified.signed().budget().round(verified.round().share_ppb());
    if charged.rho() < budget.charge() {
        return Err(AirlockError("the charge is below the round's cost"));
    }
    let agreed = calibrate(verified.round(), partitioning, budget)
        .map_err(|_| AirlockError("the terms call for noise that cannot be"))?;
    if agreed != calibrated {
        return Err(AirlockError("the noise is not what the terms call for"));
    }
    let lengths = agreed.iter().map(|statistic| statistic.length as usize);
    if !noised.steps().iter().map(Vec::len).eq(lengths) {
        return Err(AirlockError("the shape is not what the terms call for"));
    }
    for (statistic, steps) in agreed.iter().zip(noised.steps()) {
        if let NoiseScale::Choice { k, .. } = statistic.noise
            && !is_choice(steps, k)
        {
            return Err(AirlockError("a choice is of another number of entries than the terms call for"));
        }
    }
    Ok(Cleared { noised })
}

impl Cleared {
    pub(crate) fn steps(&self) -> &[Vec<i64>] {
        self.noised.steps()
    }
}
