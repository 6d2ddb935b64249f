//! Step 12: the airlock looks once more at what is about to leave, knowing only the signed terms.
//!
//! *In*: [`Charged`] terms and [`Noised`] sums. *Out*: [`Cleared`], with the [evidence](Cleared::evidence) that a person reads where one must
//! look. *Trusts*: neither the step that calibrated nor the one that drew: what the noise costs is reckoned again, the other way round, from the
//! manifest. *Refuses*: another shape, another grid, other noise, a charge below what the round costs; a cohort that a noised count finds too small. What it
//! says of the numbers follows from the noised ones alone.

mod cost;
mod rare;

use serde_json::{Value, json};
use vestibule_protocol::calibration::{Calibrated, NoiseScale, calibrate, to_real};
use vestibule_protocol::release::is_choice;
use vestibule_protocol::round::{Partitioning, Statistic};

use self::rare::could_be_rare;
use crate::cohort::{Counted, Floor};
use crate::ledger::Charged;
use crate::noise::Noised;

/// Noised sums that may leave, once a person has looked at them where the site's rules say so.
#[derive(Debug)]
pub struct Cleared {
    noised: Noised,
    evidence: Value,
    counts: Counts,
}

/// What rules may ask of a release's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How many there are.
    pub entries: usize,
    /// How many of them the data chose.
    pub chosen: usize,
    /// How many lie within two standard deviations of their noise.
    pub faint: usize,
    /// How many say of a variant that it is rare.
    pub rare: usize,
}

impl Counts {
    /// The most that can be said of a round by its terms alone.
    #[must_use]
    pub fn most(statistics: &[Statistic], calibrated: &[Calibrated], variants: usize) -> Self {
        let sum = |of: &dyn Fn(&Statistic, &Calibrated) -> usize| {
            statistics.iter().zip(calibrated).map(|(asked, agreed)| of(asked, agreed)).fold(0, usize::saturating_add)
        };
        let entries = sum(&|_, agreed| agreed.length as usize);
        let (chosen, rare) = (sum(&|_, agreed| chosen(agreed)), sum(&|asked, agreed| could_be_rare((asked, agreed), variants)));
        Self { entries, chosen, faint: entries, rare }
    }
}

/// Why nothing leaves.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AirlockError {
    /// What is about to leave is not what was agreed: our fault.
    #[error("the airlock holds the release back: {0}")]
    Fault(&'static str),
    /// Too few took part, by a count with noise.
    #[error("the noised count of those who took part is below the dataset's smallest cohort")]
    Cohort {
        /// The floor.
        floor: Floor,
        /// The count.
        counted: Counted,
    },
}

impl AirlockError {
    /// A stable code for the site's own log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Fault(_) => "airlock",
            Self::Cohort { .. } => "cohort-too-small",
        }
    }

    /// What the site's own log keeps of it.
    #[must_use]
    pub fn evidence(&self) -> Option<Value> {
        match self {
            Self::Fault(_) => None,
            Self::Cohort { floor, counted } => Some(json!({ "cohort": floor.evidence(*counted) })),
        }
    }
}

