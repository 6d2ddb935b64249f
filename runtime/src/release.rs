//! Step 13: what was cleared becomes a document, is stored, and only then may leave.
//!
//! *In*: [`Charged`] terms, what the airlock [`Cleared`], and the moment before which nobody may learn of it. *Out*: what the ledger
//! holds: the bytes and the moment of the first commit, whatever happened since. *Refuses*: to return bytes that are not on disk.

use serde_json::Value;
use vestibule_protocol::calibration::Calibrated;
use vestibule_protocol::release::{NoisedStatistic, Release, Rounding};

use crate::airlock::Cleared;
use crate::ledger::{Charged, Ledger, LedgerError, Settled};

/// Stores the release of a charged round and returns what to send, and when (`leaves_ms`, milliseconds since 1970). `hold`: why a person must
/// look at it first, if one must.
///
/// # Errors
/// The ledger cannot be written.
pub fn store(
    ledger: &Ledger,
    charged: &Charged,
    calibrated: &[Calibrated],
    (cleared, hold): (&Cleared, Option<(String, Value)>),
    leaves_ms: i64,
) -> Result<Settled, LedgerError> {
    let verified = charged.admitted().verified();
    let rounding = verified.charter().terms().rounding();
    let statistic =
        |((asked, calibrated), steps): ((&vestibule_protocol::round::Statistic, &Calibrated), &Vec<i64>)| NoisedStatistic {
            name: asked.name.clone(),
            log2_scale: calibrated.released_log2_scale(),
            noise: calibrated.noise,
            steps: match rounding.filter(|_| Rounding::is_for(&asked.bound)) {
                Some(rounding) => steps.iter().map(|steps| rounding.apply(*steps, calibrated.released_log2_scale())).collect(),
                None => steps.clone(),
            },
        };
    let release = Release {
        job: verified.signed().manifest().job,
        round: verified.index(),
        site: verified.site().clone(),
        charged_rho_pico: charged.rho().pico(),
        rounding,
        statistics: verified.round().statistics().iter().zip(calibrated).zip(cleared.steps()).map(statistic).collect(),
        salt: crate::ledger::salt()?,
    };
    let bytes = serde_json::to_vec(&release).expect("names and numbers are always JSON");
    let mut evidence = cleared.evidence().clone();
    let (hold, about) = hold.unzip();
    if let (Value::Object(evidence), Some(about)) = (&mut evidence, about) {
        evidence.insert("held".to_owned(), about);
    }
    let evidence = Some(&evidence);
    ledger.commit(charged, &Settled { release: Some(bytes), leaves_ms, hold }, ("released", evidence))
}

/// Stores that a charged round releases nothing. Why stays in the site's ledger. Returns an earlier release if there is one
/// after all.
///
/// # Errors
/// The ledger cannot be written.
pub fn store_nothing(
    ledger: &Ledger,
    charged: &Charged,
    why: (&str, Option<&Value>),
    leaves_ms: i64,
) -> Result<Settled, LedgerError> {
    ledger.commit(charged, &Settled { release: None, leaves_ms, hold: None }, why)
}
