//! Step 12: the airlock looks once more at what is about to leave, knowing only the signed terms.
//!
//! *In*: [`Charged`] terms and [`Noised`] sums. *Out*: [`Cleared`], with the [evidence](Cleared::evidence) that a person reads where one must
//! look. *Trusts*: neither the step that calibrated nor the one that drew: what the noise costs is reckoned again, the other way round, from the
//! manifest. *Refuses*: another shape, another grid, other noise, a charge below what the round costs. What it says of the numbers follows
//! from the noised ones alone.

mod cost;

use serde_json::{Value, json};
use vestibule_protocol::calibration::{Calibrated, NoiseScale, calibrate, to_real};
use vestibule_protocol::release::is_choice;
use vestibule_protocol::round::Partitioning;

use crate::ledger::Charged;
use crate::noise::Noised;

/// Noised sums that may leave, once a person has looked at them where the site's rules say so.
#[derive(Debug)]
pub struct Cleared {
    noised: Noised,
    evidence: Value,
    entries: usize,
    chosen: usize,
    faint: usize,
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
    let statistics = verified.round().statistics();
    let cost = cost::within(statistics, partitioning, calibrated, budget.sums()).map_err(AirlockError)?;
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
        if steps.iter().any(|step| *step == i64::MIN || *step == i64::MAX) {
            return Err(AirlockError("a number ran over the grid"));
        }
    }
    let rows: Vec<Seen> = agreed.iter().zip(noised.steps()).map(|(statistic, steps)| seen(statistic, steps)).collect();
    let catalogues = &verified.signed().manifest().catalogues;
    let catalogues: Vec<String> =
        catalogues.iter().map(|catalogue| format!("{} ({})", catalogue.name, catalogue.sha256)).collect();
    let variants = match catalogues.as_slice() {
        [] => "none are read".to_owned(),
        some => format!("those of public lists that the manifest names: {}", some.join(", ")),
    };
    let check = |name: &str, found: String| json!({ "check": name, "result": "pass", "found": found });
    let evidence = json!({
        "checks": [
            check("charge", format!("{} of rho was charged; the round may cost {}", charged.rho().value(), budget.charge().value())),
            check("noise", format!("reckoned from the signed bounds, it costs {cost} of what the round may spend on its sums")),
            check("shape", format!("{} statistics, as long as the signed round says", rows.len())),
            check("numbers", "whole steps of the mechanism's grid, none beyond it".to_owned()),
            check("variants", variants),
            check("labels", "names and lengths are the signed round's; the component writes no text that leaves".to_owned()),
        ],
        "statistics": statistics.iter().zip(&rows).zip(&agreed).map(|((asked, seen), agreed)| json!({
            "name": asked.name, "entries": agreed.length, "bound": asked.bound, "noise": agreed.noise,
            "standard_deviation": seen.sd, "within_two_standard_deviations": seen.faint,
        })).collect::<Vec<_>>(),
    });
    let sum = |of: &dyn Fn(&Seen) -> usize| rows.iter().map(of).fold(0, usize::saturating_add);
    let entries = agreed.iter().map(|statistic| statistic.length as usize).fold(0, usize::saturating_add);
    let (chosen, faint) = (sum(&|seen| seen.chosen), sum(&|seen| seen.faint));
    Ok(Cleared { noised, evidence, entries, chosen, faint })
}

/// What a person is told of a statistic.
struct Seen {
    sd: f64,
    faint: usize,
    chosen: usize,
}

/// Follows from the noised steps.
#[expect(clippy::cast_precision_loss, reason = "for people, and for a comparison with noise far above the last bit")]
fn seen(statistic: &Calibrated, steps: &[i64]) -> Seen {
    let sd_steps = statistic.noise.sd_steps();
    let chosen = match statistic.noise {
        NoiseScale::Choice { k, .. } => k as usize,
        NoiseScale::Gaussian { .. } | NoiseScale::Laplace { .. } => 0,
    };
    let faint = steps.iter().filter(|step| chosen == 0 && (step.unsigned_abs() as f64) < 2.0 * sd_steps).count();
    Seen { sd: sd_steps * to_real(1, statistic.log2_scale), faint, chosen }
}

impl Cleared {
    pub(crate) fn steps(&self) -> &[Vec<i64>] {
        self.noised.steps()
    }

    /// What was checked, and what was found: for a person who decides whether it may leave, and for the log.
    #[must_use]
    pub const fn evidence(&self) -> &Value {
        &self.evidence
    }

    /// How many numbers there are; how many entries the data chose; how many numbers lie within two standard deviations of their noise.
    #[must_use]
    pub const fn counts(&self) -> (usize, usize, usize) {
        (self.entries, self.chosen, self.faint)
    }
}