/// Looks. `floor`: the dataset's, if it has one. `variants`: how many the job's plan reads.
///
/// # Errors
/// [`AirlockError`]: our fault, or what follows from a count with noise.
pub fn inspect(
    charged: &Charged,
    (partitioning, floor, variants): (Partitioning, Option<Floor>, usize),
    calibrated: &[Calibrated],
    noised: Noised,
) -> Result<Cleared, AirlockError> {
    let verified = charged.admitted().verified();
    let budget = verified.signed().budget().round(verified.round().share_ppb());
    if charged.rho() < budget.charge() {
        return Err(AirlockError::Fault("the charge is below the round's cost"));
    }
    let agreed = calibrate(verified.round(), partitioning, budget)
        .map_err(|_| AirlockError::Fault("the terms call for noise that cannot be"))?;
    if agreed != calibrated {
        return Err(AirlockError::Fault("the noise is not what the terms call for"));
    }
    let statistics = verified.round().statistics();
    let cost = cost::within(statistics, partitioning, calibrated, budget.sums()).map_err(AirlockError::Fault)?;
    let lengths = agreed.iter().map(|statistic| statistic.length as usize);
    let cohort = match (floor, noised.counted()) {
        (None, None) => None,
        (Some(floor), Some(counted)) => Some((floor, counted)),
        _ => return Err(AirlockError::Fault("who took part was counted for another floor than the dataset's")),
    };
    if let Some((floor, _)) = cohort
        && !(floor.within() && floor.spend() == budget.time().half())
    {
        return Err(AirlockError::Fault("the count of those who took part costs more than it may"));
    }
    if !noised.steps().iter().map(Vec::len).eq(lengths) {
        return Err(AirlockError::Fault("the shape is not what the terms call for"));
    }
    for (statistic, steps) in agreed.iter().zip(noised.steps()) {
        if let NoiseScale::Choice { k, .. } = statistic.noise
            && !is_choice(steps, k)
        {
            return Err(AirlockError::Fault("a choice is of another number of entries than the terms call for"));
        }
        if steps.iter().any(|step| *step == i64::MIN || *step == i64::MAX) {
            return Err(AirlockError::Fault("a number ran over the grid"));
        }
    }
    // Last: everything before is our fault, or no fault.
    if let Some((floor, counted)) = cohort
        && !floor.holds(counted)
    {
        return Err(AirlockError::Cohort { floor, counted });
    }
    let rows = statistics.iter().zip(&agreed).zip(noised.steps());
    let rows: Vec<Seen> = rows.map(|((asked, agreed), steps)| seen((asked, agreed), steps, variants)).collect();
    let catalogues = &verified.signed().manifest().catalogues;
    let catalogues: Vec<String> =
        catalogues.iter().map(|catalogue| format!("{} ({})", catalogue.name, catalogue.sha256)).collect();
    let lists = match catalogues.as_slice() {
        [] => "none are read".to_owned(),
        some => format!("those of public lists that the manifest names: {}", some.join(", ")),
    };
    let check = |name: &str, found: String| json!({ "check": name, "result": "pass", "found": found });
    let counted = cohort.map(|(floor, counted)| {
        let found = floor.evidence(counted);
        let shown = |name: &str| found.get(name).map(Value::to_string).unwrap_or_default();
        check("cohort", format!("{} took part, by a count with noise, where {} must", shown("noised"), shown("least")))
    });
    let mut evidence = json!({
        "checks": [
            check("charge", format!("{} of rho was charged; the round may cost {}", charged.rho().value(), budget.charge().value())),
            check("noise", format!("reckoned from the signed bounds, it costs {cost} of what the round may spend on its sums")),
            check("shape", format!("{} statistics, as long as the signed round says", rows.len())),
            check("numbers", "whole steps of the mechanism's grid, none beyond it".to_owned()),
            check("variants", lists),
            check("labels", "names and lengths are the signed round's; the component writes no text that leaves".to_owned()),
        ],
        "statistics": statistics.iter().zip(&rows).zip(&agreed).map(|((asked, seen), agreed)| json!({
            "name": asked.name, "entries": agreed.length, "bound": asked.bound, "noise": agreed.noise,
            "standard_deviation": seen.sd, "within_two_standard_deviations": seen.faint, "rare_alleles": seen.rare,
        })).collect::<Vec<_>>(),
    });
    if let (Some(Value::Array(checks)), Some(counted)) = (evidence.get_mut("checks"), counted) {
        checks.push(counted);
    }
    let sum = |of: &dyn Fn(&Seen) -> usize| rows.iter().map(of).fold(0, usize::saturating_add);
    let entries = agreed.iter().map(|statistic| statistic.length as usize).fold(0, usize::saturating_add);
    let (chosen, faint, rare) = (sum(&|seen| seen.chosen), sum(&|seen| seen.faint), sum(&|seen| seen.rare));
    Ok(Cleared { noised, evidence, counts: Counts { entries, chosen, faint, rare } })
}

/// What a person is told of a statistic.
struct Seen {
    sd: f64,
    faint: usize,
    chosen: usize,
    rare: usize,
}

/// How many entries the data chose.
const fn chosen(statistic: &Calibrated) -> usize {
    match statistic.noise {
        NoiseScale::Choice { k, .. } => k as usize,
        NoiseScale::Gaussian { .. } | NoiseScale::Laplace { .. } => 0,
    }
}

/// Follows from the noised steps.
#[expect(clippy::cast_precision_loss, reason = "for people, and for a comparison with noise far above the last bit")]
fn seen((asked, statistic): (&Statistic, &Calibrated), steps: &[i64], variants: usize) -> Seen {
    let (sd_steps, chosen) = (statistic.noise.sd_steps(), chosen(statistic));
    let rare = rare::rare((asked, statistic), steps, variants);
    let faint = steps.iter().filter(|step| chosen == 0 && (step.unsigned_abs() as f64) < 2.0 * sd_steps).count();
    Seen { sd: sd_steps * to_real(1, statistic.log2_scale), faint, chosen, rare }
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

    /// What rules may ask of its numbers.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }
}
