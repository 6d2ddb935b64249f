//! Step 13: what was cleared becomes a document, is stored, and only then may leave.
//!
//! *In*: [`Charged`] terms and what the airlock [`Cleared`]. *Out*: the bytes of the release that the ledger holds: those of the
//! first commit, whatever happened since. *Refuses*: to return bytes that are not on disk.

use vestibule_protocol::calibration::Calibrated;
use vestibule_protocol::release::{NoisedStatistic, Release};

use crate::airlock::Cleared;
use crate::ledger::{Charged, Ledger, LedgerError};

/// Stores the release of a charged round and returns the bytes to send.
///
/// # Errors
/// The ledger cannot be written.
pub fn store(
    ledger: &Ledger,
    charged: &Charged,
    calibrated: &[Calibrated],
    cleared: &Cleared,
    now: i64,
) -> Result<Option<Vec<u8>>, LedgerError> {
    let verified = charged.admitted().verified();
    let statistic =
        |((asked, calibrated), steps): ((&vestibule_protocol::round::Statistic, &Calibrated), &Vec<i64>)| NoisedStatistic {
            name: asked.name.clone(),
            log2_scale: calibrated.log2_scale,
            noise: calibrated.noise,
            steps: steps.clone(),
        };
    let release = Release {
        job: verified.signed().manifest().job,
        round: verified.index(),
        site: verified.site().clone(),
        charged_rho_pico: charged.rho().pico(),
        statistics: verified.round().statistics().iter().zip(calibrated).zip(cleared.steps()).map(statistic).collect(),
    };
    let bytes = serde_json::to_vec(&release).expect("names and numbers are always JSON");
    ledger.commit(charged, Some(&bytes), "released", now)
}

/// Stores that a charged round releases nothing. `code` stays in the site's ledger. Returns the bytes of an earlier release if
/// there is one after all.
///
/// # Errors
/// The ledger cannot be written.
pub fn store_nothing(ledger: &Ledger, charged: &Charged, code: &str, now: i64) -> Result<Option<Vec<u8>>, LedgerError> {
    ledger.commit(charged, None, code, now)
}
